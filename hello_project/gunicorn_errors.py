"""Requests that gunicorn refuses before Django sees them, answered as problem+json too."""

from __future__ import annotations

import json
import socket

import gunicorn.util


def install() -> None:
    """Gunicorn has no setting for its error page; every worker calls this function of its."""
    gunicorn.util.write_error = write_error


def write_error(sock: socket.socket, status_int: int, reason: str, mesg: str) -> None:
    """Gunicorn's `mesg` is left out: it may quote what was sent, a key among it."""
    body = json.dumps(
        {"title": reason, "status": status_int, "detail": f"The server refused this: {reason}."}
    )
    head = (
        f"HTTP/1.1 {status_int} {reason}\r\n"
        "Connection: close\r\n"
        "Content-Type: application/problem+json\r\n"
        "Cache-Control: no-store\r\n"
        f"Content-Length: {len(body)}\r\n"
        "\r\n"
    )
    gunicorn.util.write_nonblock(sock, (head + body).encode("latin-1"))
