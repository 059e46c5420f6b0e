"""What a benchmark says: how far it is, on what machine, and into which part of a page."""

from __future__ import annotations

import os
import platform
import sys
import time
from collections.abc import Iterable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Final

_CLEAR: Final = "\r\x1b[K"


class Progress:
    """One line on a terminal that says what is measured and how long the rest will take."""

    def __init__(self, weight: float) -> None:
        """`weight` is that of all steps together, in any unit."""
        self._weight = weight
        self._done = 0.0
        self._started = time.monotonic()

    def step(self, what: str, weight: float = 1) -> None:
        """Call before each step."""
        elapsed = time.monotonic() - self._started
        left = (
            f"{_minutes(elapsed / self._done * (self._weight - self._done))} left"
            if self._done
            else ""
        )
        self.say(f"{self._done / self._weight:4.0%} {left:>10}  {what}")
        self._done += weight

    @staticmethod
    def say(text: str) -> None:
        if sys.stderr.isatty():
            print(f"{_CLEAR}{text[:79]}", end="", file=sys.stderr, flush=True)

    @staticmethod
    def end() -> None:
        Progress.say("")


def _minutes(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02}"


def machine() -> str:
    """The CPU, its cores, the kernel and this Python."""
    python = f"{platform.python_implementation()} {platform.python_version()}"
    kernel = f"{platform.system()} {platform.release().partition('-')[0]}"
    return f"{_cpu_model()}, {_cores()}, {kernel}, {python}"


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
    return platform.machine()


def _cores() -> str:
    count = len(os.sched_getaffinity(0))
    return "1 core" if count == 1 else f"{count} cores"


def versions(packages: Iterable[str]) -> str:
    """The installed versions, such as "Django 5.2.19, limits 5.8.0"."""
    return ", ".join(f"{name} {metadata.version(name)}" for name in packages)


def markdown_table(
    head: Sequence[str], rows: Iterable[Sequence[str]], *, rule: str = "---:"
) -> str:
    """The first column to the left, the others by `rule`, to the right."""
    rules = ["---", *[rule] * (len(head) - 1)]
    return "\n".join(f"| {' | '.join(row)} |" for row in [head, rules, *rows])


def plain_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if column else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def replace_part(page: Path, name: str, text: str) -> None:
    """Put `text` between `<!-- name -->` and `<!-- /name -->`; nothing else changes.

    A page without that part gets it at its end.
    """
    start, end = f"<!-- {name} -->", f"<!-- /{name} -->"
    before, found, rest = page.read_text().partition(start)
    _, closed, after = rest.partition(end)
    if found and not closed:
        sys.exit(f"{page.name} has {start} but no {end}: nothing was written.")
    if not found:
        before, after = f"{before.rstrip()}\n\n", "\n"
    page.write_text(f"{before}{start}\n{text.strip()}\n{end}{after}")
