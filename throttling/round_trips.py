"""One round trip to the store, without what redis-py's command path adds to it.

A pipeline of redis-py takes 45 µs more, nearly twice the round trip itself: its pool's bookkeeping,
its metrics and its retries. What a connection is, with TLS, passwords, timeouts and Sentinel, stays
redis-py's: only sending and reading are done here.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from redis.exceptions import RedisError, ResponseError

if TYPE_CHECKING:
    from redis.connection import ConnectionPool


class RoundTrips:
    """Connections as the pool would make them, kept beside it and used by one caller at a time."""

    def __init__(self, pool: ConnectionPool) -> None:
        self._connection_class = pool.connection_class
        self._connection_kwargs = pool.connection_kwargs
        self._idle: list[Any] = []

    def __call__(self, commands: bytes, replies: int) -> list[Any]:
        """Send packed commands together and read their `replies`; an error reply is one of them.

        Raises RedisError when the store does not answer: then nobody knows what it has executed.
        """
        try:
            connection = self._idle.pop()
        except IndexError:
            connection = self._connection_class(**self._connection_kwargs)
        try:
            _connect(connection)
            connection.send_packed_command([commands], check_health=False)
            answers = [_read(connection) for _ in range(replies)]
        except BaseException:
            connection.disconnect()
            raise
        self._idle.append(connection)
        return answers

    def forget(self) -> None:
        """In a forked child, where the connections are the parent's."""
        self._idle.clear()


def _connect(connection: Any) -> None:
    """Where that is needed: there is no connection yet, or the store has closed it meanwhile."""
    try:
        has_closed = connection.can_read()  # Connects a new one.
    except RedisError:
        has_closed = True
    if has_closed:
        connection.disconnect()
        connection.connect()


def _read(connection: Any) -> Any:
    try:
        return connection.read_response(disable_decoding=True)
    except ResponseError as error:
        return error


def packed(*parts: bytes) -> bytes:
    """A command in the store's protocol, RESP: an array of bulk strings."""
    return b"*%d\r\n" % len(parts) + b"".join([b"$%d\r\n%b\r\n" % (len(p), p) for p in parts])


_over: WeakKeyDictionary[ConnectionPool, RoundTrips] = WeakKeyDictionary()


def over(pool: ConnectionPool) -> RoundTrips:
    """The round trips beside this pool: one object a pool, so that its connections are shared."""
    return _over.setdefault(pool, RoundTrips(pool))


def _forget_all() -> None:
    for round_trips in _over.values():
        round_trips.forget()


os.register_at_fork(after_in_child=_forget_all)
