"""A client that openapi-python-client generates from the running server, calling it."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from textwrap import dedent
from typing import Final

import pytest

from apikeys.models import ApiKey
from tests import servers

REQUIREMENTS: Final = Path(__file__).parent.parent / "requirements-client.txt"
IMPORTS: Final = """
import sys
from http import HTTPStatus

from hello_client import AuthenticatedClient, Client, models
from hello_client.api.forward_authentication import verify
from hello_client.api.health import livez, readyz
from hello_client.api.hello import hello
from hello_client.api.limits import get_rate_limits
from hello_client.api.tokens import create_token, get_token

key = sys.stdin.read()
options = {"base_url": sys.argv[1], "raise_on_unexpected_status": True}
with_key = AuthenticatedClient(token=key, **options)
without_key = Client(**options)
"""

Issued = tuple[ApiKey, str]
Call = Callable[[str], None]


@pytest.fixture(scope="session")
def generator() -> Iterator[Path]:
    """The folder of the programs of an environment that has the generator."""
    if importlib.util.find_spec("ensurepip") is None:
        servers.unavailable("This Python cannot make environments: apt-get install python3-venv")
    with TemporaryDirectory(prefix="client-") as folder:
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        programs = Path(folder) / "bin"
        install = [str(programs / "pip"), "install", "-q", "--disable-pip-version-check"]
        arguments = ["--retries=2", "--no-compile", "--only-binary=:all:", "--require-hashes", "-r"]
        installed = subprocess.run(
            [*install, *arguments, str(REQUIREMENTS)], capture_output=True, text=True, check=False
        )
        if installed.returncode != 0:
            reason = installed.stderr.splitlines()[-1]
            servers.unavailable(f"pip install -r tests/{REQUIREMENTS.name}: {reason}")
        yield programs


@pytest.fixture
def server(issued: Issued, tmp_path: Path) -> Iterator[servers.Server]:
    with servers.gunicorn(tmp_path, workers=1, TRUSTED_PROXIES="127.0.0.1") as running:
        yield running


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("client")


@pytest.fixture
def package(generator: Path, server: servers.Server, folder: Path) -> Path:
    """What is generated from the running server, once for all these tests."""
    package = folder / "hello_client"
    if not package.exists():
        command = [str(generator / "openapi-python-client"), "generate", "--fail-on-warning"]
        source = ["--url", f"{server.url}/openapi.json", "--meta", "none"]
        generated = subprocess.run(
            [*command, *source, "--output-path", str(package)],
            env=os.environ
            | {"PATH": f"{generator}:{os.environ['PATH']}"},  # It calls its own ruff.
            capture_output=True,
            text=True,
            check=False,
        )
        assert (generated.returncode, generated.stderr) == (0, ""), generated.stdout
        assert "".join(generated.stdout.split()) == f"Generating{package}"
    return package


@pytest.fixture
def call(generator: Path, package: Path, server: servers.Server, issued: Issued) -> Call:
    """Runs a program that uses the package."""

    def run(lines: str) -> None:
        ran = subprocess.run(
            [str(generator / "python"), "-c", IMPORTS + dedent(lines), server.url],
            input=issued[1],
            cwd=package.parent,
            capture_output=True,
            text=True,
            check=False,
        )
        assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")

    return run


def test_a_key_gets_a_hello_and_the_fourth_a_typed_refusal(call: Call) -> None:
    call("""
        said = hello.sync(client=with_key)
        assert type(said) is models.Hello
        assert said.message == "Hello, World!"
        answers = [hello.sync_detailed(client=with_key) for _ in range(3)]
        assert [answer.status_code for answer in answers] == [200, 200, 429]
        assert answers[0].headers["RateLimit"].startswith('"ip";r=1;')
        refusal = answers[2].parsed
        assert type(refusal) is models.QuotaExceeded
        assert refusal.violated_policies == ["ip"]
        assert refusal.status == HTTPStatus.TOO_MANY_REQUESTS
        assert refusal.detail.startswith("Rate limit exceeded.")
        assert refusal.type_.endswith("#quota-exceeded")
        assert int(answers[2].headers["Retry-After"]) >= 1
    """)


def test_without_a_key_it_gets_a_typed_problem(call: Call) -> None:
    call("""
        answer = hello.sync_detailed(client=without_key)
        assert answer.status_code == HTTPStatus.UNAUTHORIZED
        assert type(answer.parsed) is models.Problem
        assert answer.parsed.title == "Unauthorized"
        assert answer.parsed.detail == "A valid API key is required."
    """)


def test_each_header_takes_a_key(call: Call) -> None:
    call("""
        for header, prefix in (("X-API-Key", ""), ("Authorization", "Api-Key")):
            form = {"auth_header_name": header, "prefix": prefix}
            client = AuthenticatedClient(token=key, **form, **options)
            assert type(hello.sync(client=client)) is models.Hello
    """)


def test_a_key_buys_a_token_which_says_hello_and_buys_none(call: Call) -> None:
    call("""
        bought = [operation.sync(client=with_key) for operation in (get_token, create_token)]
        for token in bought:
            assert type(token) is models.Token
            assert (token.token_type, token.expires_in) == ("Bearer", 300)
        with_token = AuthenticatedClient(token=bought[0].access_token, **options)
        assert hello.sync(client=with_token).message == "Hello, World!"
        elsewhere = with_token.with_headers({"X-Forwarded-For": "203.0.113.7"})
        assert get_token.sync(client=elsewhere).status == HTTPStatus.UNAUTHORIZED
    """)


def test_it_is_told_what_is_left(call: Call) -> None:
    call("""
        hello.sync(client=with_key)
        told = get_rate_limits.sync(client=with_key)
        assert type(told) is models.RateLimits
        [limit] = told.policies
        assert type(limit) is models.RateLimit
        assert (limit.policy, limit.limit, limit.window, limit.remaining) == ("ip", 3, 10, 2)
        assert 0 < limit.reset_after < 11
    """)


def test_it_verifies_and_asks_after_the_servers_health(call: Call) -> None:
    call("""
        answer = verify.sync_detailed(client=with_key)
        assert (answer.status_code, answer.parsed) == (204, None)
        assert answer.headers["X-Api-Key-Id"] == key.split("_")[2]
        assert livez.sync(client=without_key) == models.Alive(status="ok")
        well = models.Ready(status="ok", database="ok", store="ok")
        assert readyz.sync(client=without_key) == well
    """)
