from __future__ import annotations

from datetime import timedelta

import pytest

from apikeys.durations import parse_duration


@pytest.mark.parametrize(
    ("text", "duration"),
    [
        ("90d", timedelta(days=90)),
        ("24h", timedelta(hours=24)),
        ("30m", timedelta(minutes=30)),
        ("1s", timedelta(seconds=1)),
        ("007d", timedelta(days=7)),
        (" 90d\n", timedelta(days=90)),
        ("36500d", timedelta(days=36_500)),
        ("876000h", timedelta(days=36_500)),
    ],
)
def test_a_duration_is_a_number_and_a_unit(text: str, duration: timedelta) -> None:
    assert parse_duration(text) == duration


@pytest.mark.parametrize(
    "text",
    [
        *("", " ", "d", "90", "90 d", "90D", "90days", "1h30m", "-1d", "+1d", "1.5h", "1w", "ever"),
        *("0d", "0s", "36501d", "876001h", "999999d", "9999999s", "\u0669d", "1d\n1d"),
    ],
)
def test_anything_else_is_refused_with_what_to_write(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not a duration: write .* 90d, 24h or 30m") as refused:
        parse_duration(text)
    assert repr(text) in str(refused.value)
