"""Charts, drawn as SVG and HTML that needs no script and no inline style.

Colours, and which of the two sizes is shown, are up to classes: static/hello_project/console.css.
Lengths are whole hundredths of a unit of the viewBox, so that what is stacked sums up exactly.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from html import escape
from itertools import accumulate
from typing import Final

MINUTE: Final = timedelta(minutes=1)
HOUR: Final = timedelta(hours=1)
DAY: Final = timedelta(days=1)
EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_BETWEEN_LABELS: Final = (
    *(count * MINUTE for count in (5, 10, 15, 20, 30)),
    *(count * HOUR for count in (1, 2, 3, 4, 6, 12)),
    *(count * DAY for count in (1, 2, 5, 10, 20, 50, 100, 200, 500)),
)
_UNITS: Final = (("k", 1000), ("M", 10**6), ("G", 10**9), ("T", 10**12))
_MOST_WITH_WORDS: Final = 100
"""With more bars than this, none says what it is when pointed at: the table does."""


@dataclass(frozen=True, slots=True)
class Series:
    """What is counted. `name` ends the CSS class that gives it its colour: letters and hyphens."""

    name: str
    label: str


@dataclass(frozen=True, slots=True)
class Chart:
    """Bars, one a period and oldest first, each stacked from the first series at its foot.

    `id` is unique in the page. `counts` has a row a period, in it a number a series.
    """

    id: str
    title: str
    series: Sequence[Series]
    moments: Sequence[datetime]
    """When each period begins, in UTC."""
    period: timedelta
    counts: Sequence[Sequence[int]]
    noun: str = "requests"

    @property
    def totals(self) -> list[int]:
        """By series."""
        return [sum(column) for column in zip(*self.counts, strict=True)] or [0] * len(self.series)

    @property
    def total(self) -> int:
        return sum(self.totals)


@dataclass(frozen=True, slots=True)
class Size:
    """Of the viewBox, and what fits into it."""

    name: str
    width: int
    height: int
    labels: int
    """At most so many along the time axis."""
    left: int = 46
    top: int = 14
    bottom: int = 24
    right: int = 6


WIDE: Final = Size("wide", 800, 230, labels=9)
NARROW: Final = Size("narrow", 340, 200, labels=4)
SMALL: Final = Size("small", 250, 160, labels=3, left=42)
"""Three of them beside each other are as wide as a page."""


THINNEST: Final = 150
"""Of a bar, in hundredths of a unit: what a screen does not round away."""


def count_text(count: int) -> str:
    """Such as 1,234, 12.3 k and 10.0 M."""
    if count < 10_000:
        return f"{count:,}"
    unit, size = next((unit for unit in _UNITS if round(count / unit[1], 1) < 1000), _UNITS[-1])
    return f"{count / size:,.1f} {unit}"


def axis(highest: int, most: int = 5) -> list[int]:
    """Round numbers from 0 up to the first that is not below `highest`; at most `most` of them
    above 0."""
    step, power = 1, 1
    while step * most < highest:
        step, power = _next_step(step, power)
    return [step * line for line in range(-(-max(highest, 1) // step) + 1)]


def _next_step(step: int, power: int) -> tuple[int, int]:
    """1, 2, 5, 10, 20, 50…"""
    match step // power:
        case 1:
            return 2 * power, power
        case 2:
            return 5 * power, power
    return 10 * power, 10 * power


def figure(chart: Chart, sizes: Sequence[Size] = (WIDE, NARROW)) -> str:
    """The chart with its legend and, to be unfolded, its table."""
    drawings = "".join(svg(chart, size) for size in sizes)
    both = " chart-both" if len(sizes) > 1 else ""
    return (
        f'<figure class="chart{both}" id="{escape(chart.id)}">'
        f"<figcaption>{escape(chart.title)}</figcaption>"
        f"{legend(chart)}{drawings}{table(chart)}</figure>"
    )


def legend(chart: Chart) -> str:
    """In the order in which the series are stacked, with the total of each."""
    entries = "".join(
        f'<li class="{"chart-some" if total else "chart-none"}">'
        f'<span class="chart-swatch outcome-{series.name}"></span>'
        f"<span>{escape(series.label)}</span> <strong>{count_text(total)}</strong></li>"
        for series, total in zip(chart.series, chart.totals, strict=True)
    )
    noun, total = escape(chart.noun.capitalize()), count_text(chart.total)
    return (
        f'<ul class="chart-legend"><li class="chart-total"><span>{noun}</span>'
        f" <strong>{total}</strong></li>{entries}</ul>"
    )


def table(chart: Chart) -> str:
    """Newest first. A period without requests has no row."""
    name = escape(chart.id)
    rows = "".join(
        f'<tr><th scope="row">{_when(moment, chart.period)}</th>'
        + "".join(f"<td>{count:,}</td>" for count in counts)
        + f"<td>{sum(counts):,}</td></tr>"
        for moment, counts in zip(reversed(chart.moments), reversed(chart.counts), strict=True)
        if any(counts)
    )
    heads = "".join(f'<th scope="col">{escape(series.label)}</th>' for series in chart.series)
    body = (
        f'<div class="chart-table" id="{name}-table" role="region" tabindex="0"'
        f' aria-label="{escape(chart.title)}, as a table"><table><thead><tr>'
        f'<th scope="col">UTC</th>{heads}<th scope="col">All</th></tr></thead>'
        f"<tbody>{rows}</tbody></table></div>"
        if rows
        else f"<p>No {escape(chart.noun)}.</p>"
    )
    return (
        f'<details id="{name}-details"><summary id="{name}-summary">As a table'
        f'<span class="visually-hidden">: {escape(chart.title)}</span></summary>{body}</details>'
    )


def svg(chart: Chart, size: Size) -> str:
    name = f"{escape(chart.id)}-{size.name}"
    lines = axis(max(map(sum, chart.counts), default=0))
    plot = _Plot(size, len(chart.counts), lines[-1])
    drawn = _nothing(chart, plot)
    if chart.total:
        drawn = _bars(chart.series, chart.counts, plot) + _words(chart, plot)
    return (
        f'<svg class="chart-{size.name}" viewBox="0 0 {size.width} {size.height}" role="img"'
        f' aria-labelledby="{name}-title {name}-desc" xmlns="http://www.w3.org/2000/svg">'
        f'<title id="{name}-title">{escape(chart.title)}</title>'
        f'<desc id="{name}-desc">{escape(description(chart))}</desc>'
        f"{_gridlines(lines if chart.total else [0], plot)}{_time_axis(chart, plot)}{drawn}</svg>"
    )


def description(chart: Chart) -> str:
    """The chart in a few sentences, for who cannot see it."""
    if not chart.total:
        return f"No {chart.noun}."
    sums = [sum(counts) for counts in chart.counts]
    highest = max(sums)
    moment = _when(chart.moments[sums.index(highest)], chart.period)
    parts = ", ".join(
        f"{series.label.lower()} {total:,}"
        for series, total in zip(chart.series, chart.totals, strict=True)
        if total
    )
    one = f"{chart.total:,} {chart.noun if chart.total != 1 else chart.noun.removesuffix('s')}"
    return f"{one}: {parts}. Most at {moment} UTC: {highest:,}."


class _Plot:
    """Where bars and lines are, in hundredths of a unit."""

    def __init__(self, size: Size, bars: int, top: int) -> None:
        self.size = size
        self.left, self.right = 100 * size.left, 100 * (size.width - size.right)
        self.ceiling, self.floor = 100 * size.top, 100 * (size.height - size.bottom)
        self._bars, self._top = bars, top

    def x(self, bar: int) -> int:
        return self.left + (self.right - self.left) * bar // self._bars

    def y(self, count: int) -> int:
        return self.floor - (self.floor - self.ceiling) * count // self._top

    def span(self, bar: int) -> tuple[int, int]:
        """From where to where a bar is drawn. Thin ones touch; the thinnest overlap, to be seen."""
        left, right = self.x(bar), self.x(bar + 1)
        gap = (right - left) // 5 if right - left >= 400 else 0
        if right - left < THINNEST:
            left = min(left, self.right - THINNEST)
            right = left + THINNEST
        return left + gap // 2, right - (gap - gap // 2)


def _n(hundredths: int) -> str:
    """Such as 12, 12.5 and 12.05."""
    whole, rest = divmod(hundredths, 100)
    return f"{whole}.{rest:02}".rstrip("0").rstrip(".") if rest else str(whole)


def _bars(series: Sequence[Series], counts: Sequence[Sequence[int]], plot: _Plot) -> str:
    """A path a series, with a rectangle for each of its bars."""
    paths: list[list[str]] = [[] for _ in series]
    for bar, row in enumerate(counts):
        left, right = plot.span(bar)
        edges = [plot.y(count) for count in accumulate(row, initial=0)]
        for path, foot, head in zip(paths, edges, edges[1:], strict=False):
            if head < foot:
                path.append(
                    f"M{_n(left)} {_n(head)}h{_n(right - left)}v{_n(foot - head)}H{_n(left)}z"
                )
    drawn = "".join(
        f'<path class="outcome-{one.name}" d="{"".join(path)}"/>'
        for one, path in zip(series, paths, strict=True)
        if path
    )
    return f'<g class="chart-bars" shape-rendering="crispEdges">{drawn}</g>'


def _words(chart: Chart, plot: _Plot) -> str:
    """What each bar is, shown when it is pointed at."""
    if len(chart.counts) > _MOST_WITH_WORDS:
        return ""
    height = _n(plot.floor - plot.ceiling)
    return "".join(
        f'<rect x="{_n(plot.x(bar))}" y="{_n(plot.ceiling)}"'
        f' width="{_n(plot.x(bar + 1) - plot.x(bar))}" height="{height}" fill="none"'
        f' pointer-events="all"><title>{escape(_in_words(chart, bar))}</title></rect>'
        for bar, counts in enumerate(chart.counts)
        if any(counts)
    )


def _in_words(chart: Chart, bar: int) -> str:
    counts = chart.counts[bar]
    parts = [
        f"{series.label}: {count:,}"
        for series, count in zip(chart.series, counts, strict=True)
        if count
    ]
    return "\n".join([f"{_when(chart.moments[bar], chart.period)} UTC", *parts])


def _nothing(chart: Chart, plot: _Plot) -> str:
    x, y = (plot.left + plot.right) // 2, (plot.ceiling + plot.floor) // 2
    return (
        f'<text class="chart-nothing" x="{_n(x)}" y="{_n(y)}" text-anchor="middle">'
        f"No {escape(chart.noun)}</text>"
    )


def _gridlines(lines: Sequence[int], plot: _Plot) -> str:
    return "".join(
        f'<path class="chart-{"line" if count else "base"}"'
        f' d="M{_n(plot.left)} {_n(plot.y(count))}H{_n(plot.right)}"/>'
        f'<text class="chart-label" x="{plot.size.left - 6}" y="{_n(plot.y(count) + 400)}"'
        f' text-anchor="end">{_short(count)}</text>'
        for count in lines
    )


def _short(count: int) -> str:
    """A round number as briefly as it goes: 500, 5 k, 2.5 M."""
    unit, size = next(((unit, size) for unit, size in reversed(_UNITS) if count >= size), ("", 1))
    return f"{count / size:g} {unit}".rstrip()


def _time_axis(chart: Chart, plot: _Plot) -> str:
    if not chart.moments:
        return ""
    covered = chart.period * len(chart.moments)
    step = next(
        (
            step
            for step in _BETWEEN_LABELS
            if step >= chart.period and covered / step <= plot.size.labels
        ),
        _BETWEEN_LABELS[-1],
    )
    labels = []
    for bar, moment in enumerate(chart.moments):
        if (moment - EPOCH) % step:
            continue
        # A day's bar is the day: its label belongs below it, not at its beginning.
        x = (plot.x(bar) + plot.x(bar + 1)) // 2 if chart.period >= DAY else plot.x(bar)
        anchor = "end" if x > plot.right - 1600 else "middle"
        text = f"{moment:%H:%M}" if step < DAY else f"{moment.day} {moment:%b}"
        labels.append(
            f'<path class="chart-tick" d="M{_n(x)} {_n(plot.floor)}v4"/>'
            f'<text class="chart-label" x="{_n(x)}" y="{_n(plot.floor + 1700)}"'
            f' text-anchor="{anchor}">{text}</text>'
        )
    return "".join(labels)


def _when(moment: datetime, period: timedelta) -> str:
    day = f"{moment.day} {moment:%b}"
    return day if period >= DAY else f"{day} {moment:%H:%M}"


def sparkline(text: str, series: Sequence[Series], counts: Sequence[Sequence[int]]) -> str:
    """A small chart without axes, and what it shows in words. `counts` as of a Chart."""
    size = Size("spark", 96, 22, labels=0, left=0, top=1, bottom=1, right=0)
    highest = max(map(sum, counts), default=0)
    plot = _Plot(size, max(len(counts), 1), max(highest, 1))
    drawn = _bars(series, counts, plot)
    return (
        f'<svg class="chart-spark" viewBox="0 0 {size.width} {size.height}" width="{size.width}"'
        f' height="{size.height}" role="img" xmlns="http://www.w3.org/2000/svg">'
        f"<title>{escape(text)}</title>"
        f'{drawn}<path class="chart-base" d="M0 21.5H{size.width}"/></svg>'
    )


def bar(count: int, most: int) -> str:
    """A number's share of the largest one beside it, for the eye only: the number is written."""
    width = 100 * count // max(most, 1)
    return (
        '<svg class="chart-share" viewBox="0 0 100 8" preserveAspectRatio="none" aria-hidden="true"'
        ' xmlns="http://www.w3.org/2000/svg"><rect class="chart-share-all" width="100" height="8"/>'
        f'<rect class="chart-share-part" width="{max(width, 1) if count else 0}" height="8"/></svg>'
    )
