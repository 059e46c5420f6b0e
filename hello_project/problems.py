"""Errors as application/problem+json (RFC 9457), wherever they come from."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from functools import lru_cache
from http import HTTPStatus
from typing import Any, Final

from django.core.exceptions import RequestDataTooBig, SuspiciousOperation
from django.db import InterfaceError, OperationalError
from django.http import HttpRequest, HttpResponse, UnreadablePostError
from django.views import defaults
from django.views.csrf import csrf_failure as django_csrf_failure
from rest_framework import exceptions
from rest_framework.response import Response
from rest_framework.views import exception_handler as drf_exception_handler

from hello_project.parsers import BodyTooLarge
from throttling.headers import rate_limit_headers, retry_after
from throttling.throttles import APPLIED

logger = logging.getLogger(__name__)

MEDIA_TYPE: Final = "application/problem+json"
QUOTA_EXCEEDED: Final = "https://iana.org/assignments/http-problem-types#quota-exceeded"
NO_STORE: Final = {"Cache-Control": "no-store"}


def problem(status: int, detail: str, **members: Any) -> dict[str, Any]:
    """The body. Without a `type` of its own it is about:blank, and `title` the status's phrase."""
    return {"title": HTTPStatus(status).phrase, "status": status, "detail": detail} | members


def problem_response(
    status: int, detail: str, headers: Mapping[str, str] | None = None
) -> HttpResponse:
    """For where DRF is not at work."""
    return HttpResponse(
        json.dumps(problem(status, detail)),
        status=status,
        content_type=MEDIA_TYPE,
        headers=NO_STORE | dict(headers or {}),
    )


def exception_handler(exc: Exception, context: Mapping[str, Any]) -> Response | None:
    """DRF's EXCEPTION_HANDLER: its answer, in our shape. None leaves a crash to Django."""
    if isinstance(exc, OperationalError | InterfaceError):
        logger.error("The database does not answer: %s", exc)
        exc = _database_unavailable()
    elif isinstance(exc, RequestDataTooBig):
        exc = BodyTooLarge()
    elif isinstance(exc, SuspiciousOperation | UnreadablePostError):
        exc = exceptions.ParseError()
    response = drf_exception_handler(exc, dict(context))
    if response is None:
        return None
    if isinstance(exc, exceptions.Throttled):
        applied = context["request"].META.get(APPLIED, ())
        refused = [limit for limit in applied if not limit.decision.allowed]
        if refused:
            response["Retry-After"] = retry_after(refused[-1].decision)
        response.data = _quota_exceeded(
            response.headers.get("Retry-After", "1"), [limit.policy for limit in refused]
        )
    elif isinstance(exc, exceptions.NotAuthenticated | exceptions.AuthenticationFailed):
        response.data = problem(401, "A valid API key is required.")
    elif isinstance(exc, exceptions.ValidationError):
        response.data = problem(400, "The request is not valid.", errors=exc.detail)
    else:
        detail = getattr(exc, "detail", None) or response.data["detail"]
        response.data = problem(response.status_code, str(detail))
    response.content_type = MEDIA_TYPE
    for name, value in NO_STORE.items():
        response[name] = value
    return response


def quota_exceeded_response(request: HttpRequest) -> HttpResponse:
    """DRF's answer to a refusal, without its exception, its translation and its rendering."""
    applied = request.META[APPLIED]
    seconds = retry_after(applied[-1].decision)
    return HttpResponse(
        _quota_exceeded_body(seconds, applied[-1].policy),
        status=429,
        content_type=MEDIA_TYPE,
        headers=NO_STORE | {"Retry-After": seconds} | rate_limit_headers(applied),
    )


@lru_cache(maxsize=1024)
def _quota_exceeded_body(seconds: str, policy: str) -> bytes:
    return json.dumps(_quota_exceeded(seconds, [policy])).encode()


def _quota_exceeded(seconds: str, policies: Sequence[str]) -> dict[str, Any]:
    return problem(
        429,
        f"Rate limit exceeded. Try again in {seconds} {'second' if seconds == '1' else 'seconds'}.",
        type=QUOTA_EXCEEDED,
        title="Request cannot be satisfied as assigned quota has been exceeded",
        **{"violated-policies": policies},
    )


def _database_unavailable() -> exceptions.APIException:
    exc = exceptions.APIException("The database does not answer. Try again in a second.")
    exc.status_code = 503
    exc.wait = 1  # type: ignore[attr-defined]  # DRF makes it Retry-After.
    return exc


def is_for_people(request: HttpRequest) -> bool:
    """Whether the path belongs to the admin, where an error is a page."""
    return request.path_info == "/admin" or request.path_info.startswith("/admin/")


def bad_request(request: HttpRequest, exception: Exception) -> HttpResponse:
    if is_for_people(request):
        return defaults.bad_request(request, exception)
    return problem_response(
        400, "The request is malformed or names a host that is not served here."
    )


def permission_denied(request: HttpRequest, exception: Exception) -> HttpResponse:
    if is_for_people(request):
        return defaults.permission_denied(request, exception)
    return problem_response(403, "You may not do this.")


def not_found(request: HttpRequest, exception: Exception) -> HttpResponse:
    if is_for_people(request):
        return defaults.page_not_found(request, exception)
    return problem_response(404, "There is nothing at this path.")


def server_error(request: HttpRequest) -> HttpResponse:
    if is_for_people(request):
        return defaults.server_error(request)
    return problem_response(500, "Something went wrong here. It has been logged.")


def csrf_failure(request: HttpRequest, reason: str = "") -> HttpResponse:
    if is_for_people(request):
        return django_csrf_failure(request, reason)
    return problem_response(403, "The CSRF check failed.")
