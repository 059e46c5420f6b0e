"""The networks that a key may be used from, in the notation that people write them in."""

from __future__ import annotations

import re
from functools import lru_cache
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_interface,
)
from typing import Final

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

MOST_NETWORKS: Final = 100
"""Of one key: each is looked at in every request of that key."""

_SEPARATORS: Final = re.compile(r"[,\s]+")
_MAPPED: Final = IPv6Network("::ffff:0:0/96")


def parse(notation: str) -> tuple[Network, ...]:
    """CIDRs and addresses, separated by commas, spaces or newlines; each network once.

    IPv4-mapped IPv6 is IPv4. Raises ValueError naming the part that is wrong and what to write.
    """
    parts = [part for part in _SEPARATORS.split(notation) if part]
    if len(parts) > MOST_NETWORKS:
        raise ValueError(
            f"{len(parts)} networks are too many for one key: write at most {MOST_NETWORKS}."
        )
    return tuple(dict.fromkeys(map(_network, parts)))


def normalised(notation: str) -> str:
    """The same networks as CIDRs, separated by a comma and a space. Raises ValueError."""
    return ", ".join(map(str, parse(notation)))


def contain(notation: str, address: str) -> bool:
    """Whether the address lies in one of the networks.

    What is no address lies in none, and a notation that is wrong has none.
    """
    try:
        found = _canonical(ip_address(address))
    except ValueError:
        return False
    return any(found in network for network in _parsed(notation))


@lru_cache(maxsize=1024)
def _parsed(notation: str) -> tuple[Network, ...]:
    try:
        return parse(notation)
    except ValueError:
        return ()


def _network(part: str) -> Network:
    try:
        interface = ip_interface(part)
    except ValueError:
        interface = None
    if interface is None or "%" in part:
        raise ValueError(
            f"{part!r} is not a network: write an address or a CIDR,"
            " such as 203.0.113.7, 203.0.113.0/24 or 2001:db8::/32."
        )
    network = _canonical_network(interface.network)
    if interface.ip != interface.network.network_address:
        raise ValueError(
            f"{part!r} is one address and the network around it: write {network} for the network,"
            f" or {_canonical(interface.ip)} for the address alone."
        )
    return network


def _canonical_network(network: Network) -> Network:
    if isinstance(network, IPv6Network) and network.subnet_of(_MAPPED):
        return IPv4Network((network.network_address.packed[12:], network.prefixlen - 96))
    return network


def _canonical(address: Address) -> Address:
    if isinstance(address, IPv6Address):
        return address.ipv4_mapped or address
    return address
