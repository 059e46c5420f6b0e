from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from throttling.addresses import UNKNOWN, Address, Network
from throttling.networks import NetworkTable, containing, parse_network


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("203.0.113.7", "203.0.113.7/32"),
        (" 203.0.113.0/24 ", "203.0.113.0/24"),
        ("203.0.113.0/255.255.255.0", "203.0.113.0/24"),
        ("2001:DB8:0::/32", "2001:db8::/32"),
        ("2001:db8::1", "2001:db8::1/128"),
        ("::ffff:203.0.113.0/120", "203.0.113.0/24"),
        ("0.0.0.0/0", "0.0.0.0/0"),
        ("::/0", "::/0"),
    ],
)
def test_a_network_is_read_in_any_usual_notation(written: str, meant: str) -> None:
    assert str(parse_network(written)) == meant


@pytest.mark.parametrize(
    "written", ["", "somewhere", "203.0.113.0/33", "203.0.113", "fe80::1%eth0", "1.2.3.4, 5.6.7.8"]
)
def test_what_is_no_network_is_refused_with_examples(written: str) -> None:
    with pytest.raises(ValueError, match=r"is not a network: write an address or a CIDR"):
        parse_network(written)


@pytest.mark.parametrize(
    ("written", "network", "address"),
    [
        ("203.0.113.7/24", "203.0.113.0/24", "203.0.113.7"),
        ("2001:db8::7/32", "2001:db8::/32", "2001:db8::7"),
        ("::ffff:203.0.113.7/120", "203.0.113.0/24", "203.0.113.7"),
    ],
)
def test_an_address_with_a_prefix_is_answered_by_what_may_have_been_meant(
    written: str, network: str, address: str
) -> None:
    with pytest.raises(ValueError, match="is one address and the network around it") as refused:
        parse_network(written)
    assert f"write {network} for the network, or {address} for" in str(refused.value)


def test_the_networks_around_one_are_itself_and_wider_ones() -> None:
    around = containing(parse_network("203.0.113.7"))
    assert len(around) == 33
    assert (around[0], around[8], around[-1]) == ("203.0.113.7/32", "203.0.113.0/24", "0.0.0.0/0")
    assert len(containing(parse_network("2001:db8::1"))) == 129


def networks_of(family: type[IPv4Network] | type[IPv6Network]) -> st.SearchStrategy[Network]:
    """Few bits are set, at both ends, so that they nest and touch and reach the last address."""
    bits = 32 if family is IPv4Network else 128
    low = st.integers(0, 15)
    high = st.integers(0, 15).map(lambda number: number << (bits - 4))
    first = st.one_of(low, high, st.tuples(low, high).map(sum), st.just((1 << bits) - 1))
    return st.builds(
        lambda number, prefix: family((number, prefix), strict=False),
        first,
        st.one_of(st.integers(0, 6), st.integers(bits - 6, bits)),
    )


NETWORKS = st.lists(
    st.one_of(networks_of(IPv4Network), networks_of(IPv6Network)), max_size=12, unique=True
)


def longest_prefix(networks: list[Network], address: Address) -> str | None:
    around = [network for network in networks if address in network]
    return str(max(around, key=lambda network: network.prefixlen)) if around else None


@given(NETWORKS)
def test_the_longest_prefix_decides_up_to_the_ends_of_every_network(
    networks: list[Network],
) -> None:
    table = NetworkTable((str(network), str(network)) for network in networks)
    assert table.is_empty is (not networks)
    for address in {end for network in networks for end in ends_of(network)}:
        assert table.find(str(address)) == longest_prefix(networks, address), address


def ends_of(network: Network) -> list[Address]:
    """First and last address, and those next to them."""
    kind = type(network.network_address)
    first, last = int(network.network_address), int(network.broadcast_address)
    top = int(ip_address(kind(0)) + 0) + (1 << network.max_prefixlen) - 1
    numbers = {first - 1, first, first + 1, last - 1, last, last + 1}
    return [kind(number) for number in numbers if 0 <= number <= top]


def test_an_ipv4_rule_says_nothing_of_ipv6_nor_any_rule_of_no_address() -> None:
    table = NetworkTable([("0.0.0.0/0", "all of IPv4")])
    assert table.find("203.0.113.7") == "all of IPv4"
    assert table.find("2001:db8::1") is None
    assert table.find(UNKNOWN) is None
    assert NetworkTable([("::/0", "all of IPv6")]).find("::1") == "all of IPv6"


class Compared(int):
    """A number that counts how often it is compared."""

    count = 0

    def __lt__(self, other: int) -> bool:
        Compared.count += 1
        return int(self) < other

    def __gt__(self, other: int) -> bool:
        Compared.count += 1
        return int(self) > other


@pytest.mark.parametrize("rules", [10, 10_000])
def test_ten_thousand_rules_take_a_request_no_more_than_15_comparisons(rules: int) -> None:
    networks = [ip_network((number << 12, 24)) for number in range(rules)]
    table = NetworkTable((str(network), number) for number, network in enumerate(networks))
    firsts, values = table._ipv4
    assert len(firsts) == 2 * rules
    table._ipv4 = ([Compared(first) for first in firsts], values)
    Compared.count = 0
    assert table.find(str(networks[rules // 3][77])) == rules // 3
    assert 0 < Compared.count <= 15


def test_addresses_are_those_of_both_families() -> None:
    table = NetworkTable([("203.0.113.0/24", 4), ("2001:db8::/32", 6), ("2001:db8::7/128", 128)])
    assert table.find(str(IPv4Address("203.0.113.255"))) == 4
    assert table.find(str(IPv6Address("2001:db8::8"))) == 6
    assert table.find(str(IPv6Address("2001:db8::7"))) == 128
