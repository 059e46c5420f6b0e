"""The API's description, and whether the API is like that."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.db import OperationalError
from django.test import override_settings
from django.urls import resolve, reverse
from drf_spectacular.drainage import GENERATOR_STATS
from drf_spectacular.validation import validate_schema
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]
from redis import Redis
from redis.exceptions import ConnectionError as StoreGone
from rest_framework.test import APIClient

from apikeys.models import ApiKey
from hello_project import openapi, urls
from hello_project.traffic import EVER, OUTCOMES_IN_ALL, traffic
from hello_project.views import PARTS
from tests import servers
from tests.hello_project.raw import request, send
from throttling.limiter import SlidingWindowCounter
from throttling.throttles import breaker

Issued = tuple[ApiKey, str]

DOCUMENT: dict[str, Any] = json.loads(openapi.document())
COMPONENTS: dict[str, Any] = DOCUMENT["components"]
OPERATIONS: dict[str, tuple[str, str, dict[str, Any]]] = {
    operation["operationId"]: (path, method.upper(), operation)
    for path, item in DOCUMENT["paths"].items()
    for method, operation in item.items()
}
"""Path, method and description of each by its id."""
SECURED = [name for name, (*_, operation) in OPERATIONS.items() if "security" in operation]
_numbers = count()


def resolved(described: dict[str, Any]) -> dict[str, Any]:
    """What it refers to, or itself."""
    if "$ref" in described:
        _, _, kind, name = described["$ref"].split("/")
        found: dict[str, Any] = COMPONENTS[kind][name]
        return found
    return described


def responses(operation: dict[str, Any]) -> dict[int, dict[str, Any]]:
    return {int(status): resolved(each) for status, each in operation["responses"].items()}


def contents(response: dict[str, Any]) -> tuple[str | None, dict[str, Any], list[Any]]:
    """Media type, schema and examples of a response's body."""
    if "content" not in response:
        return None, {}, []
    [(media_type, content)] = response["content"].items()
    named = content.get("examples", {"": {"value": content.get("example")}})
    return media_type, content["schema"], [each["value"] for each in named.values()]


def assert_valid(value: Any, schema: dict[str, Any]) -> None:
    Draft202012Validator(schema | {"components": COMPONENTS}).validate(value)


# The document


def test_it_is_openapi_3_1_by_the_official_schema() -> None:
    assert DOCUMENT["openapi"].startswith("3.1.")
    validate_schema(DOCUMENT)  # type: ignore[no-untyped-call]
    for schema in COMPONENTS["schemas"].values():
        Draft202012Validator.check_schema(schema)


def test_the_generator_has_nothing_to_complain_of(capsys: pytest.CaptureFixture[str]) -> None:
    assert openapi.document.__wrapped__() == openapi.document()
    assert not GENERATOR_STATS
    assert capsys.readouterr() == ("", "")


def test_what_it_refers_to_is_there_and_what_is_there_is_referred_to() -> None:
    referred = set(re.findall(r'"#/components/(\w+)/([\w-]+)"', json.dumps(DOCUMENT)))
    there = {(kind, name) for kind, named in COMPONENTS.items() for name in named}
    schemes = {("securitySchemes", name) for name in COMPONENTS["securitySchemes"]}
    assert referred == there - schemes


def test_every_view_of_the_api_is_described_and_nothing_else() -> None:
    routed = set()
    patterns: list[Any] = urls.urlpatterns
    for pattern in patterns:
        view = getattr(getattr(pattern, "callback", None), "cls", None)
        if view is not None:
            methods = set(view().allowed_methods) - {"HEAD", "OPTIONS"}
            routed |= {(reverse(pattern.name), method) for method in methods}
    assert routed == {(path, method) for path, method, _ in OPERATIONS.values()}


def test_an_operations_id_is_a_good_name_for_a_function() -> None:
    for name, (_, _, operation) in OPERATIONS.items():
        assert re.fullmatch(r"[a-z]+(_[a-z]+)*", name)
        assert operation["summary"]
        assert operation["description"]
        assert operation["tags"][0] in [tag["name"] for tag in DOCUMENT["tags"]]


def test_its_version_is_the_projects() -> None:
    project = tomllib.loads((settings.BASE_DIR / "pyproject.toml").read_text())["project"]
    assert DOCUMENT["info"]["version"] == project["version"]


def test_every_example_is_valid() -> None:
    for _, _, operation in OPERATIONS.values():
        for response in responses(operation).values():
            _, schema, examples = contents(response)
            for example in examples:
                assert_valid(example, schema)
    for header in COMPONENTS["headers"].values():
        assert_valid(header["example"], header["schema"])


def test_it_tells_the_limits_that_are_configured(transactional_db: None, tmp_path: Path) -> None:
    with servers.gunicorn(tmp_path, workers=2, IP_RATE_LIMIT="100/1m") as server:
        answers = [send(server.port, request(b"GET /openapi.json HTTP/1.1")) for _ in range(20)]
    assert len({answer.fields["etag"] for answer in answers}) == 1  # Whichever worker answers.
    document = json.loads(answers[0].body)
    assert "100 requests in any 60 seconds" in document["info"]["description"]
    policy = document["components"]["headers"]["RateLimit-Policy"]["example"]
    assert policy == '"ip";q=100;w=60'
    limit, _ = contents(document["paths"]["/rate-limit"]["get"]["responses"]["200"])[2]
    assert (limit["policies"][0]["limit"], limit["policies"][0]["window"]) == (100, 60)
    assert "1000 requests in any 60" in document["paths"]["/rate-limit"]["get"]["description"]


# Being asked for it


def test_it_is_json_and_kept_for_a_minute(api: APIClient) -> None:
    answer = api.get("/openapi.json")
    assert (answer.status_code, answer["Content-Type"]) == (200, "application/json")
    assert answer.json() == DOCUMENT
    assert answer["Cache-Control"] == "public, max-age=60"
    again = api.get("/openapi.json", headers={"If-None-Match": answer["ETag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert again["ETag"] == answer["ETag"]
    changed = api.get("/openapi.json", headers={"If-None-Match": '"another"'})
    assert changed.status_code == 200
    assert api.head("/openapi.json").status_code == 200


@pytest.mark.parametrize("path", ["/openapi.json", "/docs/", "/docs"])
def test_it_is_for_everyone_unlimited_and_not_counted(
    api: APIClient, store: Redis, db: None, path: str
) -> None:
    for _ in range(10):
        answer = api.get(path)
        assert answer.status_code == 200
        assert "RateLimit" not in answer
    traffic.write()
    assert store.hgetall(OUTCOMES_IN_ALL.key(EVER)) == {}
    api.get("/")
    traffic.write()
    assert store.hgetall(OUTCOMES_IN_ALL.key(EVER)) == {b"unauthenticated": b"1"}


@pytest.mark.parametrize("path", ["/openapi.json", "/docs/"])
def test_it_is_only_read(path: str) -> None:
    api = APIClient(enforce_csrf_checks=True)
    for method in ("POST", "PUT", "DELETE", "OPTIONS", "BREW"):
        answer = api.generic(method, path)
        assert (answer.status_code, answer["Allow"]) == (405, "GET, HEAD")
        assert answer["Content-Type"] == "application/problem+json"
    other_host = api.get(path, headers={"Host": "evil.example"})
    assert other_host.status_code == 400
    assert other_host["Content-Type"] == "application/problem+json"


def test_no_process_imports_the_generator_before_it_is_asked() -> None:
    code = """
import sys
from hello_project.wsgi import application
from django.test import Client
from django.urls import get_resolver
get_resolver().url_patterns
client = Client(headers={"host": "localhost"})
statuses = [client.get(path).status_code for path in ("/livez", "/docs/", "/nothing")]
heavy = {"drf_spectacular", "jsonschema", "hello_project.openapi", "hello_project.operations"}
print(statuses, sorted(heavy & set(sys.modules)))
print(client.get("/openapi.json").status_code, sorted(heavy & set(sys.modules)))
"""
    env = {**os.environ, **servers.shared_environment()}
    env["DJANGO_SETTINGS_MODULE"] = "hello_project.settings"
    ran = subprocess.run(
        [sys.executable, "-c", code],
        env=env,
        cwd=settings.BASE_DIR,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    before, after = ran.stdout.splitlines()
    assert before == "[200, 200, 404] []"
    assert after == "200 ['drf_spectacular', 'hello_project.openapi', 'hello_project.operations']"


# Whether the API is like that


@dataclass
class Asker:
    """Asks one operation, for a new client each time unless told which."""

    api: APIClient
    path: str
    method: str
    key: str

    def __call__(self, client: str | None = None, **headers: str) -> Any:
        """With the good key, unless `headers` say otherwise; "_" in their names stands for "-"."""
        number = next(_numbers)
        sent = {"X_API_Key": self.key} | headers
        return self.api.generic(
            self.method,
            self.path,
            headers={name.replace("_", "-"): value for name, value in sent.items() if value},
            REMOTE_ADDR=client or f"10.1.{number // 250}.{number % 250}",
        )

    def until_refused(self, **headers: str) -> Any:
        """The last answer to one client that does not stop; one that is never refused, asks 40."""
        client = f"10.2.0.{next(_numbers) % 250}"
        for _ in range(40):
            answer = self(client, **headers)
            if answer.status_code == 429:
                break
        return answer


@pytest.fixture
def ask(api: APIClient, issued: Issued) -> Callable[[str], Asker]:
    api.raise_request_exception = False

    def asker(operation: str) -> Asker:
        path, method, _ = OPERATIONS[operation]
        return Asker(api, path, method, issued[1])

    return asker


def crash(*_: object, **__: object) -> None:
    raise RuntimeError("crashed on purpose")


def no_database(*_: object) -> None:
    raise OperationalError("gone")


def no_store(*_: object) -> None:
    raise StoreGone


def answers(ask: Asker, operation: str, patch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Of everything that an operation may answer, at least one."""
    yield ask()
    yield ask(Accept="image/png")
    with patch.context() as broken:
        view: Any = resolve(ask.path).func
        broken.setattr(view.cls, ask.method.lower(), crash)
        yield ask()
    if operation == "readyz":
        for part in ("store", "database"):
            patch.setitem(PARTS, part, lambda: False)
            yield ask()
    if operation not in SECURED:
        return
    yield ask(X_API_Key="")
    yield ask(Authorization="Bearer nonsense", X_API_Key="")
    yield ask(Authorization="Bearer nonsense")
    yield ask(Host="evil.example")
    yield ask(Transfer_Encoding="chunked")
    elsewhere = ApiKey.objects.issue(name="elsewhere", networks="192.0.2.0/24")[1]
    yield ask(X_API_Key=elsewhere)
    limited = ApiKey.objects.issue(name="limited", rate="1/1m")[1]
    ask(X_API_Key=limited)
    yield ask(X_API_Key=limited)
    yield ask.until_refused()
    yield ask.until_refused(X_API_Key="")
    with patch.context() as broken:
        broken.setattr("apikeys.records.load", no_database)
        yield ask(X_API_Key=ApiKey(pk="abcdefghijkl").make_secret())
    patch.setattr(SlidingWindowCounter, "_call", no_store)
    patch.setattr("throttling.throttles.hit_together", no_store)
    with override_settings(STORE_FAILURE="deny"):
        yield ask()
    breaker.answered()


def alike(body: Any) -> str:
    """The body without what differs from one answer to the next."""
    text = json.dumps(body, ensure_ascii=False)
    text = re.sub(r'"eyJ[^"]*"', '"TOKEN"', text)
    text = re.sub(r"in \d+ seconds?", "in SOME seconds", text)
    text = re.sub(r'"(remaining|reset_after)": [\d.]+', r'"\1": SOME', text)
    return re.sub(r'"key", "limit": \d+, "window": \d+', '"key", OF ITS OWN', text)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_an_operation_answers_all_that_is_described_and_nothing_else(
    ask: Callable[[str], Asker], monkeypatch: pytest.MonkeyPatch, operation: str
) -> None:
    described = responses(OPERATIONS[operation][2])
    bodies, headers = defaultdict(set), defaultdict(set)
    for answer in answers(ask(operation), operation, monkeypatch):
        assert answer.status_code in described, answer.content
        media_type, schema, _ = contents(described[answer.status_code])
        assert answer.headers.get("Content-Type") == media_type
        if media_type:
            assert_valid(answer.json(), schema)
            bodies[answer.status_code].add(alike(answer.json()))
        for name in COMPONENTS["headers"]:
            if name in answer:
                headers[answer.status_code].add(name)
                schema = COMPONENTS["headers"][name]["schema"]
                is_number = schema["type"] == "integer"
                assert_valid(int(answer[name]) if is_number else answer[name], schema)
    assert headers == {status: set(each["headers"]) for status, each in described.items()}
    for status, response in described.items():
        examples = {alike(example) for example in contents(response)[2]}
        if operation == "verify":  # It is answered under any host.
            examples -= {example for example in examples if "host that is not" in example}
        assert bodies[status] == examples


@pytest.mark.parametrize("scheme", COMPONENTS["securitySchemes"])
def test_each_way_to_send_a_key_is_one(api: APIClient, issued: Issued, scheme: str) -> None:
    described = COMPONENTS["securitySchemes"][scheme]
    if described["type"] == "http":
        headers = {"Authorization": f"{described['scheme']} {issued[1]}"}
    else:
        [word] = re.findall(r"The word `(.*?)`", described["description"]) or [""]
        headers = {described["name"]: f"{word} {issued[1]}".strip()}
    for operation in SECURED:
        path, method, _ = OPERATIONS[operation]
        api.defaults["REMOTE_ADDR"] = f"10.3.0.{len(operation)}"
        assert api.generic(method, path, headers=headers).status_code in (200, 204)
        assert {scheme: []} in OPERATIONS[operation][2]["security"]


@pytest.mark.parametrize("operation", OPERATIONS)
def test_what_needs_a_key_is_what_is_described_so(api: APIClient, db: None, operation: str) -> None:
    path, method, _ = OPERATIONS[operation]
    assert (api.generic(method, path).status_code == 401) is (operation in SECURED)


@pytest.mark.parametrize("operation", [name for name in OPERATIONS if name != "create_token"])
def test_head_is_answered_wherever_get_is(ask: Callable[[str], Asker], operation: str) -> None:
    asker = ask(operation)
    got = asker()
    asker.method = "HEAD"
    assert asker().status_code == got.status_code
