"""DRF throttle classes over the sliding-window counter.

They work on any DRF view through `throttle_classes`. On a view derived from
throttling.views.RateLimitedView, those with `before_authentication` run before anything else.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar, Final, cast

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from redis.exceptions import NoScriptError, RedisError
from rest_framework.exceptions import APIException
from rest_framework.request import Request
from rest_framework.settings import api_settings
from rest_framework.throttling import BaseThrottle

from throttling import network_rules
from throttling.clients import client_identity
from throttling.headers import AppliedLimit
from throttling.limiter import Decision, Hit, RateLimit, SlidingWindowCounter, hit_together
from throttling.measurements import WITHOUT_STORE, measurements
from throttling.outage import Breaker, LocalCounter, share_of
from throttling.refusals import refusals

APPLIED: Final = "throttling.applied"
"""The META entry with the limits applied to a request so far, a list of AppliedLimit."""

ASKED_AHEAD: Final = "throttling.asked_ahead"
"""The META entry with an Asked: the first hit of this request, if that was asked for before."""

breaker = Breaker()
local_counter = LocalCounter()


@dataclass(frozen=True, slots=True)
class Asked:
    """What the store said to a hit on `key`: the decision, None without an answer."""

    key: str
    decision: Decision | None
    values: list[bytes | None]


def ask(hits: Sequence[Hit], keys: Sequence[str]) -> list[Asked]:
    """All hits in one round trip, and the values of `keys`, which go with each of them.

    Refusals are remembered. While the breaker is open nothing is asked.
    """
    names = [counter.key(identifier) for counter, identifier in hits]
    if not breaker.may_ask():
        return [Asked(name, None, []) for name in names]
    asked_at = time.monotonic()
    try:
        decisions, values = _hit(hits, keys)
    except RedisError as error:
        breaker.failed(error)
        return [Asked(name, None, []) for name in names]
    measurements.answered(time.monotonic() - asked_at)
    breaker.answered()
    for name, decision in zip(names, decisions, strict=True):
        if not decision.allowed:
            refusals.remember(name, decision, asked_at)
    return [Asked(name, decision, values) for name, decision in zip(names, decisions, strict=True)]


def _hit(hits: Sequence[Hit], keys: Sequence[str]) -> tuple[list[Decision], list[bytes | None]]:
    try:
        return hit_together(hits, keys)
    except NoScriptError:
        [(counter, identifier), *others] = hits
        decision, values = counter.hit_and_read(identifier, keys)
        return [decision, *(hit_together(others, ())[0] if others else [])], values


class StoreUnavailable(APIException):
    """The store does not answer and STORE_FAILURE is "deny"."""

    status_code = 503
    default_detail = "The rate limiter's store does not answer. Try again in a second."
    default_code = "store_unavailable"
    wait = 1


class NetworkBlocked(APIException):
    """An operator's network rule blocks the client's address."""

    status_code = 403
    default_detail = "This network is blocked."
    default_code = "network_blocked"


class SlidingWindowThrottle(BaseThrottle):
    """Limits whatever `get_identifier` names to `get_rate`.

    As with DRF's own, the rate is the class's `rate` or DEFAULT_THROTTLE_RATES[scope]. `scope` is
    also the policy's name in the RateLimit headers.
    """

    scope: ClassVar[str]
    rate: ClassVar[str | None] = None
    before_authentication: ClassVar[bool] = False
    read_along: ClassVar[Mapping[str, str]] = {}
    """Store keys to read in the hit's round trip, by the META entry that takes the value: bytes,
    empty where there is no such key, or None when the store could not be asked."""

    decision: Decision

    def get_identifier(self, request: Request, view: Any) -> str | None:
        """Who is limited; None: this request is not."""
        raise NotImplementedError(f"{type(self).__name__} must define get_identifier().")

    def get_rate(self, request: Request, view: Any) -> RateLimit | None:
        """The rate limit for this request; None: none. Raises ImproperlyConfigured."""
        rate = self.rate
        if rate is None:
            if self.scope not in api_settings.DEFAULT_THROTTLE_RATES:
                raise ImproperlyConfigured(
                    f"{type(self).__name__} has no rate: set its `rate`, or"
                    f" DEFAULT_THROTTLE_RATES[{self.scope!r}] in REST_FRAMEWORK."
                )
            rate = cast("str | None", api_settings.DEFAULT_THROTTLE_RATES[self.scope])
        return parse_rate(rate) if rate is not None else None

    def allow_request(self, request: Request, view: Any) -> bool:
        limited = self.limited(request, view)
        if limited is None:
            return True
        identifier, rate = limited
        self.decision = self._decide(request, *self.hit_on(identifier, rate))
        applied = AppliedLimit(self.scope, identifier, rate, self.decision)
        request.META.setdefault(APPLIED, []).append(applied)
        return self.decision.allowed

    def peek(self, request: Request, view: Any) -> AppliedLimit | None:
        """What is left of this limit, counting nothing; None when the request is not limited.

        Raises StoreUnavailable, whatever STORE_FAILURE says: nobody else knows what is left.
        """
        limited = self.limited(request, view)
        if limited is None:
            return None
        limiter, identifier = self.hit_on(*limited)
        if not breaker.may_ask():
            raise StoreUnavailable
        try:
            decision = limiter.peek(identifier)
        except RedisError as error:
            breaker.failed(error)
            raise StoreUnavailable from error
        breaker.answered()
        return AppliedLimit(self.scope, *limited, decision)

    def limited(self, request: Request, view: Any) -> tuple[str, RateLimit] | None:
        """Who is limited by this request and to what; None when it is not limited."""
        rate = self.get_rate(request, view)
        identifier = self.get_identifier(request, view) if rate else None
        return None if rate is None or identifier is None else (identifier, rate)

    def hit_on(self, identifier: str, rate: RateLimit) -> Hit:
        return limiter_for(rate), f"{self.scope}:{identifier}"

    def wait(self) -> float | None:
        """Seconds until the same request would be admitted."""
        return self.decision.retry_after

    def _decide(self, request: Request, limiter: SlidingWindowCounter, identifier: str) -> Decision:
        key = limiter.key(identifier)
        # First: another request that was asked together with this one may have been refused since.
        asked: Asked | None = request.META.pop(ASKED_AHEAD, None)
        if asked is None or asked.key != key:
            remembered = refusals.recall(key, time.monotonic())
            if remembered is not None:
                return remembered
            [asked] = ask([(limiter, identifier)], list(self.read_along.values()))
        if asked.decision is None:
            request.META.update(dict.fromkeys(self.read_along))
            return decide_without_store(identifier, limiter.rate)
        for name, value in zip(self.read_along, asked.values, strict=True):
            request.META[name] = value or b""
        return asked.decision


class AddressThrottle(SlidingWindowThrottle):
    """Limits each client address, before authentication, so that guessing is limited too.

    As far as a network rule says nothing else of the address: it may be blocked, exempt, or have a
    rate of its own.
    """

    scope = "ip"
    before_authentication = True

    def get_identifier(self, request: Request, view: Any) -> str:
        return client_identity(request.META)

    def limited(self, request: Request, view: Any) -> tuple[str, RateLimit] | None:
        """Raises NetworkBlocked."""
        rule = network_rules.rule_for(request)
        if rule is not None and rule.blocks:
            raise NetworkBlocked
        limited = super().limited(request, view)
        if rule is None or limited is None:
            return limited
        return None if rule.rate is None else (limited[0], self.rate_by_rule(rule.rate))

    def rate_by_rule(self, rate: RateLimit) -> RateLimit:
        """What a network's own rate comes to here, where it takes the place of `get_rate`'s."""
        return rate


class KeyThrottle(SlidingWindowThrottle):
    """Limits a credential that has a rate of its own.

    For any authentication class whose `request.auth` has `key_id` and `rate` (notation, or blank).
    """

    scope = "key"

    def get_identifier(self, request: Request, view: Any) -> str | None:
        return getattr(request.auth, "key_id", None)

    def get_rate(self, request: Request, view: Any) -> RateLimit | None:
        rate = getattr(request.auth, "rate", None)
        return parse_rate(rate) if rate else None


parse_rate = lru_cache(maxsize=4096)(RateLimit.parse)
limiter_for = lru_cache(maxsize=4096)(SlidingWindowCounter)


def decide_without_store(identifier: str, rate: RateLimit) -> Decision:
    """The decision that STORE_FAILURE asks for while the store does not answer.

    Raises StoreUnavailable for "deny".
    """
    measurements.count(WITHOUT_STORE)
    policy = getattr(settings, "STORE_FAILURE", "local")
    if policy == "deny":
        raise StoreUnavailable
    if policy == "allow":
        return Decision(allowed=True, remaining=rate.limit, retry_after=0.0, reset_after=0.0)
    processes = getattr(settings, "WEB_CONCURRENCY", 1)
    return local_counter.hit(identifier, share_of(rate, processes))
