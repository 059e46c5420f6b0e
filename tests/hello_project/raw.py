"""HTTP byte by byte, for what no client would send."""

from __future__ import annotations

import io
import itertools
import json
import socket
import struct
from dataclasses import dataclass
from http import HTTPStatus
from http.client import HTTPResponse
from typing import Any, cast

_numbers = itertools.count()


@dataclass(frozen=True)
class Answer:
    status: int
    fields: dict[str, str]
    """By their names in lower case."""
    body: bytes
    rest: bytes
    """What the server sent beyond the answer."""

    def problem(self, status: int) -> dict[str, Any]:
        """The body, when this is that status's problem as the site promises it, and all of it."""
        assert self.status == status, self
        assert self.fields["content-type"] == "application/problem+json"
        assert self.fields["cache-control"] == "no-store"
        assert self.rest == b""
        found: dict[str, Any] = json.loads(self.body)
        assert list(found)[:3] == ["title", "status", "detail"]
        assert found["title"] == HTTPStatus(status).phrase
        assert found["status"] == status
        assert found["detail"]
        return found


def request(
    line: bytes, *fields: bytes, host: bytes = b"localhost", keep: bool = False, body: bytes = b""
) -> bytes:
    """As a trusted proxy passes it on, for a new client each time."""
    number = next(_numbers)
    head = [
        line,
        b"Host: " + host,
        b"X-Forwarded-For: 10.%d.%d.1" % (number // 250 % 250, number % 250),
        *([] if keep else [b"Connection: close"]),
        *fields,
    ]
    return b"\r\n".join(head) + b"\r\n\r\n" + body


def send(port: int, sent: bytes) -> Answer:
    """What comes back until the server closes; the client has nothing more to say after `sent`."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        connection.sendall(sent)
        connection.shutdown(socket.SHUT_WR)
        received = _Received(b"".join(iter(lambda: connection.recv(65_536), b"")))
    method = sent.split(b" ")[0].decode("latin-1")
    response = HTTPResponse(cast("socket.socket", received), method=method)
    response.begin()
    fields = {name.lower(): value for name, value in response.getheaders()}
    return Answer(response.status, fields, response.read(), received.read())


def send_and_reset(port: int, sent: bytes) -> None:
    """The client dies instead of reading an answer."""
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(sent)
        linger_for_nothing = struct.pack("ii", 1, 0)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger_for_nothing)


class _Received(io.BytesIO):
    """What http.client takes for a socket."""

    def makefile(self, *_: Any) -> _Received:
        return self

    def close(self) -> None:
        """What follows the first answer is to be read."""
