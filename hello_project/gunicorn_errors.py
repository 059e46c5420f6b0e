"""What gunicorn refuses before Django sees it: a problem too, and what was sent not logged."""

from __future__ import annotations

import json
import logging
import re
import socket
from http import HTTPStatus
from typing import Final

import gunicorn.util
from gunicorn.http.errors import ParseException
from gunicorn.http.parser import Parser

_BEFORE_WHAT_WAS_SENT: Final = re.compile(
    r"Invalid request from .*?(?=b?['\"])|Error handling request [^?]*(?=\?)|"
    r"Ignored premature client disconnection"
)


def install() -> None:
    """Gunicorn has no settings for these; every worker goes through what is replaced here."""
    gunicorn.util.write_error = write_error
    Parser.finish_body = finish_body  # type: ignore[assignment, method-assign]  # Stubs say None.
    logging.getLogger("gunicorn.error").addFilter(leave_out_what_was_sent)


def write_error(sock: socket.socket, status_int: int, reason: str, mesg: str) -> None:
    """Gunicorn's `mesg` is left out: it may quote what was sent, a key among it."""
    phrase = HTTPStatus(status_int).phrase
    body = json.dumps(
        {"title": phrase, "status": status_int, "detail": f"The server refused this: {phrase}."}
    )
    head = (
        f"HTTP/1.1 {status_int} {phrase}\r\n"
        "Connection: close\r\n"
        "Content-Type: application/problem+json\r\n"
        "Cache-Control: no-store\r\n"
        f"Content-Length: {len(body)}\r\n"
        "\r\n"
    )
    gunicorn.util.write_nonblock(sock, (head + body).encode("latin-1"))


_finish_body = Parser.finish_body


def finish_body(
    parser: Parser, deadline: float | None = None, max_bytes: int | None = None
) -> bool:
    """Close a connection whose unread body is malformed: its request has been answered already."""
    try:
        return bool(_finish_body(parser, deadline, max_bytes))
    except ParseException:
        return False


def leave_out_what_was_sent(record: logging.LogRecord) -> bool:
    """A log filter: gunicorn quotes request lines and fields, and a key may be in them."""
    before = _BEFORE_WHAT_WAS_SENT.match(record.getMessage())
    if before:
        record.msg, record.args = f"{before[0]}…", None
    return True
