"""What a worker holds over minutes of mixed load, and whether that grows.

    python3 benchmarks/memory.py [--minutes 10]

Starts this project with 100,000 keys and 2 workers, lets each worker load every key, and then sends
requests that are admitted, refused, without a key, with a wrong, an unknown or a revoked one, and
for unknown paths, from 1,000,000 clients; a key is issued or revoked every half minute. Ends with 1
when anything was answered 5xx, when a worker has died, or when the last minute's median is more
than 2 % or more than 2 MB above the third minute's (of under four minutes: the first's).
"""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Final

import own_venv
import report
import wrk
from report import Progress

if TYPE_CHECKING:
    from growth_mixed import Mixed

LEAST_MINUTES: Final = 2
SETTLED: Final = 2
"""The minute that the last is compared to, the first being 0."""
MOST_SHARE: Final = 1.02
MOST_MB: Final = 2.0
MOST_RESIDENT_MB: Final = 90


def settled(minutes: int) -> int:
    return SETTLED if minutes > SETTLED + 1 else 0


def faults(mixed: Mixed, minutes: int, workers: int) -> list[str]:
    """Sentences on why the run has failed; none when it has not."""
    memory, reference, last = mixed.memory, settled(minutes), minutes - 1
    found = []
    if broken := sum(count for status, count in mixed.statuses.items() if status >= 500):
        found.append(f"{broken:,} answers were 5xx.")
    if len(memory.samples) != workers:
        found.append(f"There were {len(memory.samples)} workers in turn, not {workers}.")
        return found
    for worker in memory.samples:
        before, after = memory.minute(worker, reference), memory.minute(worker, last)
        if after > min(before * MOST_SHARE, before + MOST_MB):
            found.append(
                f"A worker went from {before:.1f} MB in minute {reference + 1}"
                f" to {after:.1f} MB in minute {minutes}."
            )
    return found


def table(mixed: Mixed, minutes: int) -> str:
    memory, reference = mixed.memory, settled(minutes)
    compared = [0, reference, minutes - 1] if reference else [0, minutes - 1]
    head = ["MB", *(f"minute {minute + 1}" for minute in compared), "most", "an hour"]
    rows = [
        [
            f"worker {number}",
            *(f"{memory.minute(worker, minute):.1f}" for minute in compared),
            f"{memory.most(worker):.1f}",
            f"{memory.slope(worker, reference):+.1f}",
        ]
        for number, worker in enumerate(memory.samples, start=1)
    ]
    return report.plain_table(head, rows)


def summary(mixed: Mixed, minutes: int) -> str:
    statuses = ", ".join(f"{n:,} {status}" for status, n in sorted(mixed.statuses.items()))
    most = max(mixed.memory.most(worker) for worker in mixed.memory.samples)
    verdict = "within" if most <= MOST_RESIDENT_MB else "above"
    lines = [
        table(mixed, minutes),
        "",
        f"Medians of a minute; the slope from minute {settled(minutes) + 1} on; {mixed.store}.",
        f"The most, {most:.1f} MB, is {verdict} {MOST_RESIDENT_MB} MB.",
        f"Answers: {statuses}; {mixed.socket_errors} socket errors.",
        f"Commands: {mixed.commands}, of which failed {len(mixed.failures)}.",
        *mixed.failures,
    ]
    if mixed.warnings:
        lines += [f"Warnings in the log: {len(mixed.warnings)}, the last:", mixed.warnings[-1]]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=int, default=10, help="default: %(default)s")
    minutes = parser.parse_args().minutes
    if minutes < LEAST_MINUTES:
        parser.error(f"--minutes: at least {LEAST_MINUTES}")
    own_venv.enter()
    wrk.check()
    from growth_mixed import run_for
    from targets import WORKERS

    mixed = run_for(minutes)
    print(summary(mixed, minutes))
    if found := faults(mixed, minutes, WORKERS):
        sys.exit("\n".join(found))


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        Progress.end()
        sys.exit(130)
