from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hello_project import charts, traffic_charts
from hello_project.charts import NARROW, SMALL, WIDE, Chart, Series, Size

SVG = "{http://www.w3.org/2000/svg}"
NOON = datetime(2026, 11, 25, 12, tzinfo=UTC)
TWO = (Series("admitted", "Admitted"), Series("error", "Errors"))
CSS = Path(charts.__file__).parent / "static" / "hello_project" / "console.css"

counts = st.one_of(st.just(0), st.just(1), st.integers(0, 10**7), st.just(10**7))
labels = st.text(st.characters(codec="utf-8", exclude_categories=("Cs", "Cc")), max_size=20)


def chart_of(
    rows: Sequence[Sequence[int]],
    series: Sequence[Series] = TWO,
    period: timedelta = charts.MINUTE,
    title: str = "Requests",
) -> Chart:
    moments = [NOON - period * (len(rows) - 1 - bar) for bar in range(len(rows))]
    return Chart("requests", title, series, moments, period, rows)


@st.composite
def any_chart(draw: Any) -> Chart:
    series = [Series(f"s{number}", draw(labels)) for number in range(draw(st.integers(1, 7)))]
    row = st.lists(counts, min_size=len(series), max_size=len(series))
    rows = draw(st.lists(row, min_size=1, max_size=80))
    period = draw(st.sampled_from([charts.MINUTE, charts.HOUR, charts.DAY]))
    return chart_of(rows, series, period, draw(labels))


def rectangles(svg: str) -> dict[str, list[tuple[float, float, float, float]]]:
    """Left, top, width and height of each, by the class of its series."""
    number = r"(-?[\d.]+)"
    pattern = re.compile(f"M{number} {number}h{number}v{number}H{number}z")
    found = {}
    for path in ElementTree.fromstring(svg).iter(f"{SVG}path"):
        name = path.get("class", "")
        if name.startswith("outcome-"):
            matches = pattern.findall(path.get("d", ""))
            found[name.removeprefix("outcome-")] = [
                (float(x), float(y), float(width), float(height))
                for x, y, width, height, _ in matches
            ]
    return found


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0"),
        (1, "1"),
        (1234, "1,234"),
        (9_999, "9,999"),
        (12_345, "12.3 k"),
        (999_949, "999.9 k"),
        (999_950, "1.0 M"),
        (10**7, "10.0 M"),
        (43_200_000_000, "43.2 G"),
        (10**16, "10,000.0 T"),
    ],
)
def test_a_number_is_written_so_that_it_is_read_at_a_glance(count: int, text: str) -> None:
    assert charts.count_text(count) == text


@given(st.integers(0, 10**15))
def test_an_axis_is_a_few_round_numbers_from_zero_to_no_less_than_the_highest(highest: int) -> None:
    lines = charts.axis(highest)
    step = lines[1] - lines[0]
    assert lines == [step * number for number in range(len(lines))]
    assert str(step).rstrip("0") in ("1", "2", "5")
    assert lines[-2] < max(highest, 1) <= lines[-1]
    assert 2 <= len(lines) <= 6


@given(any_chart())
def test_whatever_the_labels_a_figure_is_well_formed_and_all_of_its_text_is_text(
    chart: Chart,
) -> None:
    figure = charts.figure(chart)
    root = ElementTree.fromstring(figure)
    assert root.findtext("figcaption", "").strip() == chart.title.strip()
    shown = [title.text or "" for title in root.iter(f"{SVG}title")]
    assert [text.strip() for text in shown[:1]] == [chart.title.strip()]
    assert not list(root.iter("script"))


def test_a_hostile_label_stays_text() -> None:
    hostile = '</title><script>alert("1")</script>'
    series = [Series("admitted", hostile)]
    drawn = charts.figure(chart_of([[1]], series, title=hostile))
    drawn += charts.sparkline(hostile, series, [[1]])
    assert "<script" not in drawn
    assert "&lt;script&gt;" in drawn


@given(any_chart(), st.sampled_from([WIDE, NARROW, SMALL]))
def test_bars_are_inside_the_plot_and_as_high_as_what_they_count(chart: Chart, size: Size) -> None:
    found = rectangles(charts.svg(chart, size))
    floor, ceiling = size.height - size.bottom, size.top
    by_bar: dict[float, float] = {}
    for x, y, width, height in (one for all_ in found.values() for one in all_):
        assert size.left <= x
        assert round(x + width, 2) <= size.width - size.right
        assert ceiling <= y
        assert round(y + height, 2) <= floor
        by_bar[x] = by_bar.get(x, 0) + height
    highest = charts.axis(max(map(sum, chart.counts)))[-1]
    totals = [sum(counts) for counts in chart.counts]
    expected = [100 * (floor - ceiling) * total // highest / 100 for total in totals]
    drawn = [round(height, 2) for _, height in sorted(by_bar.items())]
    assert drawn == [height for height in expected if height]


def test_the_first_series_stands_at_the_foot_and_the_next_on_its_head() -> None:
    found = rectangles(charts.svg(chart_of([[3, 1]]), WIDE))
    [(_, admitted_top, _, admitted_height)] = found["admitted"]
    [(_, errors_top, _, errors_height)] = found["error"]
    assert admitted_top + admitted_height == WIDE.height - WIDE.bottom
    assert errors_top + errors_height == admitted_top
    assert admitted_height == 3 * errors_height


@pytest.mark.parametrize("rows", [[], [[0, 0]], [[0, 0]] * 60])
def test_a_chart_of_nothing_says_so(rows: list[list[int]]) -> None:
    chart = chart_of(rows)
    drawn = charts.svg(chart, WIDE)
    assert ">No requests</text>" in drawn
    assert charts.description(chart) == "No requests."
    assert "<td>" not in charts.table(chart)
    assert rectangles(drawn) == {}


def test_the_description_tells_the_total_its_parts_and_the_highest() -> None:
    assert charts.description(chart_of([[1, 0]])) == (
        "1 request: admitted 1. Most at 25 Nov 12:00 UTC: 1."
    )
    assert charts.description(chart_of([[1200, 3], [5, 0]])) == (
        "1,208 requests: admitted 1,205, errors 3. Most at 25 Nov 11:59 UTC: 1,203."
    )


def test_the_table_has_the_newest_first_and_no_row_for_nothing() -> None:
    table = charts.table(chart_of([[1200, 3], [0, 0], [5, 0]]))
    rows = re.findall(r'<tr><th scope="row">(.*?)</th>(.*?)</tr>', table)
    assert rows == [
        ("25 Nov 12:00", "<td>5</td><td>0</td><td>5</td>"),
        ("25 Nov 11:58", "<td>1,200</td><td>3</td><td>1,203</td>"),
    ]


@given(any_chart(), st.sampled_from([WIDE, NARROW, SMALL]))
def test_the_time_axis_has_no_more_labels_than_fit(chart: Chart, size: Size) -> None:
    drawn = ElementTree.fromstring(charts.svg(chart, size))
    ticks = [path for path in drawn.iter(f"{SVG}path") if path.get("class") == "chart-tick"]
    assert len(ticks) <= size.labels + 1


def test_nothing_is_styled_in_the_markup() -> None:
    """The Content-Security-Policy would not have it."""
    drawn = charts.figure(chart_of([[1, 1]] * 60)) + charts.sparkline("", TWO, [[1, 1]])
    assert "style" not in drawn + charts.bar(1, 2)


def test_a_sparkline_has_its_words_and_a_bar_a_period() -> None:
    drawn = charts.sparkline("By hour", TWO, [[bar, 1] for bar in range(24)])
    assert ElementTree.fromstring(drawn).findtext(f"{SVG}title") == "By hour"
    assert {name: len(found) for name, found in rectangles(drawn).items()} == {
        "admitted": 23,
        "error": 24,
    }


@pytest.mark.parametrize(("count", "width"), [(0, "0"), (1, "1"), (500, "50"), (1000, "100")])
def test_a_share_of_the_most_is_seen_as_soon_as_it_is_something(count: int, width: str) -> None:
    assert f'class="chart-share-part" width="{width}"' in charts.bar(count, 1000)


def luminance(colour: str) -> float:
    """WCAG 2.2, relative luminance."""
    parts = [int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5)]
    red, green, blue = (
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize(
    ("selector", "backgrounds"),
    [
        (':root,\nhtml[data-theme="light"]', ["#ffffff", "#f8f8f8"]),
        ("    :root", ["#121212", "#212121"]),
        ('\n\nhtml[data-theme="dark"]', ["#121212", "#212121"]),
    ],
)
def test_each_colour_stands_out_from_the_page(selector: str, backgrounds: list[str]) -> None:
    """WCAG 2.2, 1.4.11: a contrast of 3:1. The backgrounds are those of Django's admin."""
    block = CSS.read_text().partition(f"{selector} {{")[2].partition("}")[0]
    colours = dict(re.findall(r"--outcome-([a-z-]+): (#[0-9a-f]{6});", block))
    assert list(colours) == [series.name for series in traffic_charts.ALL]
    for colour in colours.values():
        for background in backgrounds:
            darker, lighter = sorted([luminance(colour), luminance(background)])
            assert (lighter + 0.05) / (darker + 0.05) >= 3, (colour, background)
