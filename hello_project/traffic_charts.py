"""Charts of what became of requests, the same wherever the console shows one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Final

from django.utils.safestring import SafeString, mark_safe

from hello_project import charts
from hello_project.charts import Chart, Series
from hello_project.outcomes import REFUSED, Outcome, refused_by
from hello_project.reports import Point

ADMITTED: Final = Series("admitted", "Admitted")
REFUSED_BY_ADDRESS: Final = Series("refused-address", "Refused by address")
REFUSED_BY_KEY: Final = Series("refused-key", "Refused by key")
UNAUTHENTICATED: Final = Series("unauthenticated", "Unauthenticated")
FORBIDDEN: Final = Series("forbidden", "Forbidden")
INVALID: Final = Series("invalid", "Invalid")
ERRORS: Final = Series("error", "Errors")
ALL: Final = (
    ADMITTED,
    REFUSED_BY_ADDRESS,
    REFUSED_BY_KEY,
    UNAUTHENTICATED,
    FORBIDDEN,
    INVALID,
    ERRORS,
)
OF_A_KEY: Final = (ADMITTED, REFUSED_BY_KEY, FORBIDDEN, ERRORS)
IN_A_ROW: Final = (ADMITTED, Series("refused-key", "Refused"), ERRORS)
_SERIES: Final = {
    Outcome.ADMITTED: ADMITTED,
    refused_by("key"): REFUSED_BY_KEY,
    Outcome.UNAUTHENTICATED: UNAUTHENTICATED,
    Outcome.FORBIDDEN: FORBIDDEN,
    Outcome.ERROR: ERRORS,
}


def series_of(outcome: str) -> Series:
    found = _SERIES.get(outcome)
    if found is None:
        # Enquiries have a limit of their own, by the address as well.
        return REFUSED_BY_ADDRESS if outcome.startswith(REFUSED) else INVALID
    return found


def by_series(counts: Mapping[str, int], series: Sequence[Series]) -> list[int]:
    sums = dict.fromkeys(series, 0)
    for outcome, count in counts.items():
        sums[series_of(outcome)] = sums.get(series_of(outcome), 0) + count
    return [sums[one] for one in series]


def chart_of(
    id_: str,
    title: str,
    points: Sequence[Point],
    period: timedelta,
    series: Sequence[Series] = ALL,
) -> Chart:
    moments = [point.at for point in points]
    counts = [by_series(point.counts, series) for point in points]
    return Chart(id_, title, series, moments, period, counts)


def figure(chart: Chart, *, small: bool = False) -> SafeString:
    sizes = [charts.SMALL] if small else [charts.WIDE, charts.NARROW]
    return mark_safe(charts.figure(chart, sizes))  # noqa: S308 - charts escapes


def refusals(counts: Mapping[str, int]) -> int:
    """Of a key: by its limit or from a network that it does not allow."""
    return counts.get(refused_by("key"), 0) + counts.get(Outcome.FORBIDDEN, 0)


def sparkline(points: Sequence[Point]) -> SafeString:
    """Of a key's last 24 hours, for its row in a list."""
    requests = sum(point.total for point in points)
    refused = sum(refusals(point.counts) for point in points)
    rows = [
        (
            point.counts.get(Outcome.ADMITTED, 0),
            refusals(point.counts),
            point.counts.get(Outcome.ERROR, 0),
        )
        for point in points
    ]
    words = f"By hour: {requests:,} requests, {refused:,} of them refused."
    return mark_safe(charts.sparkline(words, IN_A_ROW, rows))  # noqa: S308 - charts escapes
