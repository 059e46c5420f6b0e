"""What the growth benchmark prints, and what it writes into docs/."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from typing import Final

import growth_requests
import report
from comparison import Cell
from growth_chart import Chart, Panel
from growth_limits import HITS, LIMITS
from growth_requests import Cost
from growth_run import Measured
from growth_sites import Case
from peers_page import PAGE
from servers import PROJECT

CHART: Final = PROJECT / "docs" / "growth.svg"
PACKAGES: Final = ["Django", "djangorestframework", "redis", "hiredis", "gunicorn"]
FLAT: Final = 1.1
MOST_BYTES: Final = 140
MOST_RESIDENT_MB: Final = 90

RATIOS: Final = {"time": growth_requests.time_us, "processor time": growth_requests.cpu_us}

Table = tuple[Sequence[str], Sequence[Sequence[str]]]


def plain(measured: Measured) -> str:
    tables = [f"{title}\n{report.plain_table(*table)}" for title, table in _tables(measured)]
    return "\n\n".join([*tables, _steadiness(measured), *measured.growth.deviations])


def write(measured: Measured) -> None:
    """The chart, and the page's part between its marks."""
    CHART.write_text(chart(measured).svg())
    tables = [f"{title}:\n\n{report.markdown_table(*table)}" for title, table in _tables(measured)]
    parts = [
        f"![Time and memory, to those of the smallest case]({CHART.name})",
        *tables,
        f"{_rounds(measured)} of {measured.plan.seconds} s in each case on {report.machine()},"
        f" {measured.usual_store}; {report.versions(PACKAGES)}.",
        _steadiness(measured),
        *(f"Otherwise than expected: {sentence}." for sentence in measured.growth.deviations),
    ]
    report.replace_part(PAGE, "growth", "\n\n".join(parts))


def chart(measured: Measured) -> Chart:
    sizes = measured.growth.sizes
    clients = [f"{number:,}" for number in sizes.clients]
    keys = [f"{number:,}" for number in sizes.keys]
    store = list(measured.limits.values())[-1]  # Redis, where there is one.
    calls = [store.call(rate, HITS[0]) for rate in LIMITS]
    return Chart(
        title="Time and memory, to those of the smallest case",
        series=[
            "time",
            "processor time, in all; by limit, of the store alone",
            "resident memory of a worker",
        ],
        panels=[
            Panel("a request, by clients", clients, _lines(measured, sizes.by_clients())),
            Panel("a request, by keys", keys, _lines(measured, sizes.by_keys())),
            Panel(
                "a call of the limiter, by limit",
                [str(rate) for rate in LIMITS],
                [[call.client for call in calls], [call.server for call in calls], []],
            ),
        ],
    )


def _lines(measured: Measured, cases: Sequence[Case]) -> list[list[float]]:
    costs = [measured.growth.cost(case, cases[0]) for case in cases]
    return [
        [cost.time for cost in costs],
        [cost.cpu_in_all or cost.cpu for cost in costs],
        [cost.resident for cost in costs],
    ]


def _tables(measured: Measured) -> list[tuple[str, Table]]:
    sizes, growth = measured.growth.sizes, measured.growth
    first, last = sizes.cases()[0], sizes.cases()[-1]
    many = measured.plan.clients_in_memory
    largest = f"{growth_requests.name(last)}, to {growth_requests.name(first)}"
    return [
        ("A request, by clients", _requests(measured, sizes.by_clients())),
        ("A request, by keys", _requests(measured, sizes.by_keys())),
        (f"A request, {largest}", _verdict(growth.cost(last, first))),
        ("A call of the limiter, in microseconds", _calls(measured)),
        (
            f"Bytes of the store a client, of {many:,} clients",
            _bytes(measured),
        ),
    ]


def _requests(measured: Measured, cases: Sequence[Case]) -> Table:
    head = [
        *("", "requests/s", "half within, ms", "99 in 100, ms", "server + store, µs"),
        *("server in all, µs", "a worker, MB", "time", "processor time", "in all"),
    ]
    rows = []
    for case in cases:
        cost = measured.growth.cost(case, cases[0])
        rows.append(
            [
                growth_requests.name(case),
                f"{cost.rate:,.0f}",
                f"{cost.p50_ms:.1f}",
                f"{cost.p99_ms:.1f}",
                f"{cost.server_us:.0f} + {cost.store_us:.0f}",
                _or_nothing(cost.server_in_all_us, ".0f"),
                f"{cost.resident_mb:.1f}",
                f"{cost.time:.2f}",
                f"{cost.cpu:.2f}",
                _or_nothing(cost.cpu_in_all, ".2f"),
            ]
        )
    return head, rows


def _verdict(cost: Cost) -> Table:
    rows = [
        ["time", f"{cost.time:.2f}", f"{FLAT:.2f}", _is(cost.time <= FLAT)],
        ["processor time", f"{cost.cpu:.2f}", f"{FLAT:.2f}", _is(cost.cpu <= FLAT)],
        [
            "resident memory of a worker, MB",
            f"{cost.resident_mb:.1f}",
            f"{MOST_RESIDENT_MB}",
            _is(cost.resident_mb <= MOST_RESIDENT_MB),
        ],
    ]
    if cost.cpu_in_all is not None:
        kept = _is(cost.cpu_in_all <= FLAT)
        rows.insert(2, ["processor time in all", f"{cost.cpu_in_all:.2f}", f"{FLAT:.2f}", kept])
    return ["", "measured", "at most", "kept"], rows


def _calls(measured: Measured) -> Table:
    stores = measured.limits.values()
    head = ["", "value, bytes"]
    for limits in stores:
        head += [f"{limits.version}: the store", "to 3/10s", "the call", "to 3/10s"]
    rows = []
    for hit in HITS:
        for rate in LIMITS:
            row = [f"{rate}, {hit}", str(next(iter(stores)).values[rate])]
            for limits in stores:
                call = limits.call(rate, hit)
                row += [f"{call.server_us:.1f}", f"{call.server:.2f}"]
                row += [f"{call.client_us:.0f}", f"{call.client:.2f}"]
            rows.append(row)
    return head, rows


def _bytes(measured: Measured) -> Table:
    head = ["", "value", "with all", "at most", f"at most {MOST_BYTES}"]
    rows = []
    for one in measured.memory:
        is_small = one.window.startswith(str(LIMITS[0]))
        rows.append(
            [
                f"{one.store}, {one.window}",
                str(one.value),
                f"{one.at_all:.0f}",
                f"{one.at_most:.0f}",
                _is(one.at_all <= MOST_BYTES) if is_small else "",
            ]
        )
    return head, rows


def _or_nothing(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


def _is(kept: bool) -> str:
    return "yes" if kept else "no"


def _rounds(measured: Measured) -> str:
    count = len(next(iter(measured.growth.cells.values())))
    return "1 round" if count == 1 else f"{count} rounds"


def _steadiness(measured: Measured) -> str:
    """How far a ratio moves from round to round, and how much else the machine did."""
    spans = [f"{_span(measured, value):.2f} of {name}" for name, value in RATIOS.items()]
    foreign = [cell.foreign_share for cells in measured.growth.cells.values() for cell in cells]
    return (
        f"Half of the rounds' ratios lie within {' and '.join(spans)} (the median over the cases)."
        f" Other processes of the machine took {statistics.median(foreign):.1%} of its processor"
        f" time (the median over the measurements; {max(foreign):.0%} at most)."
    )


def _span(measured: Measured, value: Callable[[Cell], float]) -> float:
    """Between the quartiles."""
    first, *others = measured.growth.sizes.cases()
    spans = []
    for case in others:
        ratios = measured.growth.ratios(case, first, value)
        low, _, high = statistics.quantiles(ratios) if len(ratios) > 1 else ratios * 3
        spans.append(high - low)
    return statistics.median(spans)
