"""Forward authentication as clients and services meet it, through each of the proxies."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path
from threading import Barrier
from urllib.parse import unquote

import pytest
from django.core.management import call_command

from apikeys.models import ApiKey
from hello_project import children
from tests import servers
from tests.deploy import proxies
from tests.deploy.proxies import Answer, Proxy, Service
from tests.servers import Server

BEARER, API_KEY, X_API_KEY = "Bearer", "Api-Key", "X-API-Key"
PROBLEM = "application/problem+json"
MIB = 1024 * 1024


@pytest.mark.parametrize("kind", proxies.KINDS)
def test_the_proxy_itself_finds_no_fault_with_its_file(kind: str, tmp_path: Path) -> None:
    checked = proxies.check(kind, tmp_path / "proxy")
    assert checked.returncode == 0, checked.stderr
    assert "warn" not in checked.stderr.lower().replace("warning: no configured limit", "")


def test_three_requests_pass_and_the_fourth_is_refused_as_by_the_site(
    proxy: Proxy, site: Server, service: Service, issued: tuple[ApiKey, str]
) -> None:
    answers = [proxy.ask("/", credential(issued[1])) for _ in range(4)]
    assert [answer.status for answer in answers] == [200, 200, 200, 429]
    for left, answer in zip((2, 1, 0), answers[:3], strict=True):
        assert answer["RateLimit-Policy"] == ['"ip";q=3;w=10']
        assert answer["RateLimit"][0].startswith(f'"ip";r={left};t=')
    assert len(service.received) == 3
    refused = answers[3]
    wait = int(refused["Retry-After"][0])
    assert 8 <= wait <= 11
    assert refused["RateLimit-Policy"] == ['"ip";q=3;w=10']
    assert refused["RateLimit"][0].startswith('"ip";r=0;t=')
    body = problem(refused)
    assert body["detail"] == f"Rate limit exceeded. Try again in {wait} seconds."
    assert body["violated-policies"] == ["ip"]
    assert body["type"] == "https://iana.org/assignments/http-problem-types#quota-exceeded"
    straight = straight_from(site, issued[1])
    assert body.keys() == straight.keys()
    assert body["title"] == straight["title"]


def test_the_service_learns_whose_request_it_is_and_never_the_key(
    proxy: Proxy, issued: tuple[ApiKey, str]
) -> None:
    for way in (BEARER, API_KEY, X_API_KEY):
        received = proxy.ask("/a/path?a=query", credential(issued[1], way)).received
        assert received.line == "GET /a/path?a=query HTTP/1.1"
        assert received.variable("X-Api-Key-Id") == [issued[0].pk]
        assert received.variable("X-Api-Key-Name") == ["tests"]
        assert received["Authorization"] == received["X-API-Key"] == []
        assert issued[1] not in str(received)


def test_the_service_and_the_sites_log_know_the_request_by_the_same_id(
    proxy: Proxy, site: Server, issued: tuple[ApiKey, str]
) -> None:
    claim = ("X-Request-ID", "the-clients-own")
    asked = [proxy.ask("/", credential(issued[1]), claim).received for _ in range(2)]
    ids = [received["X-Request-ID"] for received in asked]
    assert [len(each) for each in ids] == [1, 1]
    assert ids[0] != ids[1]
    for [request_id] in ids:
        assert f" [{request_id}] GET /verify" in site.log.read_text()
        assert request_id not in claim


def test_a_name_that_is_no_plain_ascii_arrives_encoded(proxy: Proxy) -> None:
    name = "Zoë {env.HOME} {http.vars.key_id} $host %REQ(HOST)% 100 %"
    key, plaintext = ApiKey.objects.issue(name=name)
    received = proxy.ask("/", credential(plaintext)).received
    [sent] = received.variable("X-Api-Key-Name")
    assert sent.isascii()
    assert unquote(sent) == name
    assert received.variable("X-Api-Key-Id") == [key.pk]


def test_a_client_cannot_say_whose_request_it_is(proxy: Proxy, issued: tuple[ApiKey, str]) -> None:
    ids = ["X-Api-Key-Id", "x-api-key-id", "X-API-KEY-ID", "X_Api_Key_Id", "X-Api_Key-Id"]
    for number, name in enumerate([*ids, "x-api-key_id"]):
        spoofed = [(each, f"of-another {each}") for each in (name, name, *ids)]
        spoofed += [(each.lower().replace("id", "name"), value) for each, value in spoofed]
        client = f"127.0.0.{number + 2}"
        received = proxy.ask("/", credential(issued[1]), *spoofed, client=client).received
        assert received.variable("X-Api-Key-Id") == [issued[0].pk]
        assert received.variable("X-Api-Key-Name") == ["tests"]


def test_a_client_cannot_have_it_taken_away_whose_request_it_is(
    proxy: Proxy, service: Service, issued: tuple[ApiKey, str]
) -> None:
    """By naming the field in Connection. Envoy answers 400, which is as good."""
    for number, name in enumerate(["X-Api-Key-Id", "X-Api-Key-Name", "X-Forwarded-For"]):
        fields = credential(issued[1]), ("Connection", f"close, {name}")
        client = f"127.0.0.{number + 2}"
        statuses = [proxy.ask("/", *fields, client=client).status for _ in range(4)]
        assert statuses in ([200, 200, 200, 429], [400] * 4)
    for received in service.received:
        assert received.variable("X-Api-Key-Id") == [issued[0].pk]
        assert received.variable("X-Api-Key-Name") == ["tests"]


def test_a_request_without_a_good_key_is_refused(
    proxy: Proxy, service: Service, issued: tuple[ApiKey, str]
) -> None:
    without = proxy.ask("/", client="127.0.0.2")
    assert without.status == 401
    assert without["WWW-Authenticate"] == ['Bearer realm="api"']
    assert without["RateLimit"]
    problem(without)
    wrong = ApiKey(name="never saved").make_secret()
    for way in (BEARER, API_KEY, X_API_KEY):
        answer = proxy.ask("/", credential(wrong, way), client="127.0.0.3")
        assert answer.status == 401
        assert answer["WWW-Authenticate"] == ['Bearer realm="api", error="invalid_token"']
        problem(answer)
    two = proxy.ask("/", credential(issued[1]), credential(wrong, X_API_KEY), client="127.0.0.4")
    assert two.status == 400
    problem(two)
    assert service.received == []


def test_a_key_from_a_network_that_it_does_not_allow_is_refused(
    proxy: Proxy, service: Service
) -> None:
    _, plaintext = ApiKey.objects.issue(name="tests", networks="127.0.0.3")
    refused = proxy.ask("/", credential(plaintext), ("X-Forwarded-For", "127.0.0.3"))
    assert refused.status == 403
    problem(refused)
    assert service.received == []
    assert proxy.ask("/", credential(plaintext), client="127.0.0.3").status == 200


def test_a_key_over_its_own_limit_is_refused_for_that(proxy: Proxy, service: Service) -> None:
    _, plaintext = ApiKey.objects.issue(name="tests", rate="1/10s")
    admitted, refused = (proxy.ask("/", credential(plaintext)) for _ in range(2))
    assert admitted.status == 200
    assert admitted["RateLimit-Policy"] == ['"ip";q=3;w=10, "key";q=1;w=10']
    assert refused.status == 429
    assert problem(refused)["violated-policies"] == ["key"]
    assert len(service.received) == 1


def test_a_revoked_key_is_refused_from_the_next_request_on(
    proxy: Proxy, issued: tuple[ApiKey, str]
) -> None:
    assert proxy.ask("/", credential(issued[1])).status == 200
    call_command("revoke_key", issued[0].pk)
    assert proxy.ask("/", credential(issued[1])).status == 401


def test_a_client_cannot_choose_its_address(
    proxy: Proxy, service: Service, issued: tuple[ApiKey, str]
) -> None:
    """Not even one at an address that the site trusts: here 127.0.0.1."""
    for client in ("127.0.0.2", "127.0.0.1"):
        spoofed = [("X-Forwarded-For", f"198.51.100.{number}") for number in range(4)]
        answers = [
            proxy.ask("/", credential(issued[1]), each, client=client).status for each in spoofed
        ]
        assert answers == [200, 200, 200, 429]
    assert proxy.ask("/", credential(issued[1]), client="127.0.0.3").status == 200
    assert service.received[0]["X-Forwarded-For"] == ["127.0.0.2"]


def test_of_60_simultaneous_requests_exactly_3_reach_the_service(
    proxy: Proxy, service: Service, issued: tuple[ApiKey, str]
) -> None:
    together = Barrier(60)

    def ask() -> int:
        together.wait()
        return proxy.ask("/", credential(issued[1])).status

    with ThreadPoolExecutor(60) as executor:
        statuses = [each.result() for each in [executor.submit(ask) for _ in range(60)]]
    assert sorted(statuses) == [200] * 3 + [429] * 57
    assert len(service.received) == 3


def test_a_body_arrives_whole_and_the_site_gets_none_of_it(
    open_proxy: Proxy, yes_site: Service, service: Service
) -> None:
    body = bytes(range(256)) * (3 * MIB // 256)
    whole = open_proxy.ask("/upload", method="POST", body=body)
    assert whole.received.body == body
    in_chunks = open_proxy.ask("/upload", method="PUT", body=iter([body[:MIB], body[MIB:]]))
    assert in_chunks.received.body == body
    assert [received.body for received in service.received] == [b"[3145728]"] * 2
    assert [received.body for received in yes_site.received] == [b"[0]"] * 2
    assert not any(received["Transfer-Encoding"] for received in yes_site.received)


def test_a_refused_body_is_not_waited_for(proxy: Proxy, service: Service) -> None:
    assert proxy.ask("/upload", method="POST", body=bytes(3 * MIB)).status == 401
    assert service.received == []


def test_the_site_is_asked_with_little_more_than_the_credentials(
    open_proxy: Proxy, yes_site: Service
) -> None:
    forged = [("X-Original-URI", "/forged"), ("X-Original-Method", "FORGED")]
    forged += [("X-Forwarded-Uri", "/forged"), ("X-Forwarded-Method", "FORGED")]
    keys = [credential("one"), credential("another", X_API_KEY)]
    open_proxy.ask("/a?b=c", *keys, ("Cookie", "a=session"), *forged, method="DELETE")
    [asked] = yes_site.received
    assert asked.line.split()[1].startswith("/verify")
    assert asked["Authorization"] == ["Bearer one"]
    assert asked["X-API-Key"] == ["another"]
    assert asked["X-Forwarded-For"] == ["127.0.0.2"]
    assert asked["Cookie"] == []
    assert "forged" not in str(asked).lower()
    told = f"{asked.line} {asked['X-Original-Method']} {asked['X-Forwarded-Method']} {asked.fields}"
    assert "DELETE" in told
    assert "/a" in told


def test_a_long_address_is_no_reason_to_refuse(
    proxy: Proxy, issued: tuple[ApiKey, str], request: pytest.FixtureRequest
) -> None:
    """Envoy asks with the whole address, of which the site takes 4 KB."""
    length = 3_900 if "envoy" in request.node.name else 7_000
    long = f"/?{'q' * length}"
    assert proxy.ask(long, credential(issued[1])).received.line == f"GET {long} HTTP/1.1"


def test_what_the_service_answers_passes_untouched(open_proxy: Proxy) -> None:
    for status in (201, 400, 401, 403, 404, 429, 500, 502, 503):
        answer = open_proxy.ask(f"/status/{status}")
        assert answer.status == status
        assert answer["WWW-Authenticate"] == ['Basic realm="upstream"']
        assert answer["Retry-After"] == ["99"]
        assert answer["Cache-Control"] == []
        assert answer.received.line == f"GET /status/{status} HTTP/1.1"


def test_verify_itself_is_out_of_reach(
    open_proxy: Proxy, yes_site: Service, service: Service
) -> None:
    for path in ("/verify", "/verify/", "/verify/x", "/_verify", "/_verify/"):
        before = len(yes_site.received)
        answer = open_proxy.ask(path)
        assert answer.status == 404 or answer.received.line == f"GET {path} HTTP/1.1"
        assert len(yes_site.received) - before <= 1
    assert len(service.received) >= 4


def test_while_the_site_is_gone_nothing_passes_and_then_all_is_well_again(
    proxy: Proxy,
    site: Server,
    site_again: Callable[[], AbstractContextManager[Server]],
    service: Service,
    issued: tuple[ApiKey, str],
) -> None:
    assert proxy.ask("/", credential(issued[1])).status == 200
    children.stop(site.process, 10)
    for _ in range(5):
        closed(proxy.ask("/", credential(issued[1])))
    assert len(service.received) == 1
    with site_again():
        assert proxy.ask("/", credential(issued[1]), client="127.0.0.3").status == 200


@pytest.mark.parametrize("status", [302, 404, 500, 502])
def test_an_answer_that_the_site_never_gives_lets_nothing_pass(
    proxy_before: Callable[[int], Proxy], service: Service, tmp_path: Path, status: int
) -> None:
    with proxies.service(tmp_path, status) as strange:
        answer = proxy_before(strange.port).ask("/")
    if answer.status != status or status >= 500:  # Envoy hands on what is no 5xx.
        closed(answer)
    assert service.received == []


@pytest.fixture
def silent_site() -> Iterator[int]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


def test_a_site_that_does_not_answer_is_not_waited_for(
    proxy_before: Callable[[int], Proxy], silent_site: int, service: Service
) -> None:
    proxy = proxy_before(silent_site)
    asked_at = time.monotonic()
    closed(proxy.ask("/"))
    assert 1.9 < time.monotonic() - asked_at < 3
    assert service.received == []


def test_the_access_log_has_no_key_and_no_query(proxy: Proxy, issued: tuple[ApiKey, str]) -> None:
    for way in (BEARER, API_KEY, X_API_KEY, BEARER):
        proxy.ask("/a/path?a=secret", credential(issued[1], way), ("Referer", "http://a/?secret"))
    servers.wait_for(lambda: proxy.logged.count("/a/path") == 4, seconds=15)
    assert "secret" not in proxy.logged
    assert issued[1] not in proxy.logged


def test_no_log_has_a_key_while_the_site_is_gone(
    proxy_before: Callable[[int], Proxy], service: Service
) -> None:
    proxy = proxy_before(servers.free_port())
    for way in (BEARER, API_KEY, X_API_KEY):
        closed(proxy.ask("/a/path", credential("hk_live_plaintext", way)))
    servers.wait_for(lambda: proxy.logged.count("/a/path") >= 3, seconds=15)
    assert "hk_live_plaintext" not in proxy.logged


def credential(key: str, way: str = BEARER) -> tuple[str, str]:
    return (X_API_KEY, key) if way == X_API_KEY else ("Authorization", f"{way} {key}")


def problem(answer: Answer) -> dict[str, object]:
    """The body, which says of itself what the status line says."""
    assert answer["Content-Type"] == [PROBLEM]
    assert answer["Cache-Control"] == ["no-store"]
    body: dict[str, object] = json.loads(answer.body)
    assert body["status"] == answer.status
    return body


def closed(answer: Answer) -> None:
    assert answer.status == 503
    assert answer["Retry-After"] == ["1"]
    problem(answer)


def straight_from(site: Server, key: str) -> dict[str, object]:
    """The site's own refusal of a client at 127.0.0.2."""
    straight = Proxy(site.port, ())
    fields = credential(key), ("X-Forwarded-For", "127.0.0.2")
    return problem(straight.ask("/", *fields, client="127.0.0.1"))
