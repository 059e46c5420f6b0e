"""What is compared: one job, a JSON greeting behind an API key, limited by client address."""

from __future__ import annotations

import hashlib
import secrets
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from servers import PROJECT, run

WORKERS: Final = 2
ADMITTED: Final = "100000/second"
REFUSED: Final = "3/day"
_APPS: Final = Path(__file__).with_name("apps")
_SECRET_KEY: Final = secrets.token_urlsafe(50)


@dataclass(frozen=True)
class Target:
    """One way to do the job: a file in apps/, or this project, on a server."""

    slug: str
    name: str
    server: str
    command: Callable[[int], list[str]]
    """The command line for a port."""
    counting: str = ""
    """How hits are counted; empty without a limit."""
    key_check: str = ""
    key_header: str = ""
    """The header that a key goes into, with {key} in its place; empty without keys."""
    make_key: Callable[[Mapping[str, str]], str] | None = None
    """Makes the database and a key in it; None: the key is one whose digest the app is given."""
    cwd: Path = _APPS
    variables: tuple[tuple[str, str], ...] = ()
    """Of the environment, beside what every target is given."""

    @property
    def is_limited(self) -> bool:
        return bool(self.counting)

    @property
    def is_ours(self) -> bool:
        return self.cwd == PROJECT

    def environment(self, folder: Path, key: str, rate: str, store_url: str) -> dict[str, str]:
        shared = {"REDIS_URL": store_url, "WEB_CONCURRENCY": str(WORKERS)}
        if self.is_ours:
            return shared | _project_settings(folder, rate) | dict(self.variables)
        digest = hashlib.sha256(key.encode()).hexdigest()
        app = {"RATE_LIMIT": rate, "DATABASE": str(folder / "db.sqlite3"), "KEY_DIGEST": digest}
        return shared | app | dict(self.variables)

    def headers(self, key: str) -> dict[str, str]:
        name, _, value = self.key_header.partition(": ")
        return {name: value.format(key=key)} if name else {}


def _project_settings(folder: Path, rate: str) -> dict[str, str]:
    return {
        "DATA_DIR": str(folder),
        "DATABASE_URL": f"sqlite:///{folder / 'db.sqlite3'}",
        "SECRET_KEY": _SECRET_KEY,
        "IP_RATE_LIMIT": rate,
        "TRUSTED_PROXIES": "127.0.0.1/32",
        "HTTPS": "off",
        "REQUEST_LOG": "off",  # As with the others; one line of the comparison has it on.
    }


def _gunicorn(app: str) -> Callable[[int], list[str]]:
    options = f"-c gunicorn.conf.py --workers {WORKERS} {app}:application"
    return lambda port: _module("gunicorn", f"--bind 127.0.0.1:{port} {options}")


def _gunicorn_with_our_worker(app: str) -> Callable[[int], list[str]]:
    worker = f"--pythonpath {PROJECT} --worker-class hello_project.gunicorn_worker.Worker"
    command = _gunicorn(app)
    return lambda port: [*command(port)[:-1], *worker.split(), "--keep-alive=75", command(port)[-1]]


def _uvicorn(app: str) -> Callable[[int], list[str]]:
    options = f"--workers {WORKERS} --loop uvloop --http httptools --no-access-log {app}"
    return lambda port: _module("uvicorn", f"--host 127.0.0.1 --port {port} {options}:application")


def _granian(interface: str, app: str) -> Callable[[int], list[str]]:
    options = f"--interface {interface} --workers {WORKERS} {app}"
    return lambda port: _module("granian", f"--host 127.0.0.1 --port {port} {options}")


def _module(name: str, options: str) -> list[str]:
    return [sys.executable, "-m", name, *options.split()]


def _from_script(app: str) -> Callable[[Mapping[str, str]], str]:
    command = [sys.executable, f"{app}.py"]
    return lambda environment: run(command, cwd=_APPS, environment=environment).strip()


def _from_project(environment: Mapping[str, str]) -> str:
    manage = [sys.executable, "manage.py"]
    run([*manage, "migrate", "--verbosity", "0"], cwd=PROJECT, environment=environment)
    issue = [*manage, "issue_key", "benchmark"]
    return run(issue, cwd=PROJECT, environment=environment).strip()


REFERENCE: Final = Target(
    "drf",
    "DRF alone",
    server="gunicorn",
    command=_gunicorn("bare_drf"),
)

THIS: Final = Target(
    "this",
    "this project",
    server="gunicorn",
    counting="100 slots, a script",
    key_check="a record kept in the process, a number from the store",
    command=lambda port: _module("gunicorn", "hello_project.wsgi"),
    key_header="Authorization: Bearer {key}",
    make_key=_from_project,
    cwd=PROJECT,
)

TARGETS: Final = [
    Target(
        "django",
        "Django alone",
        server="gunicorn",
        command=_gunicorn("bare_django"),
    ),
    REFERENCE,
    Target(
        "drf-our-worker",
        "DRF alone, on this project's worker",
        server="gunicorn",
        command=_gunicorn_with_our_worker("bare_drf"),
    ),
    Target(
        "drf-api-key",
        "DRF throttle, djangorestframework-api-key",
        server="gunicorn",
        counting="a list of the hits, read and then written",
        key_check="a query",
        command=_gunicorn("drf_api_key"),
        key_header="Authorization: Api-Key {key}",
        make_key=_from_script("drf_api_key"),
    ),
    Target(
        "drf-api-key-kept",
        "the same, its database kept open",
        server="gunicorn",
        counting="a list of the hits, read and then written",
        key_check="a query",
        command=_gunicorn("drf_api_key"),
        key_header="Authorization: Api-Key {key}",
        make_key=_from_script("drf_api_key"),
        variables=(("KEEP_DATABASE_OPEN", "1"),),
    ),
    Target(
        "drf-token",
        "DRF throttle, TokenAuthentication",
        server="gunicorn",
        counting="a list of the hits, read and then written",
        key_check="a query",
        command=_gunicorn("drf_token"),
        key_header="Authorization: Token {key}",
        make_key=_from_script("drf_token"),
    ),
    Target(
        "django-ratelimit",
        "django-ratelimit on Django",
        server="gunicorn",
        counting="a fixed window",
        command=_gunicorn("ratelimit_django"),
    ),
    Target(
        "throttled-py",
        "throttled-py on Django",
        server="gunicorn",
        counting="two windows weighted, a script",
        key_check="a dict",
        command=_gunicorn("throttled_django"),
        key_header="X-API-Key: {key}",
    ),
    Target(
        "flask-limiter",
        "Flask-Limiter on Flask",
        server="gunicorn",
        counting="a list of the hits, a script",
        key_check="a dict",
        command=_gunicorn("limiter_flask"),
        key_header="X-API-Key: {key}",
    ),
    Target(
        "slowapi",
        "slowapi on FastAPI",
        server="uvicorn",
        counting="a list of the hits, a script",
        key_check="a dict",
        command=_uvicorn("slowapi_fastapi"),
        key_header="X-API-Key: {key}",
    ),
    Target(
        "slowapi-granian",
        "slowapi on FastAPI on granian",
        server="granian",
        counting="a list of the hits, a script",
        key_check="a dict",
        command=_granian("asgi", "slowapi_fastapi:behind_proxy"),
        key_header="X-API-Key: {key}",
    ),
    Target(
        "limits",
        "limits.aio on FastAPI",
        server="uvicorn",
        counting="a list of the hits, a script",
        key_check="a dict",
        command=_uvicorn("limits_fastapi"),
        key_header="X-API-Key: {key}",
    ),
    THIS,
    replace(
        THIS,
        slug="this-logging",
        name="this project, a line logged for each request",
        variables=(("REQUEST_LOG", "on"),),
    ),
    replace(
        THIS,
        slug="this-granian",
        name="this project on granian",
        server="granian",
        command=_granian("wsgi", "--blocking-threads 1 hello_project.wsgi:application"),
    ),
]
