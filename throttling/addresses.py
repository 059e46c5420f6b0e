"""Which address a request came from, when proxies stand in between.

Identity is the socket's peer unless that is a trusted proxy; then X-Forwarded-For is walked from
the right, over the trusted proxies, to the first address that is not one. A sender can write only
what stands further left, so it cannot choose its identity.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)
from socket import AF_INET, inet_pton

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

UNKNOWN = "unknown"
"""The identity of a peer without an address, such as a unix socket's: one for all of them."""


def parse_networks(text: str) -> tuple[Network, ...]:
    """Comma-separated addresses and CIDRs. Raises ValueError naming the one that is neither."""
    return tuple(ip_network(part.strip()) for part in text.split(",") if part.strip())


def client_identity(peer: str, forwarded_for: str, trusted_proxies: Sequence[Network]) -> str:
    """The identifier that a client is limited by: an IPv4 address, or an IPv6 /64.

    `peer` is the socket's address, `forwarded_for` the X-Forwarded-For header ("" when absent).
    Never raises: a malformed hop ends the walk at the last good one.
    """
    client = client_address(peer, forwarded_for, trusted_proxies)
    return _prefix(client) if ":" in client else client


def client_address(peer: str, forwarded_for: str, trusted_proxies: Sequence[Network]) -> str:
    """As `client_identity`, but of IPv6 the whole address."""
    client = _canonical(peer)
    if client is None:
        return UNKNOWN
    if forwarded_for and trusted_proxies:
        client = _walk(client, forwarded_for, trusted_proxies)
    return client


def is_in(address: str, networks: Sequence[Network]) -> bool:
    """Whether an address, in any form that proxies write it in, lies in one of the networks."""
    canonical = _canonical(address)
    return canonical is not None and _is_in(canonical, networks)


def _walk(client: str, forwarded_for: str, trusted_proxies: Sequence[Network]) -> str:
    hops = forwarded_for.split(",")
    while hops and _is_in(client, trusted_proxies):
        hop = _canonical(hops.pop())
        if hop is None:
            break
        client = hop
    return client


def _canonical(hop: str) -> str | None:
    """An address as proxies write it: bare, with a port, in brackets, mapped or with a zone.

    Not as an object of ipaddress, nor remembered: that would cost more than it takes to find out,
    and memory with every new client.
    """
    hop = hop.strip()
    if hop.startswith("["):
        hop, bracket, port = hop[1:].partition("]")
        if not bracket or (port and not _is_port(port)):
            return None
    elif hop.count(":") == 1:
        hop, _, port = hop.partition(":")
        if not _is_port(f":{port}"):
            return None
    try:
        inet_pton(AF_INET, hop)  # Takes the canonical form only.
    except (OSError, ValueError):
        return _canonical_ipv6(hop)
    return hop


def _canonical_ipv6(hop: str) -> str | None:
    try:
        address = IPv6Address(hop)
    except ValueError:
        return None
    # Without the zone, which the sender of a link-local packet could vary.
    return str(address.ipv4_mapped or IPv6Address(int(address)))


def _is_port(text: str) -> bool:
    return text[0] == ":" and text[1:].isascii() and text[1:].isdigit() and len(text) <= 6


def _is_in(client: str, networks: Sequence[Network]) -> bool:
    address = _address(client)
    return any(address in network for network in networks)


@lru_cache(maxsize=1024)
def _address(canonical: str) -> Address:
    """Of a hop that more hops came through, so of a proxy, mostly."""
    return ip_address(canonical)


def _prefix(client: str) -> str:
    return str(IPv6Network((client, 64), strict=False))
