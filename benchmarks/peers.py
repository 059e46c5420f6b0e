"""This project and others that do the same job, measured side by side.

    python3 benchmarks/peers.py [--quick] [--only NAME ...]

Runs every server at once on loopback, over one store, and loads them in turn with wrk, in rounds.
A full run takes a quarter of an hour and writes docs/performance.md and docs/performance.svg.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import dataclass
from typing import Final

import own_venv
import peers_page
import wrk
from comparison import PRIMING_WEIGHT, Comparison, start
from report import Progress
from servers import Servers
from targets import REFERENCE, TARGETS, Target


@dataclass(frozen=True)
class Plan:
    rounds: int
    seconds: int
    """Of load on each target in each case, in each round."""
    minutes: float
    """No round is begun that would end later than this, but for the first."""


FULL: Final = Plan(rounds=7, seconds=2, minutes=14.5)
QUICK: Final = Plan(rounds=2, seconds=1, minutes=2.9)


def compare(targets: list[Target], plan: Plan) -> tuple[Comparison, str]:
    """The comparison, and which store it ran on."""
    end = time.monotonic() + plan.minutes * 60
    with Servers() as running:
        Progress.say("Starting the servers")
        store = running.start_store()
        instances = start(running, store, targets)
        comparison = Comparison(instances, store)
        load = comparison.steps() * plan.rounds * plan.seconds
        progress = Progress(load + len(instances) * PRIMING_WEIGHT)
        comparison.prime(progress)
        for _ in range(plan.rounds):
            begun = time.monotonic()
            comparison.run_round(plan.seconds, progress)
            if 2 * time.monotonic() - begun > end:
                break
        Progress.end()
        return comparison, store.version


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="within 3 minutes; writes nothing")
    parser.add_argument("--write", action="store_true", help="writes the page after all")
    names = [target.slug for target in TARGETS]
    parser.add_argument("--only", nargs="+", choices=names, metavar="NAME", help=", ".join(names))
    arguments = parser.parse_args()
    own_venv.enter()
    wrk.check()
    chosen = [
        t for t in TARGETS if not arguments.only or t.slug in arguments.only or t is REFERENCE
    ]
    plan = QUICK if arguments.quick else FULL
    comparison, store = compare(chosen, plan)
    print(peers_page.plain(comparison))
    if arguments.write or not (arguments.quick or arguments.only):
        peers_page.write(comparison, plan.seconds, store)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        Progress.end()
        sys.exit(130)
