"""What became of each request: counted for operators, and a line in the log.

The answer carries the request's id in X-Request-ID.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any, Final
from urllib.parse import quote

from django.conf import settings
from django.http import HttpRequest
from django.http.response import HttpResponseBase

from apikeys.authentication import KEY_ID
from hello_project import request_id
from hello_project.middleware import PROBES, is_verify
from hello_project.outcomes import outcome_of
from hello_project.problems import is_for_people
from hello_project.traffic import traffic
from hello_project.usage import usage
from throttling.clients import client_address, is_trusted_proxy
from throttling.headers import AppliedLimit
from throttling.throttles import APPLIED, AddressThrottle, KeyThrottle
from throttling.views import RateLimitedView

logger = logging.getLogger(__name__)

LONGEST_PATH: Final = 200
PATH_SAFE: Final = "/:@!$&'()*+,;=~"
SECRETS: Final = re.compile(r"(hk_(?:live|test)_[0-9A-Za-z]{12})_[0-9A-Za-z]+|(eyJ)[\w.-]+")
"""Keys and tokens, of which the log shows no more than the first group."""


class RequestLogMiddleware:
    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        begun = time.perf_counter()
        id_ = request_id.id_of(request.META)
        before = request_id.current.set(id_)
        try:
            response = self.get_response(request)
            outcome = _count(request, response.status_code)
            response.headers["X-Request-ID"] = id_
            level = logging.DEBUG if _is_probe(request, response.status_code) else logging.INFO
            if logger.isEnabledFor(level):
                fields = _fields(request, response.status_code, outcome)
                fields["duration_ms"] = round((time.perf_counter() - begun) * 1000, 1)
                logger.handle(_record(level, fields))
            return response
        finally:
            request_id.current.reset(before)


def _count(request: HttpRequest, status: int) -> str:
    """What became of it; counted when the API was asked."""
    meta = request.META
    key_id = meta.get(KEY_ID)
    applied = meta.get(APPLIED, ())
    refused = next((limit.policy for limit in applied if not limit.decision.allowed), None)
    outcome = outcome_of(status, key_id, refused)
    if _is_of_the_api(request, status):
        traffic.note(outcome, key_id, _limited_client(applied))
        usage.ensure_flushes()
    return outcome


def _limited_client(applied: Sequence[AppliedLimit]) -> str | None:
    """Of an exempt network nobody is: the first limit is then that of the key."""
    is_known = applied and applied[0].policy != KeyThrottle.scope
    return applied[0].identifier if is_known else None


def _is_of_the_api(request: HttpRequest, status: int) -> bool:
    """Of a path that leads nowhere too, unless it looks for a page or a file of one."""
    match = request.resolver_match
    if match is not None:
        return issubclass(getattr(match.func, "cls", object), RateLimitedView)
    is_of_a_page = is_for_people(request) or request.path.startswith(settings.STATIC_URL)
    return status >= 400 and not is_of_a_page


def _is_probe(request: HttpRequest, status: int) -> bool:
    """One that found all well: of these there may be several a second."""
    return status < 400 and request.path_info in PROBES


def _fields(request: HttpRequest, status: int, outcome: str) -> dict[str, Any]:
    meta = request.META
    fields = {
        "method": _loggable(request.method or "-"),
        "path": _loggable(request.path),
        "status": status,
        "outcome": outcome,
        "client": _client(meta),
    }
    if key_id := meta.get(KEY_ID):
        fields["key_id"] = key_id
    if is_verify(request) and is_trusted_proxy(meta):
        fields["asked_about"] = _asked_about(meta)
    return fields


def _client(meta: Mapping[str, Any]) -> str:
    """The address; who was limited by it is known, but of IPv6 that is not all of it."""
    applied = meta.get(APPLIED)
    if applied and applied[0].policy == AddressThrottle.scope and ":" not in applied[0].identifier:
        return str(applied[0].identifier)
    return client_address(meta)


def _asked_about(meta: Mapping[str, Any]) -> str:
    """Method and path of the request that a proxy asks about, as far as it says."""
    method = meta.get("HTTP_X_ORIGINAL_METHOD") or meta.get("HTTP_X_FORWARDED_METHOD") or "-"
    target = meta.get("HTTP_X_ORIGINAL_URI") or meta.get("HTTP_X_FORWARDED_URI") or "-"
    return f"{_loggable(method)} {_loggable(target.partition('?')[0])}"


@lru_cache(maxsize=1024)
def _loggable(text: str) -> str:
    """In one line, without a key."""
    quoted = quote(text[:LONGEST_PATH], safe=PATH_SAFE)
    return SECRETS.sub(r"\1\2…", quoted)


def _record(level: int, fields: Mapping[str, Any]) -> logging.LogRecord:
    """Without what `logger.log` finds out of the caller, for twice the time."""
    record = logging.getLogRecordFactory()(logger.name, level, "", 0, _line(fields), None, None)
    record.__dict__.update(fields)
    return record


def _line(fields: Mapping[str, Any]) -> str:
    """The same as `fields`, for people."""
    words = [fields["method"], fields["path"], str(fields["status"]), fields["outcome"]]
    words.append(f"client={fields['client']}")
    words += [f"{name}={fields[name]}" for name in ("key_id",) if name in fields]
    if "asked_about" in fields:
        words.append(f"asked_about={fields['asked_about']!r}")
    words.append(f"{fields['duration_ms']}ms")
    return " ".join(words)
