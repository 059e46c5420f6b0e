"""The script on real stores, against decisions worked out elsewhere and a slow reference."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis import Redis

from tests.servers import wait_for
from tests.throttling.reference import Answer, Reference
from throttling.limiter import SCRIPT_SHA, Decision, RateLimit, SlidingWindowCounter

VECTORS = json.loads(Path(__file__).with_name("sliding_window.json").read_text())
EXAMPLES, HITS_AT_LEAST, HITS_AT_MOST = 500, 110, 130  # 55,000 decisions on each of two stores


class Clock:
    """A clock that stands where it is put, in milliseconds."""

    def __init__(self, now_ms: int = 1_700_000_000_000) -> None:
        self.now_ms = now_ms

    def __call__(self) -> int:
        return self.now_ms


@pytest.fixture
def limiter_at(each_store: Redis) -> Callable[..., tuple[SlidingWindowCounter, Clock]]:
    def make(notation: str, now_ms: int = 1_700_000_000_000) -> tuple[SlidingWindowCounter, Clock]:
        clock = Clock(now_ms)
        return SlidingWindowCounter(RateLimit.parse(notation), each_store, clock), clock

    return make


def as_answer(decision: Decision) -> Answer:
    return Answer(
        decision.allowed,
        decision.remaining,
        round(decision.retry_after * 1000),
        round(decision.reset_after * 1000),
    )


@pytest.mark.parametrize("vector", VECTORS, ids=lambda v: f"{v['limit']}-in-{v['window_ms']}ms")
def test_the_decisions_of_the_independent_model(vector: dict[str, Any], each_store: Redis) -> None:
    clock = Clock()
    rate = RateLimit(vector["limit"], vector["window_ms"] / 1000)
    limiter = SlidingWindowCounter(rate, each_store, clock)
    for hit in vector["hits"]:
        clock.now_ms = hit["now_ms"]
        expected = Answer(
            hit["allowed"], hit["remaining"], hit["retry_after_ms"], hit["reset_after_ms"]
        )
        assert as_answer(limiter.hit("client", hit["cost"])) == expected, hit


@st.composite
def histories(draw: st.DrawFn) -> tuple[int, int, list[tuple[int, int]]]:
    """A rate limit, and hits as (milliseconds since the last one, cost); some steps go back."""
    window_ms = draw(st.sampled_from([1, 7, 50, 99, 100, 101, 250, 333, 1500, 10_000, 3_600_000]))
    limit = draw(st.sampled_from([1, 2, 3, 5, 10, 50, 255, 256, 1000, 65_535, 65_536, 10**9]))
    steps = st.one_of(
        st.just(0),
        st.integers(0, max(1, window_ms // 50)),
        st.integers(0, window_ms),
        st.sampled_from([window_ms - 1, window_ms, window_ms + 1, window_ms * 2]),
        st.integers(-window_ms * 2, 0),
    )
    costs = st.one_of(st.just(1), st.integers(1, min(limit, 5)), st.integers(1, limit))
    hits = draw(st.lists(st.tuples(steps, costs), min_size=HITS_AT_LEAST, max_size=HITS_AT_MOST))
    return limit, window_ms, hits


@settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    derandomize=True,
    database=None,
)
@given(history=histories())
def test_every_decision_is_the_slow_references(
    each_store: Redis, history: tuple[int, int, list[tuple[int, int]]]
) -> None:
    limit, window_ms, hits = history
    clock = Clock()
    limiter = SlidingWindowCounter(RateLimit(limit, window_ms / 1000), each_store, clock)
    reference = Reference(limit, window_ms)
    limiter.reset("client")
    for step, cost in hits:
        clock.now_ms += step
        assert as_answer(limiter.hit("client", cost)) == reference.hit(clock.now_ms, cost)


@pytest.mark.parametrize("notation", ["3/10s", "10/2s"])
def test_no_window_holds_more_than_the_limit_whatever_the_phase_of_the_bursts(
    limiter_at: Callable[..., tuple[SlidingWindowCounter, Clock]], notation: str
) -> None:
    limiter, clock = limiter_at(notation)
    rate = limiter.rate
    start = clock.now_ms
    # Bursts at the end of one window and the start of the next, at every offset in a slot.
    for offset in range(rate.slot_ms + 1):
        identifier = f"phase {offset}"
        admitted: list[int] = []
        for burst in (0, rate.window_ms - 1, rate.window_ms, rate.window_ms + rate.slot_ms):
            for _ in range(rate.limit + 1):
                clock.now_ms = start + offset + burst
                if limiter.hit(identifier).allowed:
                    admitted.append(clock.now_ms)
        assert len(admitted) >= rate.limit
        assert most_in_a_window(admitted, rate.window_ms) <= rate.limit


def most_in_a_window(moments: list[int], window_ms: int) -> int:
    return max(sum(start <= moment < start + window_ms for moment in moments) for start in moments)


def test_waiting_retry_after_admits_and_a_millisecond_less_does_not(
    limiter_at: Callable[..., tuple[SlidingWindowCounter, Clock]],
) -> None:
    limiter, clock = limiter_at("5/10s")
    for step, cost in ((0, 1), (3_456, 3), (1_234, 1)):
        clock.now_ms += step
        assert limiter.hit("client", cost).allowed
    for cost in (1, 2, 4, 5):
        refused = limiter.hit("client", cost)
        assert not refused.allowed
        now, wait = clock.now_ms, round(refused.retry_after * 1000)
        clock.now_ms = now + wait - 1
        assert not limiter.hit("client", cost).allowed
        clock.now_ms = now + wait
        copy = SlidingWindowCounter(limiter.rate, limiter.connection, clock)
        assert copy.peek("client").remaining >= cost
        clock.now_ms = now


def test_a_refused_hit_writes_nothing(
    limiter_at: Callable[..., tuple[SlidingWindowCounter, Clock]], each_store: Redis
) -> None:
    limiter, clock = limiter_at("3/10s")
    limiter.hit("client", 3)
    key = limiter.key("client")
    before = each_store.dump(key), each_store.pexpiretime(key)
    clock.now_ms += 5_000
    assert not limiter.hit("client").allowed
    assert (each_store.dump(key), each_store.pexpiretime(key)) == before


def test_peek_says_what_a_hit_would_decide_and_counts_nothing(
    limiter_at: Callable[..., tuple[SlidingWindowCounter, Clock]], each_store: Redis
) -> None:
    limiter, clock = limiter_at("2/10s")
    assert limiter.peek("client") == Decision(True, 2, 0.0, 0.0)
    assert each_store.dbsize() == 0
    limiter.hit("client")
    clock.now_ms += 1_000
    assert limiter.peek("client") == Decision(True, 1, 0.0, 9.1)
    limiter.hit("client")
    assert limiter.peek("client") == limiter.hit("client") == Decision(False, 0, 9.1, 9.1)


def test_reset_gives_the_whole_limit_back(
    limiter_at: Callable[..., tuple[SlidingWindowCounter, Clock]],
) -> None:
    limiter, _ = limiter_at("3/10s")
    limiter.hit("client", 3)
    limiter.hit("other", 3)
    limiter.reset("client")
    assert limiter.peek("client").remaining == 3
    assert limiter.peek("other").remaining == 0


@pytest.mark.parametrize("cost", [0, -1, 4])
def test_a_cost_that_can_never_fit_is_an_error_not_a_refusal(cost: int, each_store: Redis) -> None:
    with pytest.raises(ValueError, match="costs from 1 to 3"):
        SlidingWindowCounter(RateLimit(3, 10), each_store).hit("client", cost)
    assert each_store.dbsize() == 0


def test_identifiers_and_rate_limits_are_counted_apart(each_store: Redis) -> None:
    three, ten = (SlidingWindowCounter(RateLimit(n, 10), each_store) for n in (3, 10))
    for limiter, identifier in itertools.product((three, ten), ("a", "b", "a}3/10s", "{a}", "")):
        assert limiter.hit(identifier, limiter.rate.limit).allowed
        assert not limiter.hit(identifier).allowed


def test_the_counter_grows_with_the_slots_that_count_and_not_with_the_hits(
    limiter_at: Callable[..., tuple[SlidingWindowCounter, Clock]], each_store: Redis
) -> None:
    limiter, clock = limiter_at("1000/60s")
    sizes = []
    for _ in range(250):
        for _ in range(3):
            assert limiter.hit("client").allowed
        sizes.append(each_store.strlen(limiter.key("client")))
        clock.now_ms += limiter.rate.slot_ms
    assert sizes[:3] == [10, 13, 16]
    assert max(sizes) == sizes[-1] == 10 + 3 * limiter.rate.slots


def test_the_counter_lives_until_its_newest_slot_no_longer_counts(each_store: Redis) -> None:
    limiter = SlidingWindowCounter(RateLimit(3, 10), each_store)
    reset_after = limiter.hit("client").reset_after
    lifetime_ms = each_store.pttl(limiter.key("client"))
    assert reset_after * 1000 - 500 <= lifetime_ms <= reset_after * 1000
    brief = SlidingWindowCounter(RateLimit(3, 0.05), each_store)
    brief.hit("client")
    wait_for(lambda: not each_store.exists(brief.key("client")), seconds=5)


def test_a_hit_in_a_later_slot_extends_the_lifetime(each_store: Redis) -> None:
    limiter = SlidingWindowCounter(RateLimit(1000, 0.1), each_store)
    first = limiter.hit("client")
    expires = each_store.pexpiretime(limiter.key("client"))
    # Three slots, because Redis 7.0 may date an expiry a millisecond after the hit.
    wait_for(lambda: limiter.hit("client").reset_after < first.reset_after - 0.003)
    assert each_store.pexpiretime(limiter.key("client")) > expires


def test_the_time_is_the_stores_own_to_the_millisecond(each_store: Redis) -> None:
    limiter = SlidingWindowCounter(RateLimit(1000, 0.1), each_store)
    assert limiter.rate.slot_ms == 1
    for _ in range(50):
        before = milliseconds(each_store)
        decision, [state] = limiter.hit_and_read("client", [limiter.key("client")])
        after = milliseconds(each_store)
        assert decision.reset_after <= 0.101
        assert state is not None
        # The newest slot comes first.
        assert before <= int.from_bytes(state[:6], "big") <= after


def milliseconds(store: Redis) -> int:
    seconds, microseconds = store.time()
    return seconds * 1000 + microseconds // 1000


@pytest.mark.parametrize("limit", [1, 255, 256, 65_535, 65_536, 2**32 - 1])
def test_a_limit_of_any_width_is_kept_in_full(
    limiter_at: Callable[..., tuple[SlidingWindowCounter, Clock]], limit: int
) -> None:
    limiter, clock = limiter_at(f"{limit}/10s")
    assert limiter.hit("client", limit).remaining == 0
    assert not limiter.hit("client").allowed
    clock.now_ms += limiter.rate.window_ms + limiter.rate.slot_ms
    assert limiter.peek("client").remaining == limit


def test_a_clock_that_goes_back_admits_nothing_more_and_sticks_no_longer_than_its_step(
    limiter_at: Callable[..., tuple[SlidingWindowCounter, Clock]],
) -> None:
    limiter, clock = limiter_at("3/10s")
    limiter.hit("client", 2)
    clock.now_ms -= 60_000
    assert limiter.hit("client") == Decision(True, 0, 0.0, 70.1)
    assert limiter.hit("client") == Decision(False, 0, 70.1, 70.1)
    clock.now_ms += 70_099
    assert not limiter.hit("client").allowed
    clock.now_ms += 1
    assert limiter.hit("client").allowed


def test_under_a_callers_clock_the_counter_outlives_its_window(
    limiter_at: Callable[..., tuple[SlidingWindowCounter, Clock]], each_store: Redis
) -> None:
    limiter, _ = limiter_at("3/10s")
    limiter.hit("client")
    assert 3_600_000 < each_store.pttl(limiter.key("client")) <= 3_610_100


def test_a_script_that_the_store_has_lost_is_sent_again_and_the_hit_counted_once(
    each_store: Redis,
) -> None:
    limiter = SlidingWindowCounter(RateLimit(3, 10), each_store)
    limiter.hit("client")
    each_store.script_flush()
    decision, values = limiter.hit_and_read("client", ["absent"])
    assert (decision.remaining, values) == (1, [None])
    assert each_store.script_exists(SCRIPT_SHA) == [True]


def test_a_client_that_decodes_replies_is_as_good(each_store: Redis) -> None:
    path = each_store.get_connection_kwargs()["path"]
    with Redis(unix_socket_path=path, decode_responses=True) as decoding:
        limiter = SlidingWindowCounter(RateLimit(200, 10), decoding)
        assert limiter.hit("client").remaining == 199
        assert limiter.peek("client").remaining == 199
        decoding.script_flush()
        assert limiter.hit("client").remaining == 198


def test_other_keys_are_read_in_the_same_round_trip(each_store: Redis) -> None:
    each_store.mset({"one": "1", "two": "2"})
    limiter = SlidingWindowCounter(RateLimit(3, 10), each_store)
    _, values = limiter.hit_and_read("client", ["two", "absent", "one"])
    assert values == [b"2", None, b"1"]


def test_no_key_is_touched_but_the_counter(each_store: Redis) -> None:
    limiter = SlidingWindowCounter(RateLimit(3, 10), each_store)
    limiter.hit("198.51.100.7")
    assert each_store.keys() == [b"rl:{198.51.100.7}3/10s"]
