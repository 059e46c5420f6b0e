"""Prometheus metrics of all processes together, from what they have counted in the store.

A process writes what it has counted once a second (hello_project.traffic), so any of them can
answer for all. What only the answering process can know says so in its help.
"""

from __future__ import annotations

import hmac
import re
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import accumulate
from typing import Final

from django.conf import settings
from django.db import DatabaseError
from django.http import HttpRequest, HttpResponse
from django_redis import get_redis_connection
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector
from redis.exceptions import RedisError

from apikeys.models import ApiKey
from hello_project.outcomes import Outcome, refused_by
from hello_project.problems import NO_STORE, problem_response
from hello_project.traffic import EVER, LIMITER_IN_ALL, OUTCOMES_IN_ALL
from throttling.addresses import is_in
from throttling.clients import client_address
from throttling.measurements import (
    BOUNDS,
    FAILURES,
    MICROSECONDS,
    OPENINGS,
    WITHIN,
    WITHOUT_STORE,
)
from throttling.throttles import breaker

POLICIES: Final = ("ip", "key", "rate-limit")
STORE_SECONDS: Final = 1.0
BETWEEN_TRIES: Final = 0.1
_BEARER: Final = re.compile(r"bearer +(\S+)", re.IGNORECASE)


def metrics(request: HttpRequest) -> HttpResponse:
    """For METRICS_NETWORKS, and for whoever has METRICS_TOKEN."""
    if request.method not in ("GET", "HEAD"):
        return problem_response(405, "Metrics are read by GET.", {"Allow": "GET, HEAD"})
    if not _may_read(request):
        return _refusal()
    encode, content_type = choose_encoder(request.headers.get("Accept", ""))
    return HttpResponse(encode(_Fleet()), content_type=content_type, headers=NO_STORE)


def _may_read(request: HttpRequest) -> bool:
    return _has_token(request) or is_in(client_address(request.META), settings.METRICS_NETWORKS)


def _has_token(request: HttpRequest) -> bool:
    sent = _BEARER.fullmatch(request.headers.get("Authorization", ""))
    if not settings.METRICS_TOKEN or sent is None:
        return False
    return hmac.compare_digest(sent[1].encode(), settings.METRICS_TOKEN.encode())


def _refusal() -> HttpResponse:
    if settings.METRICS_TOKEN:
        challenge = {"WWW-Authenticate": 'Bearer realm="metrics"'}
        return problem_response(401, "The token for metrics is required.", challenge)
    return problem_response(
        403, "Metrics are for METRICS_NETWORKS, and for whoever has METRICS_TOKEN."
    )


class _Fleet(Collector):
    def collect(self) -> Iterator[Metric]:
        counted = _counted()
        yield GaugeMetricFamily(
            "hello_store_up",
            "Whether the store answered the process that answers this.",
            value=counted is not None,
        )
        if counted is not None:
            outcomes, limiter = counted
            yield _requests(outcomes)
            yield from _of_the_limiter(limiter)
        yield GaugeMetricFamily(
            "hello_limiter_breaker_open",
            "Whether the process that answers this decides without the store.",
            value=breaker.is_open,
        )
        keys = _keys_by_status()
        yield GaugeMetricFamily(
            "hello_database_up",
            "Whether the database answered the process that answers this.",
            value=keys is not None,
        )
        if keys is not None:
            family = GaugeMetricFamily("hello_api_keys", "API keys by status.", labels=["status"])
            for status, count in keys.items():
                family.add_metric([status], count)
            yield family


def _counted() -> tuple[Counter[str], Counter[str]] | None:
    """The counts of OUTCOMES_IN_ALL and LIMITER_IN_ALL; None without the store.

    Asked again for a second: the store's timeout is that of the requests, and nobody waits here.
    """
    connection = get_redis_connection("default")
    until = time.monotonic() + STORE_SECONDS
    while True:
        pipeline = connection.pipeline(transaction=False)
        for series in (OUTCOMES_IN_ALL, LIMITER_IN_ALL):
            pipeline.hgetall(series.key(EVER))
        try:
            outcomes, limiter = pipeline.execute()
        except RedisError:
            if time.monotonic() > until:
                return None
            time.sleep(BETWEEN_TRIES)
        else:
            return _numbers(outcomes), _numbers(limiter)


def _numbers(fields: Mapping[bytes, bytes]) -> Counter[str]:
    return Counter({name.decode(): int(count) for name, count in fields.items()})


def _requests(outcomes: Counter[str]) -> Metric:
    family = CounterMetricFamily(
        "hello_requests",
        "Requests to the API by what became of them, and the rate limit that refused them.",
        labels=["outcome", "policy"],
    )
    known = [*Outcome, *(refused_by(policy) for policy in POLICIES)]
    for outcome in dict.fromkeys([*known, *outcomes]):
        name, _, policy = outcome.partition(":")
        family.add_metric([name, policy], outcomes[outcome])
    return family


def _of_the_limiter(counts: Counter[str]) -> Iterator[Metric]:
    buckets = zip([*BOUNDS, "+Inf"], accumulate(counts[name] for name in WITHIN), strict=True)
    yield HistogramMetricFamily(
        "hello_limiter_script_duration_seconds",
        "Round trips to the store that ran the limiter's script, as the processes saw them.",
        buckets=[(str(bound), count) for bound, count in buckets],
        sum_value=counts[MICROSECONDS] / 1e6,
    )
    for name, text, count in (
        ("store_failures", "Questions that the store did not answer.", FAILURES),
        ("breaker_openings", "Times a process began to decide without the store.", OPENINGS),
        ("decisions_without_store", "Hits that were decided without the store.", WITHOUT_STORE),
    ):
        yield CounterMetricFamily(f"hello_limiter_{name}", text, value=counts[count])


def _keys_by_status() -> Mapping[str, int] | None:
    """None without the database."""
    try:
        counts: Mapping[str, int] = ApiKey.objects.count_by_status()
    except DatabaseError:
        return None
    return counts
