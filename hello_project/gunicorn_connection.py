"""A client's connection to hello_project.gunicorn_worker, and what has arrived on it."""

from __future__ import annotations

import re
import socket
import struct
from collections import OrderedDict
from typing import Any, Final, cast

from gunicorn.http.message import Request
from gunicorn.http.parser import RequestParser
from gunicorn.workers.gthread import TConn

LONGEST_HEAD: Final = 65_536
LONGEST_BODY: Final = 65_536
"""Bytes; of more than these the rest is left to gunicorn, which refuses it or waits for it."""
STALL_SECONDS: Final = 10
"""How long the application waits for a client that stops sending a long body, or stops reading."""

_STALL_TIMEOUT: Final = struct.pack("ll", STALL_SECONDS, 0)
_CONTENT_LENGTH: Final = re.compile(rb"\r\ncontent-length:[ \t]*([0-9]{1,9})[ \t]*\r\n", re.I)
_EXPECTS_TO_BE_ASKED: Final = re.compile(rb"\r\nexpect:", re.I)


class Connection(TConn):
    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.received = bytearray()
        self.needed: int | None = None  # Bytes; None until the head is whole.
        self.queue: OrderedDict[Connection, float] | None = None
        self.discarded = 0
        for direction in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
            self.sock.setsockopt(socket.SOL_SOCKET, direction, _STALL_TIMEOUT)

    @property
    def request_is_whole(self) -> bool:
        return self.needed is not None and len(self.received) >= self.needed

    def take(self, arrived: bytes) -> None:
        search_from = max(len(self.received) - 3, 0)
        self.received += arrived
        if self.needed is None:
            head_end = self.received.find(b"\r\n\r\n", search_from)
            if head_end >= 0:
                self.needed = head_end + 4 + _body_to_wait_for(self.received[: head_end + 2])
            elif len(self.received) > LONGEST_HEAD:
                self.needed = 0

    def parse(self) -> Request | None:
        """The request, by gunicorn's parser, which finds it all without waiting.

        None when it is malformed. `ThreadWorker.handle` is told the same when it asks the parser.
        """
        self.init()
        parser = cast(RequestParser, self.parser)
        parser.unreader.unread(bytes(self.received))
        self.received.clear()
        self.needed = None
        request: Request | None
        outcome: Request | Exception
        try:
            request = outcome = next(parser)
        except Exception as error:  # Handled where `handle` meets it.
            request, outcome = None, error
        self.parser = cast(RequestParser, _ParsedAlready(self, parser, outcome))
        return request

    def take_back(self) -> None:
        """What the parser has read of the next request."""
        self.sock.setblocking(False)
        if read_ahead := cast(RequestParser, self.parser).unreader.take_buffered():
            self.take(read_ahead)

    @property
    def address(self) -> str:
        """The peer's, "" on a unix socket."""
        return self.client[0] if isinstance(self.client, tuple) else ""


class _ParsedAlready:
    """In the parser's place until it is asked for what it has parsed."""

    def __init__(
        self, connection: Connection, parser: RequestParser, outcome: Request | Exception
    ) -> None:
        self._connection, self._parser, self._outcome = connection, parser, outcome

    def __next__(self) -> Request:
        self._connection.parser = self._parser
        if isinstance(self._outcome, Exception):
            raise self._outcome
        return self._outcome


def _body_to_wait_for(head: bytearray) -> int:
    match = _CONTENT_LENGTH.search(head)
    length = int(match[1]) if match else 0
    if length > LONGEST_BODY or (length and _EXPECTS_TO_BE_ASKED.search(head)):
        return 0
    return length
