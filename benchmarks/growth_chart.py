"""A chart of lines over sizes, as SVG."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import svg

COLOURS: Final = ("#2f6fab", "#d98c2b", "#6b8f47")
DASHES: Final = ("", "7 3", "2 3")
_LEFT, _PANEL, _GAP = 52, 236, 30
_TOP, _HEIGHT, _BELOW = 138, 210, 44
_BAND: Final = (0.9, 1.1)
_BAND_COLOUR: Final = "#e4ecf4"
MOST_ON_A_LINE: Final = 4
_LEAST_SHOWN: Final = 1.5


@dataclass(frozen=True)
class Panel:
    """`values` is a line for each series, of a ratio for each size; an empty line is left out."""

    title: str
    sizes: Sequence[str]
    values: Sequence[Sequence[float]]


@dataclass(frozen=True)
class Chart:
    title: str
    series: Sequence[str]
    panels: Sequence[Panel]

    def svg(self) -> str:
        width = _LEFT + len(self.panels) * (_PANEL + _GAP) - _GAP + svg.MARGIN
        height = _TOP + _HEIGHT + _BELOW
        content = [
            *self._legend(),
            *(line for number in range(len(self.panels)) for line in self._panel(number)),
        ]
        return svg.page(self.title, width, height, content)

    def _legend(self) -> Iterator[str]:
        for number, name in enumerate(self.series):
            y = 43 + number * 17
            yield _path([(svg.MARGIN, y), (svg.MARGIN + 30, y)], number)
            yield svg.text(svg.MARGIN + 38, y + 4, name)
        y = 43 + len(self.series) * 17
        yield f"<rect x='{svg.MARGIN}' y='{y - 6}' width='30' height='12' fill='{_BAND_COLOUR}'/>"
        yield svg.text(svg.MARGIN + 38, y + 4, "within 10 %")

    def _panel(self, number: int) -> Iterator[str]:
        panel, left = self.panels[number], _LEFT + number * (_PANEL + _GAP)
        yield svg.text(left, _TOP - 14, panel.title, "font-weight='bold'")
        yield from self._ground(left, with_labels=not number)
        step = _PANEL / len(panel.sizes)
        places = [left + step * (place + 0.5) for place in range(len(panel.sizes))]
        for place, (x, size) in enumerate(zip(places, panel.sizes, strict=True)):
            # Many do not fit beside each other, so every other one is a line lower.
            lower = place % 2 * 15 if len(places) > MOST_ON_A_LINE else 0
            style = "text-anchor='middle' font-size='11'"
            yield svg.text(x, _TOP + _HEIGHT + 18 + lower, size, style)
        for series, values in enumerate(panel.values):
            points = [(x, self._y(v)) for x, v in zip(places, values, strict=False)]
            if points:
                yield _path(points, series)
            for x, y in points:
                yield f"<circle cx='{x:.1f}' cy='{y:.1f}' r='3' fill='{COLOURS[series]}'/>"

    def _ground(self, left: float, *, with_labels: bool) -> Iterator[str]:
        """The band within 10 %, the line at 1, and the axis."""
        high, low = self._y(_BAND[1]), self._y(_BAND[0])
        size = f"width='{_PANEL}' height='{low - high:.1f}'"
        yield f"<rect x='{left}' y='{high:.1f}' {size} fill='{_BAND_COLOUR}'/>"
        for tick in self._ticks():
            y = self._y(tick)
            stroke = "#999" if tick in (0, 1) else "#e2e2e2"
            yield f"<path d='M{left} {y:.1f} h{_PANEL}' stroke='{stroke}'/>"
            if with_labels:
                yield svg.text(left - 8, y + 4, f"{tick:g}", "text-anchor='end' font-size='11'")

    def _ticks(self) -> list[float]:
        step = 0.5 if self._highest() <= 3 else 1.0
        return [n * step for n in range(int(self._highest() / step) + 1)]

    def _y(self, value: float) -> float:
        return _TOP + _HEIGHT * (1 - value / self._highest())

    def _highest(self) -> float:
        values = [v for panel in self.panels for line in panel.values for v in line]
        return max([_LEAST_SHOWN, *values]) * 1.04


def _path(points: Sequence[tuple[float, float]], series: int) -> str:
    steps = " L".join(f"{x:.1f} {y:.1f}" for x, y in points)
    dash = f" stroke-dasharray='{DASHES[series]}'" if DASHES[series] else ""
    return f"<path d='M{steps}' fill='none' stroke='{COLOURS[series]}' stroke-width='2'{dash}/>"
