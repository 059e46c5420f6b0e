"""What the charts have in common, as plain SVG, to be read on a light page and on a dark one."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from typing import Final

MARGIN: Final = 16
_FONT: Final = "font-family='DejaVu Sans, Verdana, Arial, sans-serif'"


def page(title: str, width: int, height: int, content: Iterable[str]) -> str:
    """The whole file: the title and, on a white ground, the content."""
    lines = [
        f"<svg xmlns='http://www.w3.org/2000/svg' width='{width}' height='{height}'"
        f" viewBox='0 0 {width} {height}' {_FONT} font-size='12' fill='#222'>",
        f"<title>{escape(title)}</title>",
        "<rect width='100%' height='100%' rx='6' fill='#fff'/>",
        text(MARGIN, 26, title, "font-size='15' font-weight='bold'"),
        *content,
        "</svg>",
    ]
    return "\n".join(lines) + "\n"


def text(x: float, y: float, words: str, style: str = "") -> str:
    return f"<text x='{x:.1f}' y='{y:.1f}' {style}>{escape(words)}</text>"
