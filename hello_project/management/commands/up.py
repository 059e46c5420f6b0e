"""`manage.py up`: the API, with whatever it needs that is not there yet."""

from __future__ import annotations

import http.client
import os
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
from argparse import ArgumentParser
from typing import Any, Final
from urllib.parse import urlsplit

from django.conf import settings
from django.contrib.auth import get_user_model
from django.core.management import call_command
from django.core.management.base import BaseCommand
from django.db import connection
from django.db.migrations.executor import MigrationExecutor

from apikeys.models import ApiKey
from hello_project import children, environment, installation
from hello_project.embedded import EmbeddedStore, EmbeddedStoreFailed
from hello_project.installation import NotUsable

START_SECONDS: Final = 60.0
DRAIN_SECONDS: Final = 3.5
LOOK_SECONDS: Final = 0.2


class Command(BaseCommand):
    help = "Serves the API; starts an embedded store and makes a database where none is set."
    requires_system_checks = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--host", default=settings.HOST, help="default: HOST, %(default)s")
        parser.add_argument(
            "--port", type=int, default=settings.PORT, help="default: PORT, %(default)s"
        )
        parser.add_argument(
            "--workers",
            type=int,
            default=settings.WEB_CONCURRENCY,
            help="default: WEB_CONCURRENCY, or one a core",
        )

    def handle(self, *, host: str, port: int, workers: int, **options: Any) -> None:
        stopping = threading.Event()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, lambda *_: stopping.set())
        try:
            self._check_numbers(port, workers)
            self._serve(host, port, workers, stopping)
        except (NotUsable, EmbeddedStoreFailed) as error:
            sys.exit(str(error))

    def _check_numbers(self, port: int, workers: int) -> None:
        if not 1 <= port <= 65535:
            raise NotUsable(f"--port is {port}: give a number from 1 to 65535.")
        if workers < 1:
            raise NotUsable(f"--workers is {workers}: give at least 1.")

    def _serve(self, host: str, port: int, workers: int, stopping: threading.Event) -> None:
        url = _url(host, port)
        installation.prepare_data_dir(settings.DATA_DIR)
        with (
            installation.lock(settings.DATA_DIR, url),
            installation.listen(host, port) as listener,
        ):
            embedded = EmbeddedStore(settings.DATA_DIR) if settings.STORE_IS_EMBEDDED else None
            if embedded is None:
                installation.reach_store(settings.REDIS_URL)
            installation.reach_database()
            server = None
            try:
                if embedded:
                    embedded.start()
                lines = [*self._prepare(url), *_about_the_host(host)]
                server = _start_server(listener, host, port, workers)
                if _answers(server, url, stopping):
                    self.stdout.write("\n".join(lines))
                    self.stdout.flush()
                    self._watch(server, embedded, stopping)
            finally:
                if server:
                    children.stop(server, DRAIN_SECONDS)
                if embedded:
                    embedded.stop(seconds=1.0)

    def _prepare(self, url: str) -> list[str]:
        """Secret, tables, first administrator and first key; what to tell of them."""
        if not settings.SECRET_KEY_IS_SET:
            installation.ensure_secret_key(settings.SECRET_KEY_PATH)
        executor = MigrationExecutor(connection)
        if executor.migration_plan(executor.loader.graph.leaf_nodes()):
            call_command("migrate", verbosity=0, interactive=False)
        login = _first_login()
        key = _first_key()
        connection.close()
        return [
            f"API    {url}",
            f"Admin  {url}admin/{login}",
            f"Docs   {url}docs/",
            *_how_to_call(url, key),
            "Stop with Ctrl-C.",
        ]

    def _watch(
        self,
        server: subprocess.Popen[bytes],
        embedded: EmbeddedStore | None,
        stopping: threading.Event,
    ) -> None:
        """Until told to stop. Starts the embedded store again should it die."""
        while not stopping.wait(LOOK_SECONDS):
            if server.poll() is not None:
                raise NotUsable(f"The server ended with {server.returncode}; its log says why.")
            if embedded and embedded.has_died():
                self.stderr.write("The embedded store has died; starting it again.")
                embedded.start()


def _start_server(
    listener: socket.socket, host: str, port: int, workers: int
) -> subprocess.Popen[bytes]:
    variables = {
        "HTTPS": "off",  # Nothing in front of it unless the environment says so.
        **os.environ,
        "HOST": host,
        "PORT": str(port),
        "WEB_CONCURRENCY": str(workers),
    }
    bind = f"fd://{listener.fileno()}"
    return children.start(
        [sys.executable, "-m", "gunicorn", "--bind", bind, "hello_project.wsgi"],
        env=variables,
        cwd=settings.BASE_DIR,
        pass_fds=[listener.fileno()],
    )


def _url(host: str, port: int) -> str:
    """Where it answers on this machine: a server on every address is asked on the loopback one."""
    reachable = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - as given
    return f"http://{f'[{reachable}]' if ':' in reachable else reachable}:{port}/"


def _answers(server: subprocess.Popen[bytes], url: str, stopping: threading.Event) -> bool:
    """Wait for the first answer; False when told to stop before. Raises NotUsable."""
    address = urlsplit(url)
    deadline = time.monotonic() + START_SECONDS
    while not stopping.is_set():
        if server.poll() is not None or time.monotonic() > deadline:
            raise NotUsable("The server did not start; what it printed above says why.")
        client = http.client.HTTPConnection(str(address.hostname), address.port, timeout=1)
        try:
            client.request("GET", "/livez")
            client.getresponse()
        except OSError:
            stopping.wait(0.02)
        else:
            return True
        finally:
            client.close()
    return False


def _first_login() -> str:
    users = get_user_model()._default_manager
    if users.exists():
        return ""
    password = secrets.token_urlsafe(16)
    users.create_superuser(username="admin", password=password)
    return f"  user admin, password {password}"


def _first_key() -> str | None:
    if ApiKey.objects.exists():
        return None
    _, plaintext = ApiKey.objects.issue(name="demo")
    return plaintext


def _how_to_call(url: str, key: str | None) -> list[str]:
    limit = f"{settings.IP_RATE_LIMIT.limit + 1} times within {settings.IP_RATE_LIMIT.window:g} s"
    if key is None:
        return ["Keys   issue one with `python3 manage.py issue_key NAME`, or in the admin."]
    return [
        f"Key    {key}",
        "",
        "Password and key are shown this once. Try it:",
        "",
        f'curl -i -H "Authorization: Bearer {key}" {url}',
        "",
        f'Run that {limit}: the last answers 429, "Rate limit exceeded".',
    ]


def _about_the_host(host: str) -> list[str]:
    if host in ("127.0.0.1", "::1", "localhost") or environment.text("ALLOWED_HOSTS"):
        return []
    return ["Only localhost is answered as a host name: set ALLOWED_HOSTS to the others."]
