"""What becomes of a request, in the words that operators are told it in."""

from __future__ import annotations

from enum import StrEnum
from typing import Final


class Outcome(StrEnum):
    """What becomes of a request that no rate limit refuses; for those, see `refused_by`."""

    ADMITTED = "admitted"
    UNAUTHENTICATED = "unauthenticated"
    FORBIDDEN = "forbidden"
    INVALID = "invalid"
    ERROR = "error"


REFUSED: Final = "refused:"


def refused_by(policy: str) -> str:
    """The outcome of a request refused by this rate limit: "refused:ip", "refused:key"."""
    return REFUSED + policy


def outcome_of(status: int, key_id: str | None, refused_policy: str | None) -> str:
    """`key_id` is that of the good key the request carried, `refused_policy` that of a 429."""
    if status < 400:
        return Outcome.ADMITTED
    if status >= 500:
        return Outcome.ERROR
    if status == 429 and refused_policy is not None:
        return refused_by(refused_policy)
    if status == 401:
        return Outcome.UNAUTHENTICATED
    if status == 403:
        return Outcome.FORBIDDEN
    return Outcome.ADMITTED if key_id is not None else Outcome.INVALID
