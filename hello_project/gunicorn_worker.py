"""The gunicorn worker that serves the site: one request at a time, on connections that stay open.

Gunicorn's own two were measured and found wanting (docs/decisions/0006-worker.md): `sync` waits for
each client to close its side, up to two seconds; `gthread` hands each request to another thread and
back. Both wait, one way or another, for a client that is slow to send. Here nothing is read before
the whole of a request has arrived, and what the application does with it stays gunicorn's.
"""

from __future__ import annotations

import errno
import re
import selectors
import socket
import struct
import sys
import time
from collections import OrderedDict
from functools import partial
from typing import Any, Final, cast

from gunicorn.config import Config
from gunicorn.glogging import Logger
from gunicorn.http.message import Request
from gunicorn.http.parser import RequestParser
from gunicorn.http.unreader import Unreader
from gunicorn.workers.gthread import TConn, ThreadWorker

ARRIVAL_SECONDS: Final = 10.0
LINGER_SECONDS: Final = 2.0
"""How long an answered client has to close its side (RFC 9112, section 9.6)."""
REQUESTS_A_CONNECTION: Final = 100
"""After as many a client has to connect anew, to whichever worker has the most time for it."""
LONGEST_HEAD: Final = 65_536
LONGEST_BODY: Final = 65_536
"""More than these is left to gunicorn, which refuses it or waits for it."""
STALL_SECONDS: Final = 10
"""How long the application waits for a client that stops sending a long body, or stops reading."""
RECEIVE_BYTES: Final = 16_384
LONGEST_DISCARDED: Final = 65_536

_STALL_TIMEOUT: Final = struct.pack("ll", STALL_SECONDS, 0)
_NOT_NOW: Final = (errno.EAGAIN, errno.EWOULDBLOCK, errno.ECONNABORTED)
_CONTENT_LENGTH: Final = re.compile(rb"\r\ncontent-length:[ \t]*([0-9]{1,9})[ \t]*\r\n", re.I)
_EXPECTS_TO_BE_ASKED: Final = re.compile(rb"\r\nexpect:", re.I)


class Connection(TConn):
    """A client's connection and what has arrived on it of the next request."""

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

    def hand_over(self) -> None:
        """To gunicorn's parser, which finds all of the request there without waiting."""
        self.init()
        self._unreader.unread(bytes(self.received))
        self.received.clear()
        self.needed = None

    def take_back(self) -> None:
        """What the parser has read of the next request."""
        self.sock.setblocking(False)
        if read_ahead := self._unreader.take_buffered():
            self.take(read_ahead)

    @property
    def _unreader(self) -> Unreader:
        return cast(RequestParser, self.parser).unreader


def _body_to_wait_for(head: bytearray) -> int:
    match = _CONTENT_LENGTH.search(head)
    length = int(match[1]) if match else 0
    if length > LONGEST_BODY or (length and _EXPECTS_TO_BE_ASKED.search(head)):
        return 0
    return length


class Worker(ThreadWorker):
    """Every connection is in one of three queues, oldest first, with the moment it is closed at."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._idle: OrderedDict[Connection, float] = OrderedDict()
        self._arriving: OrderedDict[Connection, float] = OrderedDict()
        self._lingering: OrderedDict[Connection, float] = OrderedDict()

    @classmethod
    def check_config(cls, cfg: Config, log: Logger) -> None:
        if cfg.is_ssl:
            sys.exit("This worker speaks no TLS: put a proxy in front that does.")

    def accept(self, listener: socket.socket) -> None:
        try:
            sock, client = listener.accept()
        except OSError as error:
            if error.errno not in _NOT_NOW:
                raise
            return
        connection = Connection(self.cfg, sock, client, listener.getsockname())
        self.nr_conns += 1
        self._move(connection, self._arriving, ARRIVAL_SECONDS)
        self.poller.register(sock, selectors.EVENT_READ, partial(self._receive, connection))
        if self.nr_conns >= self.worker_connections:
            self._close(next(iter(self._idle or self._arriving or self._lingering)))

    def _receive(self, connection: Connection, sock: socket.socket) -> None:
        if connection.queue is None:
            return  # Closed since the poller reported it.
        try:
            arrived = sock.recv(RECEIVE_BYTES)
        except BlockingIOError:
            return
        except OSError:
            arrived = b""
        if not arrived and connection.received:
            connection.needed = 0  # No more of it will come; gunicorn says what is wrong with that.
            self._answer(connection)
        elif not arrived:
            self._close(connection)
        elif connection.queue is self._lingering:
            connection.discarded += len(arrived)
            if connection.discarded > LONGEST_DISCARDED:
                self._close(connection)
        else:
            if connection.queue is self._idle:
                self._move(connection, self._arriving, ARRIVAL_SECONDS)
            connection.take(arrived)
            self._answer(connection)

    def _answer(self, connection: Connection) -> None:
        if connection.queue is None or not connection.request_is_whole:
            return
        connection.hand_over()
        if not self.handle(connection):
            self._linger(connection)
            return
        connection.take_back()
        if connection.received:
            self._move(connection, self._arriving, ARRIVAL_SECONDS)
            self.method_queue.defer(self._answer, connection)  # After those that wait already.
        else:
            self._move(connection, self._idle, self.cfg.keepalive)

    def handle_request(self, req: Request, conn: TConn) -> bool:
        if req.req_number >= REQUESTS_A_CONNECTION:
            req.force_close()
        return super().handle_request(req, conn)

    def _linger(self, connection: Connection) -> None:
        """Until the client has closed its side too: closing at once could cut off the answer."""
        try:
            connection.sock.shutdown(socket.SHUT_WR)
            connection.sock.setblocking(False)
        except OSError:
            self._close(connection)
        else:
            self._move(connection, self._lingering, LINGER_SECONDS)

    def _close(self, connection: Connection) -> None:
        if connection.queue is None:
            return
        del connection.queue[connection]
        connection.queue = None
        self.poller.unregister(connection.sock)
        connection.close()
        self.nr_conns -= 1

    def _move(
        self, connection: Connection, queue: OrderedDict[Connection, float], seconds: float
    ) -> None:
        if connection.queue is not None:
            del connection.queue[connection]
        queue[connection] = time.monotonic() + seconds
        connection.queue = queue

    def murder_keepalived(self, force: bool = False) -> None:
        """Gunicorn's loop calls this in every round: closes what has waited too long."""
        now = time.monotonic()
        for queue in (self._idle, self._arriving, self._lingering):
            while queue:
                connection, deadline = next(iter(queue.items()))
                if deadline > now and not force:
                    break
                self._close(connection)

    def _cap_keepalive(self, deadline: float) -> None:
        """When the worker stops, idle connections stay a moment: a request may be under way."""
        for connection in self._idle:
            self._idle[connection] = min(self._idle[connection], deadline)
