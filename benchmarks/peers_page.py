"""What the comparison of peers prints, and what it writes into docs/."""

from __future__ import annotations

import statistics
import subprocess
from collections.abc import Callable, Sequence
from typing import Final

import report
from bar_chart import Chart, Row
from comparison import CASES, CLIENTS, Cell, Comparison
from servers import PROJECT
from targets import ADMITTED, REFERENCE, REFUSED, TARGETS, Target

PAGE: Final = PROJECT / "docs" / "performance.md"
CHART: Final = PROJECT / "docs" / "performance.svg"
PACKAGES: Final = [
    *("Django", "djangorestframework", "django-redis", "redis", "hiredis", "gunicorn"),
    *("djangorestframework-api-key", "django-ratelimit", "throttled-py", "limits"),
    *("Flask", "Flask-Limiter", "fastapi", "slowapi", "uvicorn", "uvloop", "httptools", "granian"),
]

Figure = Callable[[Sequence[Cell]], str]


def plain(comparison: Comparison) -> str:
    tables = [
        f"{title}\n{report.plain_table(*_table(comparison, figure))}"
        for title, figure in FIGURES.items()
    ]
    return "\n\n".join([*tables, steadiness(comparison), *comparison.deviations])


def write(comparison: Comparison, seconds: int, store: str) -> None:
    """The chart, and the page's part between its marks."""
    CHART.write_text(_chart(comparison).svg())
    tables = [
        f"{title}:\n\n{report.markdown_table(*_table(comparison, figure))}"
        for title, figure in FIGURES.items()
    ]
    parts = [
        f"![Requests a second, to a DRF view alone]({CHART.name})",
        *tables,
        _what_each_does(comparison),
        f"{_rounds(comparison)} of {seconds} s in each case on {report.machine()}, {store},"
        f" {_wrk_version()}; {report.versions(PACKAGES)}.",
        steadiness(comparison),
        *(f"Otherwise than expected: {sentence}." for sentence in comparison.deviations),
    ]
    report.replace_part(PAGE, "peers", "\n\n".join(parts))


def _rounds(comparison: Comparison) -> str:
    count = len(comparison.cells[CASES[0], REFERENCE])
    return "1 round" if count == 1 else f"{count} rounds"


def steadiness(comparison: Comparison) -> str:
    """How far a ratio moves from round to round, and how much else the machine did."""
    spreads = []
    for (_, target), cells in comparison.cells.items():
        if target is not REFERENCE:
            ratios = [cell.ratio for cell in cells]
            spreads.append((max(ratios) - min(ratios)) / statistics.median(ratios))
    foreign = [cell.foreign_share for cells in comparison.cells.values() for cell in cells]
    others = (
        f"Other processes of the machine took {statistics.median(foreign):.1%} of its processor"
        f" time (the median over the measurements; {max(foreign):.0%} at most)."
    )
    if max(spreads, default=0) == 0:  # One round, or the reference alone.
        return others
    return (
        "From its lowest round to its highest, a ratio spans"
        f" {statistics.median(spreads):.0%} of its median"
        f" (the median over the ratios; {max(spreads):.0%} for the one that moves most). {others}"
    )


def _median(cells: Sequence[Cell], value: Callable[[Cell], float]) -> float:
    return statistics.median(value(cell) for cell in cells)


def _ratio(cells: Sequence[Cell]) -> str:
    rate = _median(cells, lambda cell: cell.load.rate)
    return f"{_median(cells, lambda cell: cell.ratio):.2f} ({rate:,.0f})"


def _latency(cells: Sequence[Cell]) -> str:
    p50 = _median(cells, lambda cell: cell.load.p50_ms)
    p99 = _median(cells, lambda cell: cell.load.p99_ms)
    return f"{p50:.1f} / {p99:.1f}"


def _cpu(cells: Sequence[Cell]) -> str:
    server = _median(cells, lambda cell: cell.server_us)
    store = _median(cells, lambda cell: cell.store_us)
    return f"{server:.0f} + {store:.0f}"


FIGURES: Final[dict[str, Figure]] = {
    "Requests a second, to DRF alone (and as they are)": _ratio,
    "Latency in milliseconds, half of the answers and 99 in 100 within": _latency,
    "Processor time a request in microseconds, of the server + of the store": _cpu,
}


def _measured(comparison: Comparison) -> list[Target]:
    return [t for t in TARGETS if any(target is t for _, target in comparison.cells)]


def _table(comparison: Comparison, figure: Figure) -> tuple[list[str], list[list[str]]]:
    rows = []
    for target in _measured(comparison):
        cells = [comparison.cells.get((case, target), []) for case in CASES]
        rows.append([target.name, *(figure(one) if one else "" for one in cells)])
    return ["", *(case.name for case in CASES)], rows


def _what_each_does(comparison: Comparison) -> str:
    head = ["", "server", "hits are counted in", "a key is known by"]
    rows = [[t.name, t.server, t.counting, t.key_check] for t in _measured(comparison)]
    return f"What each of them does:\n\n{report.markdown_table(head, rows, rule='---')}"


def _chart(comparison: Comparison) -> Chart:
    def value(clients: int, rate: str, target: Target) -> float | None:
        case = next(case for case in CASES if (case.clients, case.rate) == (clients, rate))
        cells = comparison.cells.get((case, target))
        is_shown = cells and (rate == ADMITTED or target.is_limited)
        return _median(cells, lambda cell: cell.ratio) if cells and is_shown else None

    counts = (1, CLIENTS)
    return Chart(
        title="Requests a second, to a DRF view without keys and limit",
        reference="DRF alone",
        panels=["1 client", f"{CLIENTS:,} clients"],
        series=["admitted", "refused"],
        rows=[
            Row(
                target.name,
                [[value(count, rate, target) for rate in (ADMITTED, REFUSED)] for count in counts],
                target.is_ours,
            )
            for target in _measured(comparison)
        ],
    )


def _wrk_version() -> str:
    output = subprocess.run(["wrk", "-v"], check=False, capture_output=True, text=True).stdout
    return f"wrk {output.split()[1].rpartition('/')[2].partition('-')[0]}"
