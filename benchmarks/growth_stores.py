"""Stores of a benchmark's own: the embedded Valkey, and Redis where it is installed."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Final

from redis import Redis
from redis.exceptions import RedisError
from servers import START_SECONDS, STOP_SECONDS, Server, Store

from hello_project import children
from hello_project.embedded import EmbeddedStore

REDIS_SERVER: Final = "redis-server"
OPTIONS: Final = ["--port", "0", "--save", "", "--appendonly", "no"]


@contextmanager
def valkey(folder: Path) -> Iterator[Store]:
    """As `manage.py up` starts it."""
    embedded = EmbeddedStore(folder)
    embedded.start()
    assert embedded.process is not None
    try:
        yield _described("Valkey", embedded.process, embedded.socket)
    finally:
        embedded.stop()


@contextmanager
def redis(folder: Path) -> Iterator[Store]:
    folder.mkdir(parents=True)
    path = folder / "redis.sock"
    process = children.start(
        [REDIS_SERVER, *OPTIONS, "--unixsocket", str(path)],
        cwd=folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        _wait_for(path)
        yield _described("Redis", process, path)
    finally:
        children.stop(process, STOP_SECONDS)


Start = Callable[[Path], AbstractContextManager[Store]]


def kinds() -> Mapping[str, Start]:
    """Each kind that can be started here, by its name."""
    return {"Valkey": valkey} | ({"Redis": redis} if shutil.which(REDIS_SERVER) else {})


def usual() -> Start:
    """The kind that the comparison of peers runs on as well."""
    return kinds().get("Redis", valkey)


def client(store: Store) -> Redis:
    return Redis(unix_socket_path=str(store.socket))


def _described(name: str, process: subprocess.Popen[bytes], socket: Path) -> Store:
    info = Redis(unix_socket_path=str(socket)).info("server")
    version = info.get("valkey_version") or info["redis_version"]
    return Store(Server(name, 0, process, socket), socket, f"{name} {version}")


def _wait_for(path: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    asking = Redis(unix_socket_path=str(path))
    while time.monotonic() < deadline:
        try:
            asking.ping()
        except RedisError:
            time.sleep(0.01)  # Nothing announces that the socket is there.
        else:
            return
    sys.exit(f"{REDIS_SERVER} did not start.")
