from __future__ import annotations

from redis import Redis

from throttling import changes
from throttling.limiter import RateLimit, SlidingWindowCounter


def test_a_reset_changes_the_number(store: Redis) -> None:
    before = changes.read(store)
    assert changes.read(store) == before
    SlidingWindowCounter(RateLimit.parse("3/10s")).reset("client")
    assert changes.read(store) == before + 1


def test_a_store_that_lost_the_number_does_not_repeat_it(store: Redis) -> None:
    changes.announce(store)
    before = changes.read(store)
    store.flushall()
    assert changes.read(store) != before
    store.flushall()
    changes.announce(store)
    assert changes.read(store) != before
