"""A chart of horizontal bars, as SVG."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import svg

COLOURS: Final = ("#2f6fab", "#d98c2b")
_LABELS, _PANEL, _GAP = 286, 270, 34
_BAR, _ROW, _TOP = 11, 34, 84


@dataclass(frozen=True)
class Row:
    """`values` is one tuple for each panel, of a value for each series; None draws no bar."""

    label: str
    values: Sequence[Sequence[float | None]]
    is_ours: bool = False


@dataclass(frozen=True)
class Chart:
    title: str
    reference: str
    """What the line at 1 stands for."""
    panels: Sequence[str]
    series: Sequence[str]
    rows: Sequence[Row]

    def svg(self) -> str:
        width = _LABELS + len(self.panels) * (_PANEL + _GAP) + svg.MARGIN
        height = _TOP + len(self.rows) * _ROW + 30
        content = [
            *self._legend(),
            *self._labels(width),
            *(line for number in range(len(self.panels)) for line in self._panel(number)),
        ]
        return svg.page(self.title, width, height, content)

    def _legend(self) -> Iterator[str]:
        for number, name in enumerate(self.series):
            y = 38 + number * 18
            yield f"<rect x='{svg.MARGIN}' y='{y}' width='{_BAR}' height='{_BAR}' {_fill(number)}/>"
            yield svg.text(svg.MARGIN + 18, y + 10, name)

    def _labels(self, width: int) -> Iterator[str]:
        for number, row in enumerate(self.rows):
            y = _TOP + number * _ROW
            if row.is_ours:
                yield f"<rect x='0' y='{y}' width='{width}' height='{_ROW}' fill='{_ground(row)}'/>"
            weight = "font-weight='bold'" if row.is_ours else ""
            yield svg.text(_LABELS - 10, y + 21, row.label, f"text-anchor='end' {weight}")

    def _panel(self, number: int) -> Iterator[str]:
        left = _LABELS + number * (_PANEL + _GAP)
        unit = _PANEL / self._highest()
        bottom = _TOP + len(self.rows) * _ROW
        yield svg.text(left, _TOP - 30, self.panels[number], "font-weight='bold'")
        yield svg.text(left + unit, _TOP - 8, self.reference, "text-anchor='middle' fill='#666'")
        yield _line(left, bottom, "stroke='#999'")
        for index, row in enumerate(self.rows):
            for series, value, y in _placed(index, row.values[number]):
                size = f"width='{value * unit:.1f}' height='{_BAR}'"
                yield f"<rect x='{left}' y='{y:.1f}' {size} {_fill(series)}/>"
        yield _line(left + unit, bottom, "stroke='#666' stroke-dasharray='3 3'")
        for index, row in enumerate(self.rows):
            # The outline keeps the line from running through a figure.
            style = f"font-size='11' paint-order='stroke' stroke-width='3' stroke='{_ground(row)}'"
            for _, value, y in _placed(index, row.values[number]):
                yield svg.text(left + value * unit + 5, y + 10, f"{value:.2f}", style)

    def _highest(self) -> float:
        """What the panel's width stands for: the longest bar, and room for its figure."""
        values = [value for row in self.rows for panel in row.values for value in panel if value]
        return max([1.0, *values]) * 1.14


def _placed(index: int, values: Sequence[float | None]) -> Iterator[tuple[int, float, float]]:
    """The series, the value and the top of each bar of a row."""
    shown = [(series, value) for series, value in enumerate(values) if value is not None]
    top = _TOP + index * _ROW + (_ROW - len(shown) * (_BAR + 2)) / 2 + 1
    for place, (series, value) in enumerate(shown):
        yield series, value, top + place * (_BAR + 2)


def _ground(row: Row) -> str:
    return "#eef3f8" if row.is_ours else "#fff"


def _fill(series: int) -> str:
    return f"fill='{COLOURS[series]}'"


def _line(x: float, bottom: float, style: str) -> str:
    return f"<path d='M{x:.1f} {_TOP} V{bottom:.1f}' {style}/>"
