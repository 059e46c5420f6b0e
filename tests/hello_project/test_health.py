"""The probes: whether the process lives, and whether it can work."""

from __future__ import annotations

import json
import os
import signal
import socket
from collections.abc import Iterator
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from typing import Any

import pytest
from pytest_django import DjangoAssertNumQueries
from redis import Redis
from rest_framework.test import APIClient

from apikeys import keys
from hello_project.embedded import EmbeddedStore
from tests.servers import Server, free_port, gunicorn

ANSWER_SECONDS = 5
"""What a load balancer waits; a probe that hangs is worse than one that fails."""


def ask(server: Server, path: str) -> tuple[HTTPResponse, Any]:
    connection = HTTPConnection("127.0.0.1", server.port, timeout=ANSWER_SECONDS)
    connection.request("GET", path)
    answer = connection.getresponse()
    try:
        return answer, json.loads(answer.read())
    finally:
        connection.close()


def assert_unavailable(server: Server, detail: str, **states: str) -> None:
    answer, body = ask(server, "/readyz")
    assert answer.status == 503
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["Retry-After"] == "1"
    assert body == {"title": "Service Unavailable", "status": 503, "detail": detail} | states
    assert ask(server, "/livez")[0].status == 200


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of the database that the server has here."""
    return tmp_path_factory.mktemp("database")


@pytest.fixture(scope="module")
def store_here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedStore]:
    store = EmbeddedStore(tmp_path_factory.mktemp("store"))
    store.start()
    yield store
    store.stop()


@pytest.fixture(scope="module")
def server_here(
    folder: Path, store_here: EmbeddedStore, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """A server over a database and a store that a test may break and mends again."""
    with gunicorn(
        tmp_path_factory.mktemp("server"),
        workers=1,
        DATABASE_URL=f"sqlite:///{folder / 'db.sqlite3'}",
        REDIS_URL=f"unix://{store_here.socket}",
    ) as running:
        yield running


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/livez", {"status": "ok"}),
        ("/readyz", {"status": "ok", "database": "ok", "store": "ok"}),
    ],
)
def test_a_probe_needs_no_key_has_no_limit_and_is_never_stored(
    api: APIClient, store: Redis, path: str, body: dict[str, str]
) -> None:
    for headers in ({}, {"X-API-Key": "nonsense"}) * 5:
        answer = api.get(path, headers=headers)
        assert (answer.status_code, answer.json()) == (200, body)
        assert answer["Content-Type"] == "application/json"
        assert answer["Cache-Control"] == "no-store"
        assert "RateLimit" not in answer
        assert not answer.cookies
    assert store.keys() == []
    assert api.head(path).status_code == 200


def test_livez_asks_neither_the_database_nor_the_store(
    api: APIClient, store: Redis, db: None, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    before = store.info("stats")["total_commands_processed"]
    with django_assert_num_queries(0):
        assert api.get("/livez").status_code == 200
    assert store.info("stats")["total_commands_processed"] - before == 1  # The first INFO.


def test_readyz_asks_each_once(
    api: APIClient, store: Redis, db: None, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    before = store.info("stats")["total_commands_processed"]
    with django_assert_num_queries(1):
        assert api.get("/readyz").status_code == 200
    assert store.info("stats")["total_commands_processed"] - before == 1 + 1


def test_readyz_names_what_is_down_and_is_well_again_when_it_is_back(
    server_here: Server, folder: Path, store_here: EmbeddedStore
) -> None:
    well = {"status": "ok", "database": "ok", "store": "ok"}
    assert ask(server_here, "/readyz")[1] == well
    store_here.stop()
    assert_unavailable(server_here, "No answer from the store.", database="ok", store="down")
    elsewhere = folder.rename(folder.with_name("elsewhere"))
    both = "No answer from the database and the store."
    assert_unavailable(server_here, both, database="down", store="down")
    store_here.start()
    assert_unavailable(server_here, "No answer from the database.", database="down", store="ok")
    elsewhere.rename(folder)
    assert ask(server_here, "/readyz")[1] == well


def test_a_store_that_hangs_is_down(server_here: Server, store_here: EmbeddedStore) -> None:
    assert ask(server_here, "/readyz")[0].status == 200
    assert store_here.process is not None
    os.kill(store_here.process.pid, signal.SIGSTOP)
    try:
        assert_unavailable(server_here, "No answer from the store.", database="ok", store="down")
    finally:
        os.kill(store_here.process.pid, signal.SIGCONT)
    assert ask(server_here, "/readyz")[0].status == 200


@pytest.mark.parametrize("kind", ["refuses", "hangs"])
def test_a_postgresql_that_is_not_there_or_hangs_is_down(
    store_here: EmbeddedStore, tmp_path: Path, kind: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1] if kind == "hangs" else free_port()
        with gunicorn(
            tmp_path,
            workers=1,
            DATABASE_URL=f"postgres://somebody:secret@127.0.0.1:{port}/nothing",
            REDIS_URL=f"unix://{store_here.socket}",
        ) as server:
            down = "No answer from the database."
            assert_unavailable(server, down, database="down", store="ok")


def test_without_its_database_the_api_answers_503_to_a_key_it_does_not_know(
    server_here: Server, folder: Path
) -> None:
    elsewhere = folder.rename(folder.with_name("elsewhere"))
    connection = HTTPConnection("127.0.0.1", server_here.port, timeout=ANSWER_SECONDS)
    key = keys.generate("live", keys.generate_id())
    connection.request("GET", "/", headers={"X-API-Key": str(key)})
    answer = connection.getresponse()
    assert answer.status == 503
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["Retry-After"] == "1"
    assert json.loads(answer.read())["detail"].startswith("The database does not answer.")
    connection.close()
    elsewhere.rename(folder)
