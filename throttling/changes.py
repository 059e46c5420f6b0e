"""The number that says whether an operator has changed what the limiter decides.

Every change raises it: a reset. A process that finds it unchanged may go on by what it remembers.
It starts at random, so that a store that lost it never repeats one.
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from redis import Redis

STORE_KEY: Final = "throttling:changes"


def announce(connection: Redis) -> None:
    """To be called after the change is made. Raises RedisError."""
    connection.set(STORE_KEY, secrets.randbits(62), nx=True)
    connection.incr(STORE_KEY)


def read(connection: Redis) -> int:
    """The number, made if there is none. Raises RedisError."""
    number = connection.get(STORE_KEY)
    if number is None:
        connection.set(STORE_KEY, secrets.randbits(62), nx=True)
        number = connection.get(STORE_KEY)
    return int(number or 0)
