"""Guesses at the console's passwords and codes, limited by this project's own limiter.

docs/decisions/0016-console-login.md says why so.
"""

from __future__ import annotations

import hashlib
import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from django.conf import settings
from django.contrib.admin.forms import AdminAuthenticationForm
from django.core.exceptions import ValidationError
from django.forms import BaseForm
from django.http import HttpRequest, HttpResponse
from django.views.decorators.debug import sensitive_variables
from redis.exceptions import RedisError

from throttling.clients import client_identity
from throttling.limiter import Decision, RateLimit, SlidingWindowCounter
from throttling.outage import LocalCounter, share_of
from throttling.throttles import breaker

logger = logging.getLogger(__name__)

FAILURES: Final = SlidingWindowCounter(RateLimit.parse("5/15m"))
"""Of one user's password from one address, or of one user's codes; a success forgets them."""

ATTEMPTS: Final = SlidingWindowCounter(RateLimit.parse("30/15m"))
"""Of one address at anybody's password, whatever becomes of them: one password tried on many users
is limited as well. A success forgets none, or an account of one's own would pay for the others."""

# Not the API's, where a flood of addresses would push these out.
local_counter = LocalCounter()


class TooManyFailures(ValidationError):
    """Refused without a look at what was sent."""

    def __init__(self, decision: Decision) -> None:
        super().__init__(f"Too many failures. Try again in {_wait(decision)}.")
        self.decision = decision


class LoginForm(AdminAuthenticationForm):
    @sensitive_variables()
    def clean(self) -> dict[str, Any]:
        username = self.cleaned_data.get("username")
        if self.request is None or not username or not self.cleaned_data.get("password"):
            return super().clean()  # Nothing to check.
        with password_guess(self.request, username):
            return super().clean()


@contextmanager
def password_guess(request: HttpRequest, username: str) -> Iterator[None]:
    """In the block the password is checked; ValidationError means that it was wrong.

    Raises TooManyFailures instead, which is counted nowhere and costs no password hash.
    """
    identity = client_identity(request.META)
    _refuse_if_full(ATTEMPTS, of_address(identity))
    with guess(FAILURES, of_user(identity, username), f"{username!a} from {identity}"):
        of_all = hit(ATTEMPTS, of_address(identity))
        if not of_all.allowed:
            raise TooManyFailures(of_all)
        if not of_all.remaining:
            logger.warning("Logins from %s are locked: %d attempts.", identity, ATTEMPTS.rate.limit)
        yield


@contextmanager
def guess(counter: SlidingWindowCounter, identifier: str, whose: str) -> Iterator[None]:
    """Counted before the block, forgotten when the block raises no ValidationError."""
    decision = hit(counter, identifier)
    if not decision.allowed:
        raise TooManyFailures(decision)
    try:
        yield
    except ValidationError:
        if not decision.remaining:
            logger.warning("Login of %s is locked: %d failures.", whose, counter.rate.limit)
        raise
    forget(counter, identifier)


def hit(counter: SlidingWindowCounter, identifier: str) -> Decision:
    """Without the store this process decides, with its share of the limit.

    Whatever STORE_FAILURE says, which is about requests: a login never fails open.
    """
    if breaker.may_ask():
        try:
            decision = counter.hit(identifier)
        except RedisError as error:
            breaker.failed(error)
        else:
            breaker.answered()
            return decision
    return local_counter.hit(identifier, share_of(counter.rate, settings.WEB_CONCURRENCY))


def forget(counter: SlidingWindowCounter, identifier: str) -> None:
    """What was counted in the store; what this process counted alone stays, on the safe side."""
    if breaker.may_ask():
        try:
            counter.reset(identifier)
        except RedisError as error:
            breaker.failed(error)


def _refuse_if_full(counter: SlidingWindowCounter, identifier: str) -> None:
    """Counting nothing. Without the store: the hit that follows decides."""
    if not breaker.may_ask():
        return
    try:
        decision = counter.peek(identifier)
    except RedisError as error:
        breaker.failed(error)
        return
    if not decision.allowed:
        raise TooManyFailures(decision)


def of_address(identity: str) -> str:
    return f"login:{identity}"


def of_user(identity: str, username: str) -> str:
    """Of bounded length, whatever is sent as a user name."""
    digest = hashlib.sha256(username.encode(errors="backslashreplace")).hexdigest()
    return f"login:{identity}:{digest[:32]}"


def with_refusal(response: HttpResponse, form: BaseForm) -> HttpResponse:
    """The page with the form as a 429, if the form was refused for too many failures."""
    for error in form.non_field_errors().as_data():
        if isinstance(error, TooManyFailures):
            response.status_code = 429
            response.headers["Retry-After"] = str(math.ceil(error.decision.retry_after))
    return response


def _wait(decision: Decision) -> str:
    seconds = math.ceil(decision.retry_after)
    if seconds > 60:
        return f"{math.ceil(seconds / 60)} minutes"
    return f"{seconds} second{'' if seconds == 1 else 's'}"
