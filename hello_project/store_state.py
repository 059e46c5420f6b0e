"""The state of the store, as the process that answers sees it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.conf import settings
from django_redis import get_redis_connection
from redis.exceptions import RedisError

from throttling.throttles import breaker


@dataclass(frozen=True, slots=True)
class StoreState:
    arrangement: str
    """How it is set up: embedded, a single server, Sentinel, Cluster."""
    version: str
    """With the product's name; empty when the store does not answer."""
    memory: int
    """Bytes that the store uses; of a cluster, all its nodes together."""
    opened_at: datetime | None
    """Since when the breaker of this process is open; None: it is closed."""

    @property
    def answers(self) -> bool:
        return bool(self.version)


def read(*, ask: bool = True) -> StoreState:
    """One round trip; none without `ask`, for who knows that the store does not answer."""
    nodes: list[Mapping[str, Any]] = []
    if ask:
        try:
            nodes = _nodes(get_redis_connection("default").info())
        except RedisError:
            nodes = []
    return StoreState(
        arrangement=arrangement_of(settings.REDIS_URL, embedded=settings.STORE_IS_EMBEDDED),
        version=_version(nodes[0]) if nodes else "",
        memory=sum(int(node.get("used_memory", 0)) for node in nodes),
        opened_at=breaker.opened_at,
    )


def arrangement_of(url: str, *, embedded: bool) -> str:
    """By REDIS_URL, which says which."""
    scheme = url.partition("://")[0]
    if "sentinel" in scheme:
        return "Sentinel"
    if "cluster" in scheme:
        return "Cluster"
    return "embedded" if embedded else "single server"


def _nodes(answer: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """A cluster's client answers by node."""
    by_node: list[Mapping[str, Any]] = [
        value for value in answer.values() if isinstance(value, dict) and len(value) > 20
    ]
    return by_node or [answer]


def _version(node: Mapping[str, Any]) -> str:
    if "valkey_version" in node:
        return f"Valkey {node['valkey_version']}"
    return f"Redis {node.get('redis_version', '')}".strip()
