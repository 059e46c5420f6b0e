from __future__ import annotations

import pytest
from django.test import override_settings

from throttling.addresses import UNKNOWN, parse_networks
from throttling.clients import client_address, client_identity, is_trusted_proxy

PROXY = "10.0.0.1"


def meta(peer: str, forwarded_for: str = "") -> dict[str, str]:
    return {"REMOTE_ADDR": peer} | (
        {"HTTP_X_FORWARDED_FOR": forwarded_for} if forwarded_for else {}
    )


def test_an_address_is_whole_and_an_identity_is_of_ipv6_the_64() -> None:
    asked = meta("2001:db8:1:2:3:4:5:6")
    assert client_address(asked) == "2001:db8:1:2:3:4:5:6"
    assert client_identity(asked) == "2001:db8:1:2::/64"
    assert client_address(meta("::ffff:192.0.2.1")) == client_identity(meta("192.0.2.1"))
    assert client_address({}) == client_identity({}) == UNKNOWN


def test_only_a_trusted_proxy_says_who_is_behind_it() -> None:
    with override_settings(TRUSTED_PROXIES=parse_networks("10.0.0.0/8, fd00::/8")):
        assert client_address(meta(PROXY, "192.0.2.9, 2001:db8::7, 10.2.3.4")) == "2001:db8::7"
        assert client_address(meta("192.0.2.1", "198.51.100.1")) == "192.0.2.1"
    assert client_address(meta(PROXY, "192.0.2.9")) == PROXY


@pytest.mark.parametrize(
    ("peer", "is_one"),
    [
        (PROXY, True),
        ("::ffff:10.0.0.1", True),
        ("fd00::1%eth0", True),
        ("192.0.2.1", False),
        ("", False),
        ("@", False),
    ],
)
def test_a_trusted_proxy_is_known_by_its_own_address(peer: str, is_one: bool) -> None:
    with override_settings(TRUSTED_PROXIES=parse_networks("10.0.0.0/8, fd00::/8")):
        assert is_trusted_proxy(meta(peer, PROXY)) is is_one
