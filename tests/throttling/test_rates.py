from __future__ import annotations

import pytest

from throttling.rates import MAX_LIMIT, InvalidRateLimit, RateLimit


@pytest.mark.parametrize(
    ("notation", "limit", "window"),
    [
        ("3/10s", 3, 10),
        ("100/1m", 100, 60),
        ("1000/h", 1000, 3600),
        ("5/2d", 5, 172_800),
        ("7/333ms", 7, 0.333),
        ("10/min", 10, 60),
        ("10/hour", 10, 3600),
        ("1/day", 1, 86_400),
        (" 3 / 10 S ", 3, 10),
    ],
)
def test_a_rate_limit_is_read_from_its_notation(notation: str, limit: int, window: float) -> None:
    rate = RateLimit.parse(notation)
    assert (rate.limit, rate.window) == (limit, window)


@pytest.mark.parametrize("notation", ["3/10s", "100/1m", "1000/h", "5/2d", "7/333ms", "1000/60s"])
def test_its_string_is_the_short_form_back(notation: str) -> None:
    assert str(RateLimit.parse(notation)) == notation


def test_a_rate_limit_of_numbers_has_a_notation_too() -> None:
    assert str(RateLimit(3, 10)) == "3/10s"
    assert str(RateLimit(100, 60)) == "100/1m"
    assert RateLimit.parse(str(RateLimit(7, 0.333))) == RateLimit(7, 0.333)
    assert RateLimit.parse("60/60s") == RateLimit.parse("60/1m")


def test_a_multiple_is_as_much_more_in_the_same_window() -> None:
    assert RateLimit.parse("3/10s").times(10) == RateLimit.parse("30/10s")
    assert RateLimit(MAX_LIMIT - 1, 60).times(10) == RateLimit(MAX_LIMIT, 60)


@pytest.mark.parametrize(
    "notation",
    [
        *("", "3", "3/", "/10s", "3/10", "3/10x", "0/10s", "3/0s", "-3/10s", "3.5/10s"),
        *("3/10s/2", "4294967296/s", "3/367d", "\u0663/10s", "3/10s\n4", "three/10s"),
    ],
)
def test_a_bad_notation_is_refused_with_a_sentence(notation: str) -> None:
    with pytest.raises(InvalidRateLimit, match=r"^[A-Z'\"].*\.$"):
        RateLimit.parse(notation)


@pytest.mark.parametrize("window_ms", [1, 50, 99, 100, 101, 333, 1500, 10_000, 86_400_000])
def test_the_slots_cover_the_window_and_no_more_than_a_hundred_are_needed(window_ms: int) -> None:
    rate = RateLimit(1, window_ms / 1000)
    assert rate.slots <= 100
    assert rate.slots * rate.slot_ms >= window_ms > (rate.slots - 1) * rate.slot_ms
    assert rate.slot_ms - 1 < window_ms / 100 <= rate.slot_ms
