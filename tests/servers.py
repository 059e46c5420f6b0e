"""Real servers that the tests start for themselves."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import pytest
from django.conf import settings
from django.db import connection
from redis import Redis
from redis.exceptions import RedisError

from hello_project import children
from hello_project.embedded import EmbeddedStore

START_SECONDS = 30


def unavailable(line: str) -> NoReturn:
    """Skips the test with the line that installs what it lacks; on CI fails it."""
    if os.environ.get("CI"):
        pytest.fail(line)
    pytest.skip(line)


def need(program: str, package: str) -> str:
    """The program's path, of Debian's package."""
    found = shutil.which(program)
    if found is None:
        unavailable(f"{program} is not installed: apt-get install {package}")
    return found


@contextmanager
def valkey() -> Iterator[Redis]:
    with tempfile.TemporaryDirectory(prefix="valkey-") as folder:
        store = EmbeddedStore(Path(folder))
        store.start()
        try:
            yield Redis(unix_socket_path=str(store.socket))
        finally:
            store.stop()


@contextmanager
def redis7() -> Iterator[Redis]:
    program = need("redis-server", "redis-server")
    with tempfile.TemporaryDirectory(prefix="redis-") as folder:
        path = f"{folder}/redis.sock"
        command = [program, "--port", "0", "--unixsocket", path, "--save", "", "--dir", folder]
        process = children.start(command, stdout=subprocess.DEVNULL)
        client = Redis(unix_socket_path=path)
        try:
            wait_for(lambda: _pings(client))
            yield client
        finally:
            children.stop(process, 5)


def _pings(client: Redis) -> bool:
    try:
        return bool(client.ping())
    except RedisError:
        return False


def kept_by(store: Redis) -> list[str]:
    """Every name and value. By type, as DUMP compresses what it gives."""
    read: dict[Any, Callable[[Any], Any]] = {
        b"string": store.get,
        b"hash": store.hgetall,
        b"set": store.smembers,
        b"list": lambda name: store.lrange(name, 0, -1),
        b"zset": lambda name: store.zrange(name, 0, -1, withscores=True),
    }
    return [repr((name, read[store.type(name)](name))) for name in store.scan_iter()]


def wait_for(condition: Callable[[], bool], seconds: float = START_SECONDS) -> None:
    """Until `condition()` is true; fails the test after `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(f"Nothing came of it within {seconds} s.")
        time.sleep(0.01)  # Other processes do not tell when they are done.


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass(frozen=True)
class Server:
    """A running gunicorn over the tests' own database and store."""

    port: int
    process: subprocess.Popen[bytes]
    log: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@contextmanager
def gunicorn(folder: Path, *, workers: int = 4, **environment: str) -> Iterator[Server]:
    """The site as production runs it; `environment` overrides settings by name."""
    port, log = int(environment.get("PORT") or free_port()), folder / "gunicorn.log"
    with log.open("wb") as output:
        process = children.start(
            [sys.executable, "-m", "gunicorn", "hello_project.wsgi"],
            cwd=settings.BASE_DIR,
            env={**os.environ, **shared_environment(), "HOST": "127.0.0.1"}
            | {"WEB_CONCURRENCY": str(workers), "DJANGO_SETTINGS_MODULE": "hello_project.settings"}
            | environment
            | {"PORT": str(port)},
            stdout=output,
            stderr=output,
        )
        try:
            wait_for(lambda: process.poll() is not None or _accepts(port))
            if process.poll() is not None:
                pytest.fail(f"gunicorn ended with {process.returncode}: {log.read_text()}")
            yield Server(port, process, log)
        finally:
            children.stop(process, 10)


def shared_environment() -> dict[str, str]:
    """Settings by which another process finds the tests' own database and store."""
    database = connection.settings_dict
    if connection.vendor == "sqlite":
        url = f"sqlite:///{database['NAME']}"
    else:
        login = f"{database['USER']}:{database['PASSWORD']}@" if database["USER"] else ""
        url = f"postgres://{login}{database['HOST']}:{database['PORT']}/{database['NAME']}"
    return {
        "DATABASE_URL": url,
        "REDIS_URL": settings.REDIS_URL,
        "DATA_DIR": str(settings.DATA_DIR),
    }


def _accepts(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
