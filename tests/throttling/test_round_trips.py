"""The connections that hits are asked for over."""

from __future__ import annotations

import os
import threading
import time

import pytest
from django_redis import get_redis_connection
from redis import Redis
from redis.exceptions import RedisError, ResponseError

from throttling import round_trips
from throttling.limiter import RateLimit, SlidingWindowCounter
from throttling.round_trips import RoundTrips, packed

CLIENT_ID = packed(b"CLIENT", b"ID")


@pytest.fixture
def round_trip(store: Redis) -> RoundTrips:
    """Over no connection yet."""
    return RoundTrips(store.connection_pool)


def test_a_connection_is_kept_for_the_next_call(round_trip: RoundTrips) -> None:
    assert round_trip(CLIENT_ID, 1) == round_trip(CLIENT_ID, 1)


def test_two_clients_of_one_pool_share_it(store: Redis) -> None:
    assert round_trips.over(store.connection_pool) is round_trips.over(
        get_redis_connection("default").connection_pool
    )


def test_a_connection_that_the_store_has_closed_is_noticed_before_anything_is_sent(
    round_trip: RoundTrips, store: Redis
) -> None:
    [before] = round_trip(CLIENT_ID, 1)
    store.client_kill_filter(_id=before)
    [after] = round_trip(CLIENT_ID, 1)
    assert after != before


def test_an_answer_that_came_too_late_is_not_taken_for_another(
    round_trip: RoundTrips, store: Redis
) -> None:
    round_trip(packed(b"SET", b"first", b"1") + packed(b"SET", b"second", b"2"), 2)
    store.client_pause(200)
    with pytest.raises(RedisError):
        round_trip(packed(b"GET", b"first"), 1)
    time.sleep(0.25)  # The pause is over, and the answer sent.
    assert round_trip(packed(b"GET", b"second"), 1) == [b"2"]


def test_an_error_of_one_command_is_its_reply_and_loses_no_other(round_trip: RoundTrips) -> None:
    commands = packed(b"INCR", b"n") + packed(b"LPUSH", b"n", b"1") + packed(b"INCR", b"n")
    first, error, last = round_trip(commands, 3)
    assert (first, last) == (1, 2)
    assert isinstance(error, ResponseError)
    assert round_trip(packed(b"GET", b"n"), 1) == [b"2"]


def test_threads_use_a_connection_each(store: Redis) -> None:
    limiter, together = SlidingWindowCounter(RateLimit.parse("1000/60s")), threading.Barrier(8)
    admitted: list[bool] = []

    def hit() -> None:
        together.wait()
        for _ in range(200):
            admitted.append(limiter.hit("client").allowed)

    threads = [threading.Thread(target=hit) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (admitted.count(True), len(admitted)) == (1000, 1600)


def test_a_forked_child_makes_connections_of_its_own(store: Redis) -> None:
    shared = round_trips.over(store.connection_pool)
    [parents] = shared(CLIENT_ID, 1)
    readable, writable = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writable, b"%d" % shared(CLIENT_ID, 1)[0])
        os._exit(0)
    os.waitpid(child, 0)
    assert int(os.read(readable, 100)) != parents
    assert shared(CLIENT_ID, 1) == [parents]
    os.close(readable)
    os.close(writable)
