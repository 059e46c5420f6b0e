"""Whose request it is, by the address that it came from and this project's TRUSTED_PROXIES."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.conf import settings

from throttling import addresses
from throttling.addresses import Network


def client_address(meta: Mapping[str, Any]) -> str:
    """The client's own address, in canonical form; addresses.UNKNOWN when it has none."""
    return addresses.client_address(*_hops(meta))


def client_identity(meta: Mapping[str, Any]) -> str:
    """What the client is limited by: its address, of IPv6 the /64."""
    return addresses.client_identity(*_hops(meta))


def is_trusted_proxy(meta: Mapping[str, Any]) -> bool:
    """Whether the socket's peer is one whose word counts."""
    return addresses.is_in(meta.get("REMOTE_ADDR", ""), _trusted_proxies())


def _hops(meta: Mapping[str, Any]) -> tuple[str, str, tuple[Network, ...]]:
    return meta.get("REMOTE_ADDR", ""), meta.get("HTTP_X_FORWARDED_FOR", ""), _trusted_proxies()


def _trusted_proxies() -> tuple[Network, ...]:
    return getattr(settings, "TRUSTED_PROXIES", ())
