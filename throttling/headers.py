"""RateLimit header fields (draft-ietf-httpapi-ratelimit-headers) and Retry-After (RFC 9110)."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from throttling.limiter import Decision
from throttling.rates import RateLimit


@dataclass(frozen=True, slots=True)
class AppliedLimit:
    """A rate limit that was applied to a request, and what came of it.

    `policy` is its name in the headers and in a refusal's `violated-policies`: "ip", "key".
    `identifier` is who it was applied to: a client's address, a key's id.
    """

    policy: str
    identifier: str
    rate: RateLimit
    decision: Decision


def rate_limit_headers(applied: Iterable[AppliedLimit]) -> dict[str, str]:
    """RateLimit-Policy and RateLimit, an item for each limit; whole seconds, rounded up."""
    policies, states = [], []
    for limit in applied:
        window = math.ceil(limit.rate.window)
        reset = math.ceil(limit.decision.reset_after)
        policies.append(f'"{limit.policy}";q={limit.rate.limit};w={window}')
        states.append(f'"{limit.policy}";r={limit.decision.remaining};t={reset}')
    if not policies:
        return {}
    return {"RateLimit-Policy": ", ".join(policies), "RateLimit": ", ".join(states)}


def retry_after(decision: Decision) -> str:
    """Whole seconds, rounded up, so that waiting them is always enough."""
    return str(math.ceil(decision.retry_after))
