from __future__ import annotations

import ipaddress
import random

import pytest

from throttling.addresses import UNKNOWN, client_identity, parse_networks

PROXIES = parse_networks("10.0.0.0/8, 2001:db8:ffff::/48")
CLIENT, PROXY = "203.0.113.7", "10.1.2.3"


@pytest.mark.parametrize("forwarded_for", ["198.51.100.1", "198.51.100.1, 10.0.0.1", "x", ""])
def test_an_untrusted_peer_is_itself_whatever_it_forwards(forwarded_for: str) -> None:
    assert client_identity(CLIENT, forwarded_for, PROXIES) == CLIENT
    assert client_identity(CLIENT, forwarded_for, ()) == CLIENT


@pytest.mark.parametrize(
    ("forwarded_for", "identity"),
    [
        (CLIENT, CLIENT),
        (f"198.51.100.9, {CLIENT}", CLIENT),
        (f"198.51.100.9, {CLIENT}, 10.9.9.9, 10.0.0.1", CLIENT),
        (f"10.5.5.5,{CLIENT} ,10.9.9.9", CLIENT),
        ("10.5.5.5, 10.9.9.9", "10.5.5.5"),
        ("", PROXY),
        ("unknown", PROXY),
        (f"{CLIENT}, unknown", PROXY),
        (f"{CLIENT}, _hidden, 10.9.9.9", "10.9.9.9"),
        (f"{CLIENT},", PROXY),
        (f"{CLIENT}:54321", CLIENT),
        (f"{CLIENT}:999999", PROXY),
        (f"{CLIENT}:", PROXY),
        ("203.0.113.007", PROXY),
        ("0x7f.1", PROXY),
        (f"::ffff:{CLIENT}", CLIENT),
        (f"[::ffff:{CLIENT}]:443", CLIENT),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("[2001:db8:1:2:ffff::1]:8080", "2001:db8:1:2::/64"),
        ("[2001:db8:1:2::1]", "2001:db8:1:2::/64"),
        ("[2001:db8:1:2::1", PROXY),
        ("[2001:db8:1:2::1]8080", PROXY),
        ("fe80::1%eth0", "fe80::/64"),
        (f"{CLIENT}, 2001:db8:ffff::1", CLIENT),
    ],
)
def test_behind_a_trusted_proxy_the_chain_is_walked_from_the_right(
    forwarded_for: str, identity: str
) -> None:
    assert client_identity(PROXY, forwarded_for, PROXIES) == identity


@pytest.mark.parametrize("peer", ["", "@", "/run/gunicorn.sock", "not an address"])
def test_peers_without_an_address_share_one_identity(peer: str) -> None:
    assert client_identity(peer, CLIENT, PROXIES) == UNKNOWN


def test_ipv6_clients_are_one_per_64_and_mapped_addresses_are_ipv4() -> None:
    assert client_identity("2001:db8::1", "", ()) == client_identity("2001:db8::2:3", "", ())
    assert client_identity("2001:db8::1", "", ()) != client_identity("2001:db8:0:1::1", "", ())
    assert client_identity("::ffff:203.0.113.7", "", ()) == CLIENT


def test_a_hundred_thousand_made_up_chains_never_raise_and_never_choose_the_identity() -> None:
    """Whatever a client puts in the header, its proxy appends the client's real address."""
    chance = random.Random(20_261_124)
    for _ in range(100_000):
        sent = made_up_header(chance)
        hops = [CLIENT] + [f"10.{chance.randrange(256)}.0.1"] * chance.randrange(3)
        assert client_identity(PROXY, ", ".join([sent, *hops]), PROXIES) == CLIENT
        assert client_identity(CLIENT, sent, PROXIES) == CLIENT


def test_whatever_the_chain_the_identity_is_a_hop_that_a_trusted_proxy_vouched_for() -> None:
    chance = random.Random(1)
    for _ in range(20_000):
        identity = client_identity(PROXY, made_up_header(chance), PROXIES)
        ipaddress.ip_network(identity)


def made_up_header(chance: random.Random) -> str:
    atoms = [
        *(
            "",
            " ",
            ",",
            ",,",
            ":",
            "[",
            "]",
            "%",
            "%eth0",
            "unknown",
            "_x",
            "::",
            "::1",
            "\x00",
            "é",
        ),
        *("127.0.0.1", "10.0.0.1", "198.51.100.1", "2001:db8::1", "::ffff:1.2.3.4", "[::1]:80"),
        *(
            "1.2.3.4:80",
            "256.1.1.1",
            "1.2.3",
            "0x1.2.3.4",
            "for=1.2.3.4",
            '"1.2.3.4"',
            "\t",
            "\u0661.1.1.1",
        ),
    ]
    parts = [
        chance.choice(atoms) if chance.random() < 0.8 else chr(chance.randrange(1, 0x2FF))
        for _ in range(chance.randrange(8))
    ]
    return chance.choice([", ", ",", ""]).join(parts)


def test_networks_are_read_from_a_list_and_a_bad_one_is_named() -> None:
    assert [str(network) for network in parse_networks("10.0.0.0/8, ::1,, 192.0.2.1")] == [
        "10.0.0.0/8",
        "::1/128",
        "192.0.2.1/32",
    ]
    with pytest.raises(ValueError, match="10\\.0\\.0\\.1/8"):
        parse_networks("::1, 10.0.0.1/8")
