"""What an admitted request costs in the process that answers it, and which part costs how much.

Processor time, user and system, of one process that calls the WSGI application in a loop, without
a server: of the whole, and of the same with one part left out or put in another way. The cases take
turns; the figures are medians over the rounds.

    python benchmarks/parts.py

Runs on a store and an SQLite of its own.
"""

from __future__ import annotations

import argparse
import io
import logging
import os
import secrets
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Any, Final
from unittest.mock import patch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from hello_project.embedded import EmbeddedStore

REQUESTS_A_ROUND: Final = 200
GREETING: Final = b'{"message":"Hello, World!"}'

Patches = Iterable[AbstractContextManager[Any]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=50)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory(prefix="parts-") as folder:
        os.environ.update(_settings(Path(folder)))
        store = EmbeddedStore(Path(folder))
        store.start()
        try:
            _print(_measure(_cases(), rounds))
            _write_what_was_gathered()
        finally:
            store.stop()


def _write_what_was_gathered() -> None:
    from apikeys.last_used import last_used
    from hello_project.traffic import traffic

    traffic.stop()
    last_used.stop()


def _settings(folder: Path) -> dict[str, str]:
    return {
        "DJANGO_SETTINGS_MODULE": "hello_project.settings",
        "SECRET_KEY": secrets.token_urlsafe(50),
        "DATA_DIR": str(folder),
        "DATABASE_URL": f"sqlite:///{folder / 'db.sqlite3'}",
        "REDIS_URL": "",
        "IP_RATE_LIMIT": "100000/1s",
        "TRUSTED_PROXIES": "127.0.0.1/32",
        "HTTPS": "off",
        "REQUEST_LOG": "off",
    }


def _cases() -> dict[str, tuple[Callable[[], None], Patches]]:
    """By name: what is called, and what is left out of it."""
    from hello_project.wsgi import application

    request = _request_maker(application)
    request()  # The key's record is kept, the script stored.
    return {
        "an admitted request": (request, []),
        "without the round trip": (request, [_no_round_trip()]),
        "without authentication": (request, [_no_authentication()]),
        "without the RateLimit headers": (request, [_no_headers()]),
        "without the counts for operators": (request, [_no_counts()]),
        "without what DRF does from `dispatch` on": (request, [_no_drf()]),
        "with only the middlewares and the view's start": (request, [_no_drf(), _no_limit()]),
        "with DRF's content negotiation": (request, [_drf_negotiation()]),
        "with redis-py's pipeline for the round trip": (request, [_pipeline()]),
        "with a line logged for it": (request, _a_line()),
        "a refused request": (request, [_refused()]),
        "a refused request, answered by DRF": (request, [_refused(), _refused_by_drf()]),
    }


def _request_maker(application: Any) -> Callable[[], None]:
    from django.core.management import call_command

    from apikeys.models import ApiKey

    call_command("migrate", verbosity=0)
    _, plaintext = ApiKey.objects.issue(name="parts")
    environ = {
        "REQUEST_METHOD": "GET",
        "PATH_INFO": "/",
        "SCRIPT_NAME": "",
        "QUERY_STRING": "",
        "SERVER_NAME": "localhost",
        "SERVER_PORT": "80",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": "127.0.0.1",
        "HTTP_HOST": "localhost",
        "HTTP_X_API_KEY": plaintext,
        "HTTP_X_FORWARDED_FOR": "198.51.100.7",
        "wsgi.input": io.BytesIO(),
        "wsgi.errors": sys.stderr,
        "wsgi.url_scheme": "http",
    }

    def request() -> None:
        response = application(dict(environ), lambda *_: None)
        for _ in response:
            pass
        response.close()

    return request


def _no_round_trip() -> AbstractContextManager[Any]:
    from throttling.round_trips import RoundTrips

    real = RoundTrips.__call__
    kept: list[list[Any]] = []

    def once(self: RoundTrips, commands: bytes, replies: int) -> list[Any]:
        if not kept:
            kept.append(real(self, commands, replies))
        return list(kept[0])

    return patch.object(RoundTrips, "__call__", once)


def _pipeline() -> AbstractContextManager[Any]:
    from django_redis import get_redis_connection

    from throttling import limiter
    from throttling.round_trips import RoundTrips

    counter = limiter.SlidingWindowCounter(limiter.RateLimit.parse("100000/1s"))
    key, packed = (part for part in counter._arguments("ip:198.51.100.7", 1))

    def by_pipeline(self: RoundTrips, commands: bytes, replies: int) -> list[Any]:
        pipeline = get_redis_connection("default").pipeline(transaction=False)
        pipeline.execute_command("EVALSHA", limiter.SCRIPT_SHA, 1, key, packed, NEVER_DECODE=True)
        pipeline.get("apikeys:generation")
        return list(pipeline.execute(raise_on_error=False))

    return patch.object(RoundTrips, "__call__", by_pipeline)


def _no_authentication() -> AbstractContextManager[Any]:
    from apikeys.authentication import ApiKeyAuthentication

    real = ApiKeyAuthentication.authenticate
    kept: list[Any] = []

    def once(self: ApiKeyAuthentication, request: Any) -> Any:
        if not kept:
            kept.append(real(self, request))
        return kept[0]

    return patch.object(ApiKeyAuthentication, "authenticate", once)


def _no_headers() -> AbstractContextManager[Any]:
    from throttling import views

    return patch.object(views, "rate_limit_headers", lambda applied: {})


def _no_counts() -> AbstractContextManager[Any]:
    from hello_project.traffic import Traffic

    return patch.object(Traffic, "note", lambda *_: None)


def _a_line() -> Patches:
    """Written to nowhere, which takes a system call all the same."""
    from hello_project.request_log import logger

    [handler] = logging.getLogger().handlers
    nowhere = Path(os.devnull).open("w")  # noqa: SIM115 - until the end
    enabled = patch.object(logger, "isEnabledFor", lambda level: level >= logging.INFO)
    return [enabled, patch.object(handler, "stream", nowhere)]


def _no_drf() -> AbstractContextManager[Any]:
    from django.http import HttpResponse
    from rest_framework.views import APIView

    def greet(*_: Any, **__: Any) -> HttpResponse:
        return HttpResponse(GREETING, content_type="application/json")

    return patch.object(APIView, "dispatch", greet)


def _no_limit() -> AbstractContextManager[Any]:
    from throttling import views

    return patch.object(views.RateLimitedView, "get_throttles", lambda self: [])


def _drf_negotiation() -> AbstractContextManager[Any]:
    from rest_framework.negotiation import DefaultContentNegotiation

    from hello_project.views import HelloView

    return patch.object(HelloView, "content_negotiation_class", DefaultContentNegotiation)


def _refused() -> AbstractContextManager[Any]:
    from throttling.limiter import Decision
    from throttling.refusals import refusals

    refusal = Decision(allowed=False, remaining=0, retry_after=9.0, reset_after=9.0)
    return patch.object(refusals, "recall", lambda key, now: refusal)


def _refused_by_drf() -> AbstractContextManager[Any]:
    from hello_project.views import HelloView
    from throttling.views import RateLimitedView

    return patch.object(HelloView, "refuse", RateLimitedView.refuse)


def _measure(
    cases: dict[str, tuple[Callable[[], None], Patches]], rounds: int
) -> dict[str, list[float]]:
    """Microseconds a request, of each round."""
    taken: dict[str, list[float]] = {name: [] for name in cases}
    for _ in range(rounds):
        for name, (request, patches) in cases.items():
            with ExitStack() as left_out:
                for one in patches:
                    left_out.enter_context(one)
                request()
                start = time.process_time()
                for _ in range(REQUESTS_A_ROUND):
                    request()
                taken[name].append((time.process_time() - start) / REQUESTS_A_ROUND * 1e6)
    return taken


def _print(taken: dict[str, list[float]]) -> None:
    whole = statistics.median(next(iter(taken.values())))
    print(f"{'microseconds of processor time':50}{'':>8}{'to the first':>14}")
    for name, times in taken.items():
        median = statistics.median(times)
        print(f"{name:50}{median:8.0f}{median - whole:+14.0f}")


if __name__ == "__main__":
    main()
