from __future__ import annotations

from typing import Any, Final

from django.db import DatabaseError, connection
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django_redis import get_redis_connection
from redis.exceptions import RedisError
from rest_framework.permissions import AllowAny
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.throttling import BaseThrottle
from rest_framework.views import APIView

from apikeys.authentication import KEY_ID
from hello_project.outcomes import Outcome, outcome_of
from hello_project.parsers import LengthRequired
from hello_project.problems import MEDIA_TYPE, NO_STORE, problem, quota_exceeded_response
from hello_project.traffic import traffic
from throttling.throttles import APPLIED
from throttling.views import RateLimitedView

METHODS_WITH_A_BODY: Final = ("POST", "PUT", "PATCH")


class ApiView(RateLimitedView):
    """What every view of the API derives from: limited by address, then authenticated, counted."""

    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        try:
            response = super().dispatch(request, *args, **kwargs)
        except Exception:  # DRF has no answer to it, and Django's will be a 500.
            _note(request, 500)
            raise
        _note(request, response.status_code)
        return response

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


def _note(request: HttpRequest, status: int) -> None:
    key_id = request.META.get(KEY_ID)
    if status < 400:
        traffic.note(Outcome.ADMITTED, key_id, None)
        return
    applied = request.META.get(APPLIED, ())
    refused = next((limit.policy for limit in applied if not limit.decision.allowed), None)
    client = next((limit.identifier for limit in applied if limit.policy == "ip"), None)
    traffic.note(outcome_of(status, key_id, refused), key_id, client)


class HelloView(ApiView):
    def get(self, request: Request) -> Response:
        return Response({"message": "Hello, World!"})


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
