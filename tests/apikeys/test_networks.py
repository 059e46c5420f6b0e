"""The networks that a key may be used from."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Any

import pytest
from django.core.exceptions import ValidationError
from django.db import connection
from hypothesis import given, settings
from hypothesis import strategies as st
from pytest_django import DjangoAssertNumQueries, Settings
from rest_framework.test import APIClient

from apikeys import networks
from apikeys.authentication import KEY_ID
from apikeys.last_used import last_used
from apikeys.models import ApiKey
from apikeys.records import KeyRecord, _packed, _unpacked, load
from tests.apikeys.conftest import Issued
from tests.conftest import CommandsSent
from throttling.addresses import parse_networks

FORBIDDEN = {
    "title": "Forbidden",
    "status": 403,
    "detail": "This key may not be used from this network.",
}

without_deadline = settings(deadline=None, derandomize=True, database=None)


# Notation


@pytest.mark.parametrize(
    ("notation", "normal"),
    [
        ("", ""),
        (" ,\n, ", ""),
        ("10.0.0.0/8", "10.0.0.0/8"),
        ("203.0.113.7", "203.0.113.7/32"),
        ("2001:DB8:0::1", "2001:db8::1/128"),
        ("10.0.0.0/255.0.0.0", "10.0.0.0/8"),
        ("10.0.0.0/8,192.0.2.0/24", "10.0.0.0/8, 192.0.2.0/24"),
        ("10.0.0.0/8 192.0.2.0/24\r\n\t2001:db8::/32,", "10.0.0.0/8, 192.0.2.0/24, 2001:db8::/32"),
        ("192.0.2.1, 10.0.0.0/8 192.0.2.1/32", "192.0.2.1/32, 10.0.0.0/8"),
        ("0.0.0.0/0 ::/0", "0.0.0.0/0, ::/0"),
        ("::ffff:192.0.2.1", "192.0.2.1/32"),
        ("::ffff:10.0.0.0/104", "10.0.0.0/8"),
        ("::ffff:0:0/96", "0.0.0.0/0"),
    ],
)
def test_networks_are_kept_in_one_notation(notation: str, normal: str) -> None:
    assert networks.normalised(notation) == normal
    assert networks.normalised(normal) == normal


@pytest.mark.parametrize(
    "wrong",
    [
        *("office", "10.0.0.0/33", "10.0.0", "10.0.0.0/8/8", "010.0.0.1", "10.0.0.1:80", "1"),
        *("[2001:db8::1]", "2001:db8::/129", "fe80::1%eth0", "fe80::%eth0/64", "10.0.0.0-10.0.0.9"),
        *("10.*", "/8", "*", "\u0661\u0660.0.0.1", "10.0.0.0/\u0668", "10.0.0.1;10.0.0.2", "::1/"),
    ],
)
def test_what_is_no_network_is_named_with_what_to_write(wrong: str) -> None:
    with pytest.raises(ValueError, match="is not a network") as raised:
        networks.parse(f"192.0.2.0/24, {wrong} 10.0.0.0/8")
    assert str(raised.value) == (
        f"{wrong!r} is not a network: write an address or a CIDR,"
        " such as 203.0.113.7, 203.0.113.0/24 or 2001:db8::/32."
    )


@pytest.mark.parametrize(
    ("wrong", "network", "address"),
    [
        ("10.1.2.3/8", "10.0.0.0/8", "10.1.2.3"),
        ("192.0.2.129/255.255.255.128", "192.0.2.128/25", "192.0.2.129"),
        ("2001:db8::1/64", "2001:db8::/64", "2001:db8::1"),
        ("::ffff:10.1.2.3/104", "10.0.0.0/8", "10.1.2.3"),
    ],
)
def test_of_an_address_with_a_length_both_meanings_are_offered(
    wrong: str, network: str, address: str
) -> None:
    with pytest.raises(ValueError, match="is one address") as raised:
        networks.parse(f"192.0.2.0/24 {wrong}")
    assert str(raised.value) == (
        f"{wrong!r} is one address and the network around it: write {network} for the network,"
        f" or {address} for the address alone."
    )
    for offered in (network, address):
        assert len(networks.parse(offered)) == 1


def test_a_key_has_at_most_a_hundred_networks() -> None:
    hundred = " ".join(f"10.0.{number}.0/24" for number in range(100))
    assert len(networks.parse(hundred)) == 100
    with pytest.raises(ValueError, match=r"^101 networks are too many .* write at most 100\.$"):
        networks.parse(f"{hundred} 10.0.100.0/24")


ipv4 = st.ip_addresses(v=4)
ipv6 = st.ip_addresses(v=6)


def network_strategy(length: int) -> st.SearchStrategy[IPv4Network | IPv6Network]:
    addresses = ipv4 if length == 32 else ipv6
    return st.builds(
        lambda address, prefix: ip_network((address, prefix), strict=False),
        addresses,
        st.integers(0, length),
    )


some_networks = st.lists(network_strategy(32) | network_strategy(128), min_size=1, max_size=5)


@without_deadline
@given(some_networks, ipv4 | ipv6, st.data())
def test_an_address_is_contained_when_its_first_bits_are_a_networks(
    found: list[IPv4Network | IPv6Network], address: Any, data: st.DataObject
) -> None:
    """Beside a plain comparison of bits; half of the addresses are drawn from a network."""
    if data.draw(st.booleans()):
        chosen = data.draw(st.sampled_from(found))
        offset = data.draw(st.integers(0, chosen.num_addresses - 1))
        address = type(chosen.network_address)(int(chosen.network_address) + offset)
    bits = canonical_bits(address.packed)
    wanted = any(
        len(own := canonical_bits(each.network_address.packed)) == len(bits)
        and own[: kept_bits(each)] == bits[: kept_bits(each)]
        for each in found
    )
    assert networks.contain(" ".join(map(str, found)), str(address)) is wanted


def kept_bits(network: IPv4Network | IPv6Network) -> int:
    packed = network.network_address.packed
    return network.prefixlen - (96 if len(canonical_bits(packed)) < len(packed) * 8 else 0)


def canonical_bits(packed: bytes) -> str:
    mapped = len(packed) == 16 and packed[:12] == bytes(10) + b"\xff\xff"
    return "".join(f"{byte:08b}" for byte in (packed[12:] if mapped else packed))


@without_deadline
@given(st.text(), st.text())
def test_whatever_is_sent_or_stored_contain_does_not_raise(notation: str, address: str) -> None:
    networks.contain(notation, address)
    networks.contain("0.0.0.0/0 ::/0", address)


def test_a_peer_may_be_written_as_the_socket_gives_it() -> None:
    assert networks.contain("203.0.113.0/24", "::ffff:203.0.113.7")
    assert not networks.contain("::/0", "::ffff:203.0.113.7")
    assert networks.contain("fe80::/10", "fe80::1%eth0")


@pytest.mark.parametrize("address", ["unknown", "", "10.0.0.1:80", "localhost", "10.0.0.1, ::1"])
def test_what_is_no_address_is_in_no_network(address: str) -> None:
    assert not networks.contain("0.0.0.0/0 ::/0", address)


def test_networks_that_cannot_be_read_contain_nothing() -> None:
    assert not networks.contain("10.0.0.0/8 office", "10.0.0.1")


# Storage


def test_a_keys_networks_are_checked_and_normalised_when_it_is_issued(db: None) -> None:
    key, _ = ApiKey.objects.issue(name="tests", networks="192.0.2.1\n10.0.0.0/8")
    assert ApiKey.objects.get().networks == key.networks == "192.0.2.1/32, 10.0.0.0/8"
    with pytest.raises(ValidationError) as raised:
        ApiKey.objects.issue(name="tests", networks="office")
    assert list(raised.value.message_dict) == ["networks"]
    assert ApiKey.objects.count() == 1


def test_networks_are_normalised_whatever_way_they_are_written(db: None) -> None:
    key, _ = ApiKey.objects.issue(name="tests")
    key.networks = "192.0.2.1"
    key.save()
    assert ApiKey.objects.get().networks == "192.0.2.1/32"
    ApiKey.objects.update(networks="10.0.0.0/8,::1")
    assert ApiKey.objects.get().networks == "10.0.0.0/8, ::1/128"
    with pytest.raises(ValidationError):
        ApiKey.objects.update(networks="office")


def test_a_record_keeps_its_networks_and_takes_no_byte_for_none(db: None) -> None:
    records = [
        load(ApiKey.objects.issue(name="tests", networks=notation)[0].pk)
        for notation in ("", "10.0.0.0/8 ::1")
    ]
    for record in records:
        assert record is not None
        assert _unpacked(record.key_id, _packed(record)) == record
    without, with_networks = (_packed(record) for record in records if record)
    as_text = b"10.0.0.0/8, ::1/128"
    assert as_text in with_networks
    assert len(with_networks) - len(without) == len(as_text) + 2  # Its type and its length.


# Over HTTP

Get = Callable[..., Any]


@pytest.fixture
def get_from(api: APIClient, issued: Issued) -> Get:
    """GET with the key from this peer."""

    def get_from(peer: str, forwarded_for: str = "", path: str = "/") -> Any:
        headers = {"X-API-Key": issued[1]}
        if forwarded_for:
            headers["X-Forwarded-For"] = forwarded_for
        return api.get(path, headers=headers, REMOTE_ADDR=peer)

    return get_from


def restrict(issued: Issued, notation: str) -> None:
    issued[0].networks = notation
    issued[0].save()


@pytest.mark.parametrize(
    ("notation", "peer", "status"),
    [
        ("", "203.0.113.7", 200),
        ("203.0.113.0/24", "203.0.113.7", 200),
        ("203.0.113.0/24", "203.0.114.7", 403),
        ("203.0.113.7", "203.0.113.7", 200),
        ("203.0.113.7", "203.0.113.8", 403),
        ("203.0.113.7 198.51.100.0/24", "198.51.100.200", 200),
        ("203.0.113.0/24", "::ffff:203.0.113.7", 200),
        ("203.0.113.0/24", "::ffff:203.0.114.7", 403),
        ("::ffff:203.0.113.0/120", "203.0.113.7", 200),
        ("2001:db8::/32", "2001:db8:1:2::3", 200),
        ("2001:db8::/32", "2001:db9::1", 403),
        ("2001:db8::5", "2001:db8::6", 403),  # Of one /64, which is one client to the limiter.
        ("2001:db8::/32", "203.0.113.7", 403),
        ("0.0.0.0/0", "2001:db8::1", 403),
        ("::/0", "203.0.113.7", 403),
        ("0.0.0.0/0 ::/0", "", 403),  # The peer of a unix socket has no address.
        ("", "", 200),
    ],
)
def test_a_key_works_from_its_networks_only(
    issued: Issued, get_from: Get, notation: str, peer: str, status: int
) -> None:
    restrict(issued, notation)
    assert get_from(peer).status_code == status


@pytest.mark.parametrize(
    ("hops", "status"),
    [
        (("10.9.0.1", "203.0.113.7"), 200),
        (("10.9.0.1", "198.51.100.1"), 403),
        (("10.9.0.1", "198.51.100.1, 203.0.113.7"), 200),
        (("10.9.0.1", "203.0.113.7, 198.51.100.1"), 403),  # What stands further left anybody wrote.
        (("10.9.0.1", "203.0.113.7, 10.9.0.2"), 200),
        (("10.9.0.1", "[::ffff:203.0.113.7]:4711"), 200),
        (("10.9.0.1", ""), 403),
        (("10.9.0.1", "nonsense"), 403),
        (("198.51.100.1", "203.0.113.7"), 403),
        (("198.51.100.1", "203.0.113.7, 10.9.0.1"), 403),
        (("203.0.113.7", "198.51.100.1"), 200),
    ],
)
def test_only_a_trusted_proxy_says_from_which_network_a_key_is_used(
    issued: Issued, get_from: Get, settings: Settings, hops: tuple[str, str], status: int
) -> None:
    settings.TRUSTED_PROXIES = parse_networks("10.9.0.0/16")
    restrict(issued, "203.0.113.0/24")
    assert get_from(*hops).status_code == status


def test_changed_networks_count_from_the_next_request_on(issued: Issued, get_from: Get) -> None:
    assert get_from("203.0.113.7").status_code == 200
    restrict(issued, "198.51.100.0/24")
    assert get_from("203.0.113.7").status_code == 403
    restrict(issued, "198.51.100.0/24 203.0.113.0/24")
    assert get_from("203.0.113.7").status_code == 200


def test_a_refusal_says_why_and_is_no_use_of_the_key(
    issued: Issued, get_from: Get, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    restrict(issued, "203.0.113.0/24")
    answer = get_from("198.51.100.1")
    assert answer.status_code == 403
    assert answer.json() == FORBIDDEN
    assert answer["Content-Type"] == "application/problem+json"
    assert answer["Cache-Control"] == "no-store"
    assert "WWW-Authenticate" not in answer.headers
    assert answer.wsgi_request.META[KEY_ID] == issued[0].pk
    line = f"Refused key {issued[0].pk}: its networks do not have 198.51.100.1."
    assert line in caplog.messages
    assert issued[1] not in caplog.text
    last_used.flush()
    assert ApiKey.objects.get().last_used_at is None
    get_from("203.0.113.7")
    last_used.flush()
    assert ApiKey.objects.get().last_used_at is not None


def test_a_key_that_is_wrong_besides_is_refused_as_any_wrong_key(
    issued: Issued, get_from: Get
) -> None:
    restrict(issued, "203.0.113.0/24")
    issued[0].revoke()
    assert get_from("198.51.100.1").status_code == 401


def test_networks_that_were_spoiled_in_the_database_allow_nothing(
    issued: Issued, get_from: Get
) -> None:
    with connection.cursor() as cursor:
        cursor.execute("UPDATE apikeys_apikey SET networks = '203.0.113.0/24 office'")
    assert get_from("203.0.113.7").status_code == 403


def test_a_key_with_networks_costs_no_more_than_one_without(
    issued: Issued,
    get_from: Get,
    commands_sent: CommandsSent,
    django_assert_num_queries: DjangoAssertNumQueries,
) -> None:
    restrict(issued, "203.0.113.0/24")
    get_from("203.0.113.7")
    with commands_sent() as commands, django_assert_num_queries(0):
        assert get_from("203.0.113.7").status_code == 200
        assert get_from("198.51.100.1").status_code == 403
    assert [command.split()[0] for command in commands] == ["EVALSHA", "GET"] * 2


def by_a_header(meta: Mapping[str, Any]) -> str:
    return str(meta.get("HTTP_X_REAL_IP", "unknown"))


def test_another_project_says_itself_where_the_address_is_found(
    issued: Issued, api: APIClient, settings: Settings
) -> None:
    restrict(issued, "203.0.113.0/24")

    def status(peer: str, **headers: str) -> int:
        headers = {"X-API-Key": issued[1]} | headers
        return int(api.get("/", headers=headers, REMOTE_ADDR=peer).status_code)

    settings.API_KEY_CLIENT_ADDRESS = f"{__name__}.by_a_header"
    assert status("198.51.100.1", **{"X-Real-IP": "203.0.113.7"}) == 200
    assert status("203.0.113.7") == 403
    del settings.API_KEY_CLIENT_ADDRESS  # The socket's peer.
    assert status("198.51.100.2", **{"X-Real-IP": "203.0.113.7"}) == 403
    assert status("203.0.113.8") == 200


def test_the_record_tells_a_view_the_networks(issued: Issued) -> None:
    restrict(issued, "203.0.113.0/24")
    record = load(issued[0].pk)
    assert isinstance(record, KeyRecord)
    assert record.networks == "203.0.113.0/24"
