"""What nobody should send: the designed status as a problem, never a crash, never a page."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from io import BytesIO
from ipaddress import IPv4Network
from typing import Any
from wsgiref.util import setup_testing_defaults

import pytest
from django.conf import LazySettings
from django.contrib.auth.models import User
from django.test import Client
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from pytest_django import DjangoDbBlocker

from apikeys import keys
from apikeys.models import ApiKey
from hello_project.wsgi import application
from tests.hello_project.raw import Answer, request, send, send_and_reset
from tests.servers import Server, gunicorn

MEGABYTE = 1_048_576
JSON = b"Content-Type: application/json"
CRASHES = ("Internal Server Error", "Error handling request")

Ask = Callable[..., Answer]


@pytest.fixture(scope="module")
def key(
    django_db_setup: None, django_db_blocker: DjangoDbBlocker, store_of_the_site: None
) -> Iterator[str]:
    with django_db_blocker.unblock():
        key, plaintext = ApiKey.objects.issue(name="bad input")
    yield plaintext
    with django_db_blocker.unblock():
        key.delete()


@pytest.fixture(scope="module")
def site(key: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One for all these tests, and none of them makes it crash."""
    folder = tmp_path_factory.mktemp("site")
    with gunicorn(
        folder,
        workers=2,
        TRUSTED_PROXIES="127.0.0.1",
        DJANGO_SETTINGS_MODULE="tests.hello_project.extra_settings",
    ) as running:
        yield running
    log = running.log.read_text()
    assert not [line for line in log.splitlines() if any(crash in line for crash in CRASHES)]


@pytest.fixture
def ask(site: Server, key: str) -> Ask:
    """Sends a request in which KEY stands for a good key."""
    parsed = keys.parse(key)
    assert parsed is not None

    def send_it(line: bytes, *fields: bytes, **options: Any) -> Answer:
        sent = request(line, *fields, **options)
        answer = send(site.port, sent.replace(b"KEY", key.encode()))
        assert parsed.secret.encode() not in answer.body
        return answer

    return send_it


@pytest.fixture
def extra_client(settings: LazySettings) -> Client:
    settings.ROOT_URLCONF = "tests.hello_project.extra_urls"
    return Client(raise_request_exception=False)


def post(body: bytes, *fields: bytes, path: bytes = b"/echo") -> tuple[bytes, ...]:
    return b"POST %s HTTP/1.1" % path, b"X-API-Key: KEY", *fields, b"Content-Length: %d" % len(body)


def test_the_request_that_the_others_spoil_is_a_good_one(ask: Ask) -> None:
    answer = ask(b"GET / HTTP/1.1", b"X-API-Key: KEY")
    assert (answer.status, answer.body) == (200, b'{"message":"Hello, World!"}')
    assert (answer.fields["cache-control"], answer.rest) == ("no-store", b"")


# Credentials

CREDENTIALS = {
    "none": (401, []),
    "empty": (401, [b"X-API-Key:"]),
    "empty bearer": (401, [b"Authorization: Bearer"]),
    "empty Authorization": (401, [b"Authorization:"]),
    "another one": (400, [b"X-API-Key: KEY", b"X-API-Key: other"]),
    "another one in another field": (400, [b"Authorization: Bearer KEY", b"X-API-Key: other"]),
    "a thousand": (400, [b"X-API-Key: KEY" + b",a,b" * 1000]),
    "UTF-8": (401, ["X-API-Key: κλειδί".encode()]),
    "not UTF-8": (401, [b"Authorization: Bearer KEY\xff"]),
    "8 KB": (401, [b"X-API-Key: " + b"k" * 8192]),
    "8 KB of key": (401, [b"Authorization: Bearer " + b"KEY" * 110]),
    "16 KB": (431, [b"X-API-Key: " + b"k" * 16_384]),
    "NUL": (400, [b"X-API-Key: KEY\0"]),
    "escape": (400, [b"X-API-Key: \x1b[31mKEY"]),
    "without a colon": (400, [b"X-API-Key KEY"]),
    "folded": (400, [b"X-API-Key:", b" KEY"]),
    "with underscores": (401, [b"X_API_Key: KEY"]),
    "another scheme": (401, [b"Authorization: Basic KEY"]),
    "no scheme": (401, [b"Authorization: KEY"]),
    "cookie": (401, [b"Cookie: X-API-Key=KEY; key=KEY"]),
}


@pytest.mark.parametrize("kind", CREDENTIALS)
def test_a_credential_that_is_none_is_a_problem(ask: Ask, kind: str) -> None:
    status, fields = CREDENTIALS[kind]
    answer = ask(b"GET / HTTP/1.1", *fields)
    answer.problem(status)
    assert ("www-authenticate" in answer.fields) is (status == 401)


@pytest.mark.parametrize("path", [b"/?key=KEY", b"/?X-API-Key=KEY", b"/?a=Bearer%20KEY"])
def test_a_key_in_the_query_string_is_none(ask: Ask, path: bytes) -> None:
    ask(b"GET " + path + b" HTTP/1.1").problem(401)


# Paths

NOTHING = [
    *(b"/nothing", b"/livez/", b"//", b"//evil.example/", b"/./", b"/../../etc/passwd"),
    *(b"/..;/", b"/%2e%2e/", b"/%00", b"/%zz%f", b"/%", b"/%ff%fe", b"/%c0%af", b"/%0d%0aA:%20b"),
    *(b"/" + b"a" * 4000, b"/administration", b"/admin.php", b"/Admin/", b"/KEY"),
    *(b"/static/", b"/static/admin", b"/static/%00", b"/static/../../settings.py"),
    b"/static/" + b"a" * 3000,
]


@pytest.mark.parametrize("path", NOTHING, ids=lambda path: path[:30].decode())
def test_an_unknown_path_is_a_problem_for_browsers_too(ask: Ask, path: bytes) -> None:
    ask(b"GET " + path + b" HTTP/1.1", b"X-API-Key: KEY", b"Accept: text/html").problem(404)


def test_a_path_that_is_too_long_or_no_ascii_is_a_problem(ask: Ask) -> None:
    ask(b"GET /" + b"a" * 40_000 + b" HTTP/1.1").problem(414)
    ask(b"GET /\xff?KEY HTTP/1.1").problem(400)
    ask(b"GET / ?KEY HTTP/1.1").problem(400)


def test_more_parameters_than_anybody_needs_are_a_problem(ask: Ask) -> None:
    answer = ask(b"GET /echo?" + b"a&" * 1900 + b" HTTP/1.1", b"X-API-Key: KEY")
    answer.problem(400)
    assert "ratelimit" in answer.fields


# Methods


@pytest.mark.parametrize("method", [b"POST", b"PUT", b"PATCH", b"DELETE", b"OPTIONS", b"TRACE"])
def test_another_method_is_a_problem_that_names_those_allowed(ask: Ask, method: bytes) -> None:
    for path, field in ((b"/", b"X-API-Key: KEY"), (b"/livez", b"Accept: */*")):
        answer = ask(method + b" " + path + b" HTTP/1.1", field)
        answer.problem(405)
        assert answer.fields["allow"].startswith("GET, HEAD")


def test_a_made_up_method_is_a_problem(ask: Ask) -> None:
    ask(b"BREW / HTTP/1.1", b"X-API-Key: KEY").problem(405)
    for method in (b"brew", b"B", b"BR(EW", b"BREW" * 50, b""):
        ask(method + b" / HTTP/1.1", b"X-API-Key: KEY").problem(400)


def test_a_method_without_a_key_tells_nothing_of_what_is_allowed_but_the_key(ask: Ask) -> None:
    ask(b"OPTIONS / HTTP/1.1").problem(401)
    ask(b"DELETE / HTTP/1.1").problem(401)


def test_head_is_get_without_the_body(ask: Ask, site: Server) -> None:
    answer = ask(b"HEAD / HTTP/1.1", b"X-API-Key: KEY")
    assert (answer.status, answer.body, answer.rest) == (200, b"", b"")
    assert answer.fields["content-length"] == "27"
    refused = ask(b"HEAD / HTTP/1.1")
    assert (refused.status, refused.body, refused.rest) == (401, b"", b"")
    assert refused.fields["content-type"] == "application/problem+json"
    assert "gunicorn.http.wsgi" not in site.log.read_text()  # Which would tell of each HEAD.


# What the client would accept

UNACCEPTABLE = [
    *(b"text/html", b"application/xml", b"application/problem+xml", b"json", b"*", b",", b"\xff"),
    *(b";;;///,,q=x", b"text/html;q=0.1,*", b"a/b; x*=nonsense''%ff", b"a" * 9000, b"a/b," * 2000),
]


@pytest.mark.parametrize("accept", UNACCEPTABLE, ids=lambda accept: repr(accept[:30]))
def test_a_client_that_accepts_no_json_gets_a_problem(ask: Ask, accept: bytes) -> None:
    for path in (b"/", b"/livez", b"/readyz"):
        ask(b"GET " + path + b" HTTP/1.1", b"X-API-Key: KEY", b"Accept: " + accept).problem(406)
    ask(b"GET /nothing HTTP/1.1", b"X-API-Key: KEY", b"Accept: " + accept).problem(404)


@pytest.mark.parametrize("format_", [b"xml", b"api", b"json", b"%ff", b""])
def test_the_query_string_chooses_no_format(ask: Ask, format_: bytes) -> None:
    for path in (b"/", b"/livez"):
        answer = ask(b"GET %s?format=%s HTTP/1.1" % (path, format_), b"X-API-Key: KEY")
        assert (answer.status, answer.fields["content-type"]) == (200, "application/json")


# Bodies

TOO_DEEP = b"The JSON body is nested too deeply."
BODIES = {
    "cut off": (400, b'{"a"', [JSON]),
    "empty of meaning": (400, b" ", [JSON]),
    "two values": (400, b"[1][2]", [JSON]),
    "NUL": (400, b"[1]\0", [JSON]),
    "not UTF-8": (400, b'["\xff"]', [JSON]),
    "a mark": (400, b"\xef\xbb\xbf[1]", [JSON]),
    "NaN": (400, b"[NaN]", [JSON]),
    "infinity": (400, b"[1e999]", [JSON]),
    "half a character": (400, b'["\\ud800"]', [JSON]),
    "5,000 digits": (400, b"9" * 5000, [JSON]),
    "50,000 lists": (400, b"[" * 50_000 + b"]" * 50_000, [JSON]),
    "50,000 objects": (400, b'{"a":' * 50_000 + b"1" + b"}" * 50_000, [JSON]),
    "compressed": (400, b"\x1f\x8b\x08\x00", [JSON, b"Content-Encoding: gzip"]),
    "XML": (415, b"<a/>", [b"Content-Type: application/xml"]),
    "a form": (415, b"a=1", [b"Content-Type: application/x-www-form-urlencoded"]),
    "parts": (415, b"--x", [b"Content-Type: multipart/form-data; boundary=x"]),
    "parts without a boundary": (415, b"a", [b"Content-Type: multipart/form-data"]),
    "untyped": (415, b"[1]", []),
    "a type of nonsense": (415, b"[1]", [b'Content-Type: \xff/;;="']),
    "a type that Django cannot parse": (415, b"[1]", [JSON + b"; x*=nonsense''%ff"]),
    "a type of 12 KB": (415, b"[1]", [JSON + b"; x=" + b"a" * 12_000]),
    "another charset": (400, b"[1]", [JSON + b"; charset=utf-16"]),
    "a charset of bytes": (400, b"[1]", [JSON + b"; charset=bz2"]),
    "a charset that undoes": (400, b"[1]", [JSON + b"; charset=undefined"]),
}


@pytest.mark.parametrize("kind", BODIES)
def test_a_body_that_cannot_be_read_is_a_problem_where_it_is_read(ask: Ask, kind: str) -> None:
    status, body, fields = BODIES[kind]
    answer = ask(*post(body, *fields), body=body)
    answer.problem(status)
    assert "ratelimit" in answer.fields
    ask(*post(body, *fields, path=b"/"), body=body).problem(405)
    unread = ask(b"GET / HTTP/1.1", *post(body, *fields)[1:], body=body)
    assert unread.status == 200


def test_a_body_that_can_be_read_is_read(ask: Ask) -> None:
    body = '{"a": ["é", 1.5, null]}'.encode()
    answer = ask(*post(body, JSON + b"; charset=utf-8"), body=body)
    assert (answer.status, json.loads(answer.body)) == (200, {"received": json.loads(body)})


def test_of_every_depth_a_body_is_read_or_a_problem(ask: Ask) -> None:
    """Somewhere here Python's recursion limit is reached: in the parser, or only afterwards."""
    statuses = []
    for depth in range(880, 1000, 3):
        body = b"[" * depth + b"]" * depth
        answer = ask(*post(body, JSON), body=body)
        statuses.append(answer.status)
        if answer.status != 200:
            assert answer.problem(400)["detail"].encode() == TOO_DEEP
    assert set(statuses) == {200, 400}


def test_a_body_of_a_megabyte_is_the_longest(ask: Ask) -> None:
    body = b'"' + b"a" * (MEGABYTE - 2) + b'"'
    assert ask(*post(body, JSON), body=body).status == 200
    # Refused for what it announces: nothing of it needs to arrive.
    for length in (MEGABYTE + 1, 3 * MEGABYTE, 10**18):
        announced = (
            b"POST /echo HTTP/1.1",
            b"X-API-Key: KEY",
            JSON,
            b"Content-Length: %d" % length,
        )
        answer = ask(*announced)
        assert str(MEGABYTE) in answer.problem(413)["detail"]
        assert "ratelimit" in answer.fields


@pytest.mark.parametrize("body", [b"[1", b"[1]", b""])
def test_a_body_that_ends_early_is_a_problem_even_when_it_could_be_read(
    ask: Ask, body: bytes
) -> None:
    announced = b"Content-Length: 100"
    answer = ask(b"POST /echo HTTP/1.1", b"X-API-Key: KEY", JSON, announced, body=body)
    assert "shorter" in answer.problem(400)["detail"]


def test_a_client_that_dies_within_its_body_is_no_crash(ask: Ask, site: Server, key: str) -> None:
    fields = (b"X-API-Key: " + key.encode(), JSON, b"Content-Length: 100")
    for _ in range(4):
        send_and_reset(site.port, request(b"POST /echo HTTP/1.1", *fields, body=b"[1"))
    assert ask(b"GET / HTTP/1.1", b"X-API-Key: KEY").status == 200


CHUNKED = [
    *(b"zz\r\n[1]\r\n0\r\n\r\n", b"-1\r\n[1]\r\n0\r\n\r\n", b"3\r\n[1]XX0\r\n\r\n", b"3;\0\r\n[1]"),
    *(b"5\r\n[1]", b"f" * 5000 + b"\r\n", b"0\r\nHost: evil.example\r\n\r\n", b"\n\n\n", b""),
    b"3\r\n[1]\r\n0\r\n\r\n",
]


@pytest.mark.parametrize("chunks", CHUNKED, ids=lambda chunks: repr(chunks[:30]))
@pytest.mark.parametrize("keep", [False, True])
def test_a_chunked_body_broken_or_not_has_one_answer(ask: Ask, chunks: bytes, keep: bool) -> None:
    chunked = (b"X-API-Key: KEY", JSON, b"Transfer-Encoding: chunked")
    for path in (b"/echo", b"/"):
        answer = ask(b"POST " + path + b" HTTP/1.1", *chunked, keep=keep, body=chunks)
        assert "Content-Length" in answer.problem(411)["detail"]
    ask(b"POST /nothing HTTP/1.1", *chunked, keep=keep, body=chunks).problem(404)
    unread = ask(b"GET / HTTP/1.1", *chunked, keep=keep, body=chunks)
    assert (unread.status, unread.rest) == (200, b"")


FRAMES: dict[str, tuple[int, list[bytes]]] = {
    "words": (400, [b"Content-Length: abc"]),
    "below zero": (400, [b"Content-Length: -1"]),
    "a sign": (400, [b"Content-Length: +1"]),
    "a superscript": (400, [b"Content-Length: \xb2"]),
    "5,000 digits": (400, [b"Content-Length: " + b"9" * 5000]),
    "empty": (400, [b"Content-Length:"]),
    "two lengths": (400, [b"Content-Length: 1", b"Content-Length: 2"]),
    "a list": (400, [b"Content-Length: 1, 1"]),
    "length and chunks": (400, [b"Content-Length: 1", b"Transfer-Encoding: chunked"]),
    "chunks of chunks": (400, [b"Transfer-Encoding: chunked, chunked"]),
    "compressed": (400, [b"Transfer-Encoding: gzip"]),
    "unknown": (501, [b"Transfer-Encoding: xchunked"]),
    "a miracle": (417, [b"Expect: miracles"]),
}


@pytest.mark.parametrize("kind", FRAMES)
def test_a_body_of_unknown_length_is_a_problem(ask: Ask, kind: str) -> None:
    status, fields = FRAMES[kind]
    ask(b"POST /echo HTTP/1.1", b"X-API-Key: KEY", JSON, *fields, body=b"[1]").problem(status)


# Everything else of a request

LINES = [
    *(b"GET /", b"GET", b"", b"   ", b"\0\1\2 KEY", b"GET / HTTP/1.1 HTTP/1.1", b"KEY"),
    *(b"GET / HTTP/2.0", b"GET / HTTP/9", b"GET / FTP/1.1", b"GET / http/1.1", b"PRI * HTTP/2.0"),
    *(b"GET nothing HTTP/1.1", b"GET * HTTP/1.1", b"GET http://[::1/ HTTP/1.1"),
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
]


@pytest.mark.parametrize("line", LINES, ids=lambda line: repr(line[:30]))
def test_a_request_line_that_is_none_is_a_problem(ask: Ask, line: bytes) -> None:
    ask(line, b"X-API-Key: KEY").problem(400)


def test_http_0_9_and_lines_that_end_in_a_bare_lf_are_problems(site: Server) -> None:
    send(site.port, b"GET /\r\n").problem(400)
    send(site.port, b"GET / HTTP/1.1\nHost: localhost\n\n").problem(400)


def test_too_many_or_too_long_fields_are_a_problem(ask: Ask) -> None:
    many = [b"X-%d: a" % number for number in range(200)]
    ask(b"GET / HTTP/1.1", b"X-API-Key: KEY", *many).problem(431)
    ask(b"GET / HTTP/1.1", b"X-API-Key: KEY", b"X: " + b"a" * 20_000).problem(431)
    ask(b"GET / HTTP/1.1", b"X-API-Key: KEY", b"X" * 20_000 + b": a").problem(431)


HOSTS = [b"evil.example", b'a b"<>', b"\xff", b"localhost:x", b"", b"[::1"]


@pytest.mark.parametrize("path", [b"/", b"/nothing"])
@pytest.mark.parametrize("host", HOSTS)
def test_a_host_that_is_not_served_is_a_problem_and_no_event_in_the_log(
    site: Server, ask: Ask, path: bytes, host: bytes
) -> None:
    before = site.log.read_text()
    ask(b"GET " + path + b" HTTP/1.1", b"X-API-Key: KEY", host=host).problem(400)
    [line] = site.log.read_text().removeprefix(before).splitlines()
    assert f" GET {path.decode()} 400 invalid client=" in line


@pytest.mark.parametrize("path", [b"/livez", b"/readyz"])
@pytest.mark.parametrize("host", [*HOSTS, b"10.0.0.7:8000"])
def test_a_load_balancers_probe_is_answered_under_any_host(
    ask: Ask, path: bytes, host: bytes
) -> None:
    assert ask(b"GET " + path + b" HTTP/1.1", host=host).status == 200


def test_two_hosts_are_a_problem(ask: Ask) -> None:
    ask(b"GET / HTTP/1.1", b"X-API-Key: KEY", b"Host: localhost").problem(400)


FIELDS = [
    *("HTTP_ACCEPT", "HTTP_AUTHORIZATION", "HTTP_COOKIE", "HTTP_X_API_KEY", "HTTP_RANGE"),
    *("HTTP_X_FORWARDED_FOR", "HTTP_X_FORWARDED_PROTO", "HTTP_X_FORWARDED_HOST", "HTTP_ORIGIN"),
    *("HTTP_ACCEPT_LANGUAGE", "HTTP_ACCEPT_ENCODING", "HTTP_IF_MODIFIED_SINCE", "HTTP_REFERER"),
    *("HTTP_IF_NONE_MATCH", "HTTP_X_HTTP_METHOD_OVERRIDE", "CONTENT_TYPE", "CONTENT_LENGTH"),
    "QUERY_STRING",
]
LATIN_1 = st.text(st.characters(max_codepoint=255, exclude_characters="\r\n\0"), max_size=60)
SEEDS = ["*/*", "Bearer ", "application/json; ", "charset=", "a*=utf-8''%ff", "hk_live_", '"', ";"]
ADDRESSES = IPv4Network("10.0.0.0/16").hosts()
VALUES = st.lists(st.sampled_from(SEEDS) | LATIN_1, max_size=4).map("".join)
PATHS = st.sampled_from(["/", "/echo", "/echo", "/livez", "/static/"]) | st.builds(
    "/{}".format, LATIN_1
)


@pytest.mark.usefixtures("extra_client")
@hypothesis_settings(
    max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    fields=st.dictionaries(st.sampled_from(FIELDS), VALUES, max_size=4),
    path=st.just("/echo") | PATHS.filter(lambda path: not path.startswith("/admin")),
    method=st.sampled_from(["GET", "HEAD", "POST", "POST", "BREW"]),
)
def test_no_field_whatever_it_holds_makes_the_site_crash(
    issued: tuple[ApiKey, str],
    fields: dict[str, str],
    path: str,
    method: str,
) -> None:
    """Through the WSGI application, for an address of its own each time and with a good key."""
    environ: dict[str, Any] = {
        "HTTP_HOST": "localhost",
        "HTTP_X_API_KEY": issued[1],
        "CONTENT_TYPE": "application/json",
        "CONTENT_LENGTH": "3",
        **fields,
        "PATH_INFO": path,
        "REQUEST_METHOD": method,
        "REMOTE_ADDR": str(next(ADDRESSES)),
        "wsgi.input": BytesIO(b"[1]"),
    }
    setup_testing_defaults(environ)
    answers = []

    def start_response(status: str, headers: list[tuple[str, str]], *_: object) -> Any:
        answers.append((status, dict(headers)))

    body = b"".join(application(environ, start_response))
    [(status, headers)] = answers
    assert status < "500", body
    if status >= "400":
        assert headers["Content-Type"] == "application/problem+json"
        assert headers["Cache-Control"] == "no-store"


# Crashes, and pages


def test_a_crash_is_a_problem_that_tells_nothing(
    extra_client: Client, issued: tuple[ApiKey, str]
) -> None:
    answer = extra_client.get(
        "/crash", headers={"X-API-Key": issued[1], "Accept": "text/html, */*"}
    )
    assert answer.status_code == 500
    assert answer["Content-Type"] == "application/problem+json"
    assert answer["Cache-Control"] == "no-store"
    assert answer.json() == {
        "title": "Internal Server Error",
        "status": 500,
        "detail": "Something went wrong here. It has been logged.",
    }


def test_in_the_admin_errors_are_pages(
    extra_client: Client, issued: tuple[ApiKey, str], admin_user: User
) -> None:
    extra_client.force_login(admin_user)
    crash = extra_client.get("/admin/crash", headers={"X-API-Key": issued[1]})
    unknown = extra_client.get("/admin/nothing/")
    host = extra_client.get("/admin/", headers={"Host": "evil.example"})
    assert [answer.status_code for answer in (crash, unknown, host)] == [500, 404, 400]
    for answer in (crash, unknown, host):
        assert answer["Content-Type"].startswith("text/html")
        assert b"on purpose" not in answer.content
        assert b"Traceback" not in answer.content


def test_a_body_over_the_bound_is_a_problem_when_it_arrives_whole(
    extra_client: Client, issued: tuple[ApiKey, str]
) -> None:
    for size in (MEGABYTE + 1, 3 * MEGABYTE):
        body = b'"' + b"a" * (size - 2) + b'"'
        answer = extra_client.post(
            "/echo", body, content_type="application/json", headers={"X-API-Key": issued[1]}
        )
        assert (answer.status_code, answer.json()["status"]) == (413, 413)
