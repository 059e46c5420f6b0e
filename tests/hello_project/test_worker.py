"""The gunicorn worker: no client holds up another, whatever it does with its connection."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from django.conf import settings
from redis import Redis

from apikeys.models import ApiKey
from hello_project.gunicorn_connection import LONGEST_HEAD, Connection
from hello_project.gunicorn_worker import REQUESTS_A_CONNECTION, Worker
from tests.servers import Server, free_port, gunicorn
from tests.traffic import get

LIVEZ = b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n"
CLOSE = LIVEZ.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
SOON = 1.0
"""Seconds; a worker that waited for somebody would take at least twice as long."""


@pytest.fixture
def one_worker(transactional_db: None, tmp_path: Path) -> Iterator[Server]:
    with gunicorn(tmp_path, workers=1) as running:
        yield running


@pytest.fixture
def impatient(transactional_db: None, tmp_path: Path) -> Iterator[Server]:
    conf = Path(__file__).with_name("impatient_gunicorn.py")
    with gunicorn(tmp_path, workers=1, GUNICORN_CMD_ARGS=f"--config {conf}") as running:
        yield running


def connect(server: Server) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.port), timeout=20)


def answer(connection: socket.socket) -> bytes:
    """One answer of /livez, whose end is its closing brace."""
    received = b""
    while not received.endswith(b"}"):
        arrived = connection.recv(65_536)
        assert arrived, received
        received += arrived
    return received


def seconds_to_answer_another(server: Server) -> float:
    asked_at = time.monotonic()
    with connect(server) as another:
        another.sendall(CLOSE)
        assert answer(another).startswith(b"HTTP/1.1 200 ")
    return time.monotonic() - asked_at


def test_a_connection_stays_open_for_the_next_request(one_worker: Server) -> None:
    with connect(one_worker) as connection:
        for _ in range(3):
            connection.sendall(LIVEZ)
            assert b"Connection: keep-alive" in answer(connection)


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"GET",
        LIVEZ[:-2],
        b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n{",
    ],
    ids=["nothing", "half a line", "half a head", "half a body"],
)
def test_a_client_that_sends_no_more_holds_up_nobody(one_worker: Server, sent: bytes) -> None:
    with ExitStack() as silent:
        for _ in range(20):
            connection = silent.enter_context(connect(one_worker))
            connection.sendall(sent)
        assert seconds_to_answer_another(one_worker) < SOON


def test_a_client_that_keeps_its_side_open_after_the_answer_holds_up_nobody(
    one_worker: Server,
) -> None:
    with ExitStack() as lazy:
        for _ in range(20):
            connection = lazy.enter_context(connect(one_worker))
            connection.sendall(CLOSE)
            assert b"Connection: close" in answer(connection)
            assert connection.recv(1) == b""
        assert seconds_to_answer_another(one_worker) < SOON


def test_a_request_that_arrives_byte_by_byte_is_answered(one_worker: Server) -> None:
    with connect(one_worker) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in LIVEZ:
            connection.sendall(bytes([byte]))
        assert answer(connection).startswith(b"HTTP/1.1 200 ")


def test_requests_sent_ahead_are_answered_in_their_order(one_worker: Server) -> None:
    unknown = LIVEZ.replace(b"/livez", b"/unknown")
    with connect(one_worker) as connection:
        connection.sendall(LIVEZ + unknown + CLOSE)
        received = b"".join(iter(lambda: connection.recv(65_536), b""))
    statuses = [part.split(b" ")[0] for part in received.split(b"HTTP/1.1 ")[1:]]
    assert statuses == [b"200", b"404", b"200"]


def test_after_a_hundred_requests_the_client_is_told_to_connect_anew(one_worker: Server) -> None:
    with connect(one_worker) as connection:
        for number in range(1, REQUESTS_A_CONNECTION + 1):
            connection.sendall(LIVEZ)
            is_told = b"Connection: close" in answer(connection)
            assert is_told is (number == REQUESTS_A_CONNECTION), number
        assert connection.recv(1) == b""


def test_an_idle_a_silent_and_a_lazy_client_are_closed_in_the_end(impatient: Server) -> None:
    with connect(impatient) as idle, connect(impatient) as silent, connect(impatient) as lazy:
        idle.sendall(LIVEZ)
        answer(idle)
        silent.sendall(LIVEZ[:-2])
        lazy.sendall(CLOSE)
        answer(lazy)
        assert [connection.recv(1) for connection in (idle, silent, lazy)] == [b""] * 3
        # A reset shows that the server has closed its side entirely, not only said its last word.
        with pytest.raises(OSError, match=r"reset|pipe"):
            send_until_refused(lazy)


def send_until_refused(connection: socket.socket) -> None:
    for _ in range(1_000):
        connection.sendall(b"x" * 1_000)
        time.sleep(0.001)  # For the reset to come back.


def test_one_connection_more_than_a_worker_holds_replaces_the_oldest(
    transactional_db: None, tmp_path: Path
) -> None:
    limit = "--worker-connections 10"
    with gunicorn(tmp_path, workers=1, GUNICORN_CMD_ARGS=limit) as server, ExitStack() as kept:
        connections = [kept.enter_context(connect(server)) for _ in range(30)]
        for connection in connections[-5:]:
            connection.sendall(LIVEZ)
            assert answer(connection).startswith(b"HTTP/1.1 200 ")
        assert connections[0].recv(1) == b""


def test_a_stopping_worker_answers_what_is_under_way_and_closes_what_is_idle(
    one_worker: Server,
) -> None:
    with connect(one_worker) as idle, connect(one_worker) as under_way:
        idle.sendall(LIVEZ)
        answer(idle)
        under_way.sendall(LIVEZ[:-2])
        time.sleep(0.1)  # The worker has taken both.
        one_worker.process.terminate()
        time.sleep(0.3)  # It knows.
        under_way.sendall(LIVEZ[-2:])
        assert b"Connection: close" in answer(under_way)
        assert idle.recv(1) == b""
        one_worker.process.wait(5)


def test_tls_is_refused_with_what_to_do() -> None:
    certificate = ["--certfile", __file__, "--keyfile", __file__]
    ended = subprocess.run(
        [sys.executable, "-m", "gunicorn", *certificate, "hello_project.wsgi"],
        cwd=settings.BASE_DIR,
        env={**os.environ, "DJANGO_SETTINGS_MODULE": "hello_project.settings"}
        | {"PORT": str(free_port()), "HOST": "127.0.0.1"},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert ended.returncode == 1
    assert ended.stderr == "This worker speaks no TLS: put a proxy in front that does.\n"


# Limits asked for ahead


@contextmanager
def kept(server: Server, count: int) -> Iterator[list[socket.socket]]:
    """Connections that the worker has accepted and answered once."""
    with ExitStack() as open_connections:
        connections = [open_connections.enter_context(connect(server)) for _ in range(count)]
        for connection in connections:
            connection.sendall(LIVEZ)
            answer(connection)
        yield connections


def send_together(
    server: Server, connections: Sequence[socket.socket], requests: Sequence[bytes]
) -> list[int]:
    """The statuses. The only worker is stopped meanwhile, so that it finds all of them at once."""
    master = server.process.pid
    worker = int(Path(f"/proc/{master}/task/{master}/children").read_text())
    os.kill(worker, signal.SIGSTOP)
    for connection, sent in zip(connections, requests, strict=True):
        connection.sendall(sent)
    os.kill(worker, signal.SIGCONT)
    return [int(answer(connection).split(b" ")[1]) for connection in connections]


def test_requests_that_arrive_together_share_round_trips_and_are_decided_exactly(
    issued: tuple[ApiKey, str], tmp_path: Path, store: Redis
) -> None:
    clients = [f"198.51.100.{number % 10}" for number in range(40)]
    requests = [get(issued[1], client) for client in clients]
    with (
        gunicorn(tmp_path, workers=1, TRUSTED_PROXIES="127.0.0.1") as server,
        kept(server, len(clients)) as connections,
    ):
        reads = int(store.info("stats")["total_reads_processed"])
        statuses = send_together(server, connections, requests)
        reads = int(store.info("stats")["total_reads_processed"]) - reads
    assert sorted(statuses) == [200] * 30 + [429] * 10
    # Two for the forty hits; connecting, loading the script and the key, and INFO read as well.
    assert reads < 20


def test_of_200_kept_connections_over_4_workers_exactly_3_requests_are_admitted(
    server: Server, issued: tuple[ApiKey, str]
) -> None:
    with kept(server, 200) as connections:
        for trial in range(20):
            for connection in connections:
                connection.sendall(get(issued[1], f"198.51.100.{trial}"))
            statuses = [int(answer(connection).split(b" ")[1]) for connection in connections]
            assert sorted(statuses) == [200] * 3 + [429] * 197, trial


def test_an_application_that_cannot_be_asked_ahead_answers_all_the_same(
    issued: tuple[ApiKey, str], tmp_path: Path
) -> None:
    requests = [get(issued[1], f"192.0.2.{client}", "/unaskable") for client in range(5)]
    with (
        gunicorn(
            tmp_path,
            workers=1,
            TRUSTED_PROXIES="127.0.0.1",
            DJANGO_SETTINGS_MODULE="tests.hello_project.extra_settings",
        ) as server,
        kept(server, len(requests)) as connections,
    ):
        assert send_together(server, connections, requests) == [200] * 5
        assert "Could not ask ahead" in server.log.read_text()


# What is waited for, without a server


class Arriving(Connection):
    def __init__(self) -> None:
        self.received, self.needed = bytearray(), None


@pytest.mark.parametrize(
    ("sent", "whole"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", True),
        (b"GET / HTTP/1.1\r\nHost: a\r\n\r", False),
        (b"POST / HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}", True),
        (b"POST / HTTP/1.1\r\ncontent-LENGTH:2 \r\n\r\n{", False),
        (b"POST / HTTP/1.1\r\nX-Content-Length: 2\r\n\r\n", True),
        (b"POST / HTTP/1.1\r\nContent-Length: 65537\r\n\r\n", True),
        (b"POST / HTTP/1.1\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n", True),
        (b"POST / HTTP/1.1\r\nContent-Length: two\r\n\r\n", True),
        (b"x" * (LONGEST_HEAD + 1), True),
        (b"x" * LONGEST_HEAD, False),
    ],
)
def test_a_request_is_whole_when_nothing_more_has_to_be_waited_for(
    sent: bytes, whole: bool
) -> None:
    at_once = Arriving()
    at_once.take(sent)
    assert at_once.request_is_whole is whole
    bit_by_bit = Arriving()
    for byte in sent:
        bit_by_bit.take(bytes([byte]))
    assert bit_by_bit.request_is_whole is whole


def test_the_worker_is_the_one_that_the_site_is_served_with() -> None:
    conf = Path("gunicorn.conf.py").read_text()
    assert f'worker_class = "{Worker.__module__}.{Worker.__name__}"' in conf
