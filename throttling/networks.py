"""Networks as operators write them, and the table that finds the one that decides on an address."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from ipaddress import IPv4Network, IPv6Network, ip_interface
from socket import AF_INET, AF_INET6, inet_pton
from typing import Final, Generic, TypeAlias, TypeVar

from throttling.addresses import Network

Value = TypeVar("Value")
Span: TypeAlias = tuple[int, int]
"""First and last address of a network, as numbers."""

_MAPPED: Final = IPv6Network("::ffff:0:0/96")
_BITS: Final[dict[int, int]] = {AF_INET: 32, AF_INET6: 128}


def parse_network(notation: str) -> Network:
    """A CIDR, or an address, which is a network of one. IPv4-mapped IPv6 is IPv4.

    Raises ValueError saying what to write.
    """
    text = notation.strip()
    try:
        interface = ip_interface(text)
    except ValueError:
        interface = None
    if interface is None or "%" in text:
        raise ValueError(
            f"{text!r} is not a network: write an address or a CIDR,"
            " such as 203.0.113.7, 203.0.113.0/24 or 2001:db8::/32."
        )
    network = _unmapped(interface.network)
    if interface.ip != interface.network.network_address:
        alone = _unmapped(type(interface.network)(interface.ip))
        raise ValueError(
            f"{text!r} is one address and the network around it: write {network} for the network,"
            f" or {alone.network_address} for the address alone."
        )
    return network


def containing(network: Network) -> list[str]:
    """Every network that contains this one, in canonical notation: itself first, widest last."""
    lengths = range(network.prefixlen, -1, -1)
    return [str(network.supernet(new_prefix=length)) for length in lengths]


def _unmapped(network: Network) -> Network:
    if isinstance(network, IPv6Network) and network.subnet_of(_MAPPED):
        return IPv4Network((network.network_address.packed[12:], network.prefixlen - 96))
    return network


class NetworkTable(Generic[Value]):
    """What is said of networks, by address: the longest prefix that contains it decides.

    The networks are flattened into ranges that touch and do not overlap, each known by its first
    address, so that finding one is a bisection, however many there are.
    """

    def __init__(self, entries: Iterable[tuple[str, Value]] = ()) -> None:
        """`entries` are networks in canonical notation, each once, and what is said of them."""
        spans: dict[int, list[tuple[Span, Value]]] = {AF_INET: [], AF_INET6: []}
        for network, value in entries:
            family = AF_INET6 if ":" in network else AF_INET
            spans[family].append((_span(family, network), value))
        self._ipv4 = _flattened(spans[AF_INET])
        self._ipv6 = _flattened(spans[AF_INET6])
        self.is_empty = not any(spans.values())

    def find(self, address: str) -> Value | None:
        """`address` is in canonical form; what is none, such as addresses.UNKNOWN, is nowhere."""
        family, (firsts, values) = (
            (AF_INET6, self._ipv6) if ":" in address else (AF_INET, self._ipv4)
        )
        try:
            number = int.from_bytes(inet_pton(family, address))
        except OSError:
            return None
        return values[bisect_right(firsts, number)]


def _span(family: int, network: str) -> Span:
    address, _, prefix = network.partition("/")
    first = int.from_bytes(inet_pton(family, address))
    return first, first | (1 << (_BITS[family] - int(prefix))) - 1


def _flattened(entries: list[tuple[Span, Value]]) -> tuple[list[int], list[Value | None]]:
    """Where each range begins, and what is said of the one before each beginning, and of the last.

    `values[bisect_right(firsts, address)]` is then what is said of an address.
    """
    firsts: list[int] = []
    values: list[Value | None] = [None]
    for first, value in _boundaries(sorted(entries, key=lambda entry: (entry[0][0], -entry[0][1]))):
        if firsts and firsts[-1] == first:
            values[-1] = value
        else:
            firsts.append(first)
            values.append(value)
    return firsts, values


def _boundaries(entries: list[tuple[Span, Value]]) -> Iterator[tuple[int, Value | None]]:
    """Of networks by their first address, wide before narrow: where what is said changes, in order.

    Of two at one address the later holds.
    """
    around: list[
        tuple[int, Value | None]
    ] = []  # Last address and value of those that are not over yet.
    for (first, last), value in entries:
        while around and around[-1][0] < first:
            yield _after(around)
        around.append((last, value))
        yield first, value
    while around:
        yield _after(around)


def _after(around: list[tuple[int, Value | None]]) -> tuple[int, Value | None]:
    last, _ = around.pop()
    return last + 1, around[-1][1] if around else None
