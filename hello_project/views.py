from __future__ import annotations

from functools import lru_cache
from string import ascii_letters, digits, punctuation
from typing import Any, Final, cast
from urllib.parse import quote

from django.db import DatabaseError, connection
from django.http import HttpRequest, HttpResponse
from django.utils import timezone
from django.views.decorators.csrf import csrf_exempt
from django_redis import get_redis_connection
from redis.exceptions import RedisError
from rest_framework.exceptions import (
    APIException,
    AuthenticationFailed,
    NotAuthenticated,
    Throttled,
)
from rest_framework.permissions import AllowAny
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.throttling import BaseThrottle
from rest_framework.views import APIView

from apikeys import tokens
from apikeys.authentication import ApiKeyAuthentication
from apikeys.records import KeyRecord
from hello_project.negotiation import WhateverIsAccepted
from hello_project.parsers import LengthRequired
from hello_project.problems import MEDIA_TYPE, NO_STORE, problem, quota_exceeded_response
from hello_project.throttles import AddressThrottle, EnquiryThrottle
from throttling.headers import AppliedLimit
from throttling.throttles import APPLIED, KeyThrottle
from throttling.views import RateLimitedView

HEADER_SAFE: Final = (ascii_letters + digits + punctuation + " ").replace("%", "")
LIMITS: Final = (AddressThrottle(), KeyThrottle())
"""Of every request, as far as it has what they go by."""
METHODS_WITH_A_BODY: Final = ("POST", "PUT", "PATCH")


class ApiView(RateLimitedView):
    """What every view of the API derives from: limited by address, then authenticated."""

    def refuse(self, request: HttpRequest, throttle: BaseThrottle) -> HttpResponse:
        return quota_exceeded_response(request)

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        super().initial(request, *args, **kwargs)
        if request.method in METHODS_WITH_A_BODY and "HTTP_TRANSFER_ENCODING" in request.META:
            raise LengthRequired

    def finalize_response(
        self, request: Request, response: Response, *args: Any, **kwargs: Any
    ) -> Response:
        finalized = super().finalize_response(request, response, *args, **kwargs)
        for name, value in NO_STORE.items():
            finalized[name] = value
        return finalized


class HelloView(ApiView):
    def get(self, request: Request) -> Response:
        return Response({"message": "Hello, World!"})


class TokenView(ApiView):
    """A key buys a token; a token buys none."""

    authentication_classes = [ApiKeyAuthentication]

    def get(self, request: Request) -> Response:
        token, seconds = tokens.issue(cast(KeyRecord, request.auth), timezone.now())
        return Response({"access_token": token, "token_type": "Bearer", "expires_in": seconds})

    post = get


class VerifyView(ApiView):
    """Forward authentication: a proxy asks here, in whatever method, before it passes on a request.

    A 2xx lets that request pass; the key's id and name go with it. Envoy, which appends the path
    that it asks about, takes only a 200 for that.
    """

    content_negotiation_class = WhateverIsAccepted

    def get(self, request: Request, original: str | None = None) -> Response:
        record = cast(KeyRecord, request.auth)
        headers = {"X-Api-Key-Id": record.key_id, "X-Api-Key-Name": _in_a_header(record.name)}
        return Response(status=204 if original is None else 200, headers=headers)

    def http_method_not_allowed(  # type: ignore[override]  # DRF gives its own kind of request.
        self, request: Request, *args: Any, **kwargs: Any
    ) -> Response:
        return self.get(request, *args, **kwargs)


@lru_cache(maxsize=1024)
def _in_a_header(text: str) -> str:
    """In UTF-8, percent-encoded but for the visible ASCII characters and spaces."""
    return quote(text, safe=HEADER_SAFE)


class RateLimitView(ApiView):
    """The caller's limits and what is left of them, using up nothing.

    It has a limit of its own, since it can tell a good key from a bad one. Without a good key it
    costs what any other request costs.
    """

    throttle_classes = [EnquiryThrottle]

    def get(self, request: Request) -> Response:
        peeked = [throttle.peek(request, self) for throttle in LIMITS]
        limits = [limit for limit in peeked if limit is not None]
        request.META.setdefault(APPLIED, [])[:0] = limits  # None, where a network is exempt.
        return Response({"policies": [_description(limit) for limit in limits]})

    def handle_exception(self, exc: Exception) -> Response:
        if isinstance(exc, AuthenticationFailed | NotAuthenticated):
            exc = self._costly(exc)
        return super().handle_exception(exc)

    def _costly(self, failure: APIException) -> APIException:
        throttle = AddressThrottle()
        try:
            is_allowed = throttle.allow_request(self.request, self)
        except APIException as outage:
            return outage
        return failure if is_allowed else Throttled(throttle.wait())


def _description(limit: AppliedLimit) -> dict[str, Any]:
    return {
        "policy": limit.policy,
        "limit": limit.rate.limit,
        "window": limit.rate.window,
        "remaining": limit.decision.remaining,
        "reset_after": limit.decision.reset_after,
    }


class ProbeView(APIView):
    """For load balancers: open, unlimited."""

    authentication_classes = []
    permission_classes = [AllowAny]
    throttle_classes = []


class LivezView(ProbeView):
    """The process answers."""

    def get(self, request: Request) -> Response:
        return Response({"status": "ok"}, headers=NO_STORE)


class ReadyzView(ProbeView):
    """The process answers, and so do its database and its store."""

    def get(self, request: Request) -> Response:
        down = [name for name, answers in PARTS.items() if not answers()]
        if not down:
            return Response({"status": "ok"} | dict.fromkeys(PARTS, "ok"), headers=NO_STORE)
        detail = f"No answer from the {' and the '.join(down)}."
        states = {name: "down" if name in down else "ok" for name in PARTS}
        return Response(
            problem(503, detail, **states),
            status=503,
            headers=NO_STORE | {"Retry-After": "1"},
            content_type=MEDIA_TYPE,
        )


@csrf_exempt
def metrics(request: HttpRequest) -> HttpResponse:
    from hello_project.metrics import metrics  # Here, since most processes never need it.

    return metrics(request)


def database_answers() -> bool:
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
    except DatabaseError:
        return False
    return True


def store_answers() -> bool:
    try:
        return bool(get_redis_connection("default").ping())
    except RedisError:
        return False


PARTS = {"database": database_answers, "store": store_answers}
