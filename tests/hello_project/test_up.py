"""`manage.py up` as a person meets it: a real process tree in a folder of its own."""

from __future__ import annotations

import json
import os
import shlex
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from django.conf import settings

from tests.servers import free_port, need, wait_for

STOP_SECONDS = 5


@dataclass
class Up:
    process: subprocess.Popen[bytes]
    data_dir: Path
    port: int

    @property
    def said(self) -> str:
        return (self.data_dir.parent / "stdout").read_text()

    @property
    def errors(self) -> str:
        return (self.data_dir.parent / "stderr").read_text()

    def wait_until_ready(self) -> None:
        wait_for(lambda: "Stop with Ctrl-C" in self.said or self.process.poll() is not None)
        assert self.process.poll() is None, self.errors

    def curl_line(self) -> list[str]:
        line = next(line for line in self.said.splitlines() if line.startswith("curl"))
        return shlex.split(line)

    def processes(self) -> list[int]:
        """Every process of this installation, found by its DATA_DIR or by its folder."""
        return [int(path.name) for path in Path("/proc").glob("[0-9]*") if self._owns(path)]

    def _owns(self, process: Path) -> bool:
        try:
            environ = (process / "environ").read_bytes()
            folder = (process / "cwd").readlink()
        except OSError:  # It has ended meanwhile.
            return False
        mark = f"DATA_DIR={self.data_dir}\0".encode()
        return mark in environ or folder.is_relative_to(self.data_dir)

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Another command beside it, with the same environment."""
        return subprocess.run(
            [sys.executable, "manage.py", *command],
            cwd=settings.BASE_DIR,
            env=environment(self.data_dir),
            capture_output=True,
            text=True,
            check=False,
        )


def environment(data_dir: Path, **extra: str) -> dict[str, str]:
    """What a person's shell has: none of the tests' settings."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    return {**kept, "DATA_DIR": str(data_dir), **extra}


@pytest.fixture
def up(tmp_path: Path) -> Iterator[Callable[..., Up]]:
    started: list[Up] = []

    def start(*arguments: str, data_dir: Path = tmp_path / "data", **extra: str) -> Up:
        port = free_port()
        tmp = data_dir.parent
        with (tmp / "stdout").open("wb") as stdout, (tmp / "stderr").open("wb") as stderr:
            process = subprocess.Popen(
                [sys.executable, "manage.py", "up", "--port", str(port), *arguments],
                cwd=settings.BASE_DIR,
                env=environment(data_dir, **extra),
                stdout=stdout,
                stderr=stderr,
            )
        started.append(Up(process, data_dir, port))
        return started[-1]

    yield start
    for running in started:
        running.process.terminate()
        running.process.wait(STOP_SECONDS)


def status_of(curl: list[str]) -> int:
    command = [need("curl", "curl"), *curl[1:], "-s", "-o", os.devnull, "-w", "%{http_code}"]
    return int(subprocess.run(command, capture_output=True, check=True).stdout)


def test_the_printed_curl_line_gives_three_hellos_a_429_and_after_the_wait_a_hello(
    up: Callable[..., Up],
) -> None:
    running = up()
    running.wait_until_ready()
    curl = running.curl_line()
    assert [status_of(curl) for _ in range(3)] == [200] * 3
    refused_at = time.monotonic()
    refused = subprocess.run(curl, capture_output=True, text=True, check=True).stdout
    assert refused.startswith("HTTP/1.1 429")
    fields = dict(line.split(": ", 1) for line in refused.splitlines() if ": " in line)
    wait = int(fields["Retry-After"])
    assert 9 <= wait <= 11
    time.sleep(refused_at + wait - 1.2 - time.monotonic())  # The clock under test is the store's.
    assert status_of(curl) == 429
    time.sleep(refused_at + wait + 0.05 - time.monotonic())
    assert status_of(curl) == 200


def test_the_first_start_tells_the_login_and_the_second_no_secret(up: Callable[..., Up]) -> None:
    first = up()
    first.wait_until_ready()
    assert "user admin, password " in first.said
    curl = first.curl_line()
    assert stat.S_IMODE((first.data_dir / "secret_key").stat().st_mode) == 0o600
    secret_key = (first.data_dir / "secret_key").read_text()
    first.process.terminate()
    assert first.process.wait(STOP_SECONDS) == 0
    started = time.monotonic()
    second = up("--workers", "1")
    second.wait_until_ready()
    assert time.monotonic() - started < 10
    assert "password" not in second.said
    assert "hk_" not in second.said
    assert (second.data_dir / "secret_key").read_text() == secret_key
    assert status_of([*curl[:-1], f"http://127.0.0.1:{second.port}/"]) == 200


def test_on_every_address_it_tells_one_that_answers_here(up: Callable[..., Up]) -> None:
    running = up("--host", "0.0.0.0")
    running.wait_until_ready()
    assert status_of(running.curl_line()) == 200
    assert "set ALLOWED_HOSTS" in running.said


def test_commands_beside_it_find_the_same_database_and_store(up: Callable[..., Up]) -> None:
    running = up()
    running.wait_until_ready()
    issued = running.run("issue_key", "beside", "--rate", "1/10s")
    key = issued.stdout.strip()
    url = f"http://127.0.0.1:{running.port}/"
    assert status_of(["curl", "-H", f"X-API-Key: {key}", url]) == 200
    rows = json.loads(running.run("list_keys", "--json").stdout)
    assert [row["name"] for row in rows] == ["beside", "demo"]
    assert running.run("revoke_key", rows[0]["id"]).returncode == 0
    assert status_of(["curl", "-H", f"X-API-Key: {key}", url]) == 401


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_stops_everything_within_five_seconds(
    up: Callable[..., Up], number: signal.Signals
) -> None:
    running = up()
    running.wait_until_ready()
    assert len(running.processes()) >= 4  # up, the store, gunicorn and a worker or more
    with socket.create_connection(("127.0.0.1", running.port)):  # An idle client holds nothing up.
        running.process.send_signal(number)
        assert running.process.wait(STOP_SECONDS) == 0
    assert running.processes() == []


def test_nothing_is_left_when_the_parent_is_killed(up: Callable[..., Up]) -> None:
    running = up()
    running.wait_until_ready()
    running.process.kill()
    running.process.wait()
    wait_for(lambda: running.processes() == [], STOP_SECONDS)


def test_when_the_server_is_killed_everything_stops_with_a_sentence(up: Callable[..., Up]) -> None:
    running = up()
    running.wait_until_ready()
    os.kill(master_of(running), signal.SIGKILL)
    assert running.process.wait(STOP_SECONDS) == 1
    assert "The server ended" in running.errors
    wait_for(lambda: running.processes() == [], STOP_SECONDS)


def master_of(running: Up) -> int:
    children = Path(f"/proc/{running.process.pid}/task/{running.process.pid}/children").read_text()
    return next(int(pid) for pid in children.split() if b"gunicorn" in command_of(int(pid)))


def command_of(pid: int) -> bytes:
    return Path(f"/proc/{pid}/cmdline").read_bytes()


def test_an_embedded_store_that_dies_is_started_again(up: Callable[..., Up]) -> None:
    running = up()
    running.wait_until_ready()
    store = next(pid for pid in running.processes() if b"valkey-server" in command_of(pid))
    os.kill(store, signal.SIGKILL)
    wait_for(lambda: "starting it again" in running.errors)
    wait_for(lambda: status_of(["curl", f"http://127.0.0.1:{running.port}/readyz"]) == 200)


def test_a_second_up_in_the_same_place_is_a_sentence(up: Callable[..., Up]) -> None:
    first = up()
    first.wait_until_ready()
    refused = first.run("up", "--port", str(free_port()))
    assert refused.returncode == 1
    assert f"`up` runs here already (process {first.process.pid}" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert status_of(["curl", f"http://127.0.0.1:{first.port}/readyz"]) == 200


@pytest.fixture
def busy_port() -> Iterator[int]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


def refused(data_dir: Path, *arguments: str, **extra: str) -> str:
    """What `up` says when it cannot start; nothing may be left running."""
    result = subprocess.run(
        [sys.executable, "manage.py", "up", *arguments],
        cwd=settings.BASE_DIR,
        env=environment(data_dir, **extra),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert result.returncode == 1, result
    assert result.stdout == ""
    assert len(result.stderr.splitlines()) == 1, result.stderr
    return result.stderr


def test_a_port_in_use_is_a_sentence(tmp_path: Path, busy_port: int) -> None:
    said = refused(tmp_path / "data", "--port", str(busy_port))
    assert f"port {busy_port}" in said
    assert "--port" in said


def test_an_unwritable_data_dir_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert "DATA_DIR" in refused(tmp_path / "file" / "data", "--port", str(free_port()))


def test_a_data_dir_that_cannot_be_read_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "data" / "secret_key").mkdir(parents=True)
    assert "DATA_DIR" in refused(tmp_path / "data", "--port", str(free_port()))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("REDIS_URL", "redis://127.0.0.1:{port}/0"),
        ("REDIS_URL", "redis://[::1"),
        ("REDIS_URL", "memcached://127.0.0.1"),
        ("DATABASE_URL", "postgres://someone@127.0.0.1:{port}/nothing"),
        ("DATABASE_URL", "sqlite:////nonexistent/folder/db.sqlite3"),
        ("DATABASE_URL", "mysql://127.0.0.1/x"),
        ("HOST", "192.0.2.1"),
        ("PORT", "http"),
        ("WEB_CONCURRENCY", "0"),
        ("IP_RATE_LIMIT", "three per ten"),
        ("TRUSTED_PROXIES", "10.0.0.1/8"),
        ("STORE_FAILURE", "maybe"),
        ("LOG_FORMAT", "xml"),
        ("DEBUG", "perhaps"),
        ("SECRET_KEY_FILE", "/nonexistent"),
    ],
)
def test_a_setting_that_cannot_be_used_is_a_sentence_that_names_it(
    tmp_path: Path, name: str, value: str
) -> None:
    setting = {name: value.format(port=free_port())}
    port = [] if name == "PORT" else ["--port", str(free_port())]
    assert name in refused(tmp_path / "data", *port, **setting)
    assert not list(tmp_path.rglob("valkey.sock"))


def test_a_data_dir_with_a_long_path_has_its_socket_elsewhere(
    up: Callable[..., Up], tmp_path: Path
) -> None:
    folder = tmp_path / ("long" * 20) / ("path" * 20)
    folder.mkdir(parents=True)
    running = up(data_dir=folder / "data with blanks, and commas")
    running.wait_until_ready()
    assert status_of(running.curl_line()) == 200
