from __future__ import annotations

from throttling.limiter import Decision
from throttling.refusals import RememberedRefusals

REFUSAL = Decision(allowed=False, remaining=0, retry_after=5.0, reset_after=4.0)


def test_a_refusal_is_remembered_with_what_is_left_to_wait() -> None:
    refusals = RememberedRefusals(10)
    refusals.remember("client", REFUSAL, asked_at=100.0)
    assert refusals.recall("client", now=100.25) == Decision(False, 0, 4.75, 3.75)
    assert refusals.recall("other", now=100.25) is None


def test_it_is_forgotten_after_a_second_so_that_a_reset_takes_effect() -> None:
    refusals = RememberedRefusals(10)
    refusals.remember("client", REFUSAL, asked_at=100.0)
    assert refusals.recall("client", now=100.999) is not None
    assert refusals.recall("client", now=101.0) is None
    assert refusals.recall("client", now=100.5) is None


def test_it_is_forgotten_at_the_moment_from_which_the_store_would_admit() -> None:
    refusals = RememberedRefusals(10)
    refusals.remember("client", Decision(False, 0, 0.2, 0.2), asked_at=100.0)
    assert refusals.recall("client", now=100.199) is not None
    assert refusals.recall("client", now=100.2) is None


def test_the_oldest_give_way_when_there_are_too_many() -> None:
    refusals = RememberedRefusals(2)
    for number, name in enumerate("abc"):
        refusals.remember(name, REFUSAL, asked_at=100.0 + number / 100)
    assert refusals.recall("a", now=100.1) is None
    assert refusals.recall("b", now=100.1) is not None
    assert refusals.recall("c", now=100.1) is not None


def test_a_confirmed_refusal_lasts_as_long_as_the_store_would_refuse() -> None:
    refusals = RememberedRefusals(10)
    refusals.confirm(7, read_at=99.5)
    refusals.remember("client", REFUSAL, asked_at=100.0)
    for moment in (100.5, 101.5, 102.5, 103.5, 104.5):
        refusals.confirm(7, read_at=moment)
        assert refusals.recall("client", now=moment + 0.4) is not None
    assert refusals.recall("client", now=105.0) is None


def test_a_change_by_an_operator_makes_all_refusals_forgotten() -> None:
    refusals = RememberedRefusals(10)
    refusals.confirm(7, read_at=99.5)
    refusals.remember("client", REFUSAL, asked_at=100.0)
    refusals.confirm(8, read_at=100.4)
    assert refusals.recall("client", now=100.5) is None


def test_the_first_confirmation_may_have_missed_a_change_and_confirms_nothing_older() -> None:
    refusals = RememberedRefusals(10)
    refusals.remember("client", REFUSAL, asked_at=100.0)
    refusals.confirm(7, read_at=100.4)
    assert refusals.recall("client", now=100.5) is None


def test_without_another_confirmation_the_store_is_asked_again() -> None:
    refusals = RememberedRefusals(10)
    refusals.confirm(7, read_at=99.5)
    refusals.remember("client", REFUSAL, asked_at=100.0)
    assert refusals.recall("client", now=101.4) is not None
    assert refusals.recall("client", now=101.5) is None
