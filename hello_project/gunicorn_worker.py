"""The gunicorn worker that serves the site: one request at a time, on connections that stay open.

Gunicorn's own two were measured and found wanting (docs/decisions/0006-worker.md): `sync` waits for
each client to close its side, up to two seconds; `gthread` hands each request to another thread and
back; both wait for a client that is slow to send. Here nothing is read before the whole of a
request has arrived, and requests that have arrived meanwhile have their limits asked for together.
What HTTP is, and what a request becomes, stays gunicorn's.
"""

from __future__ import annotations

import errno
import selectors
import socket
import sys
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, Final

from gunicorn.config import Config
from gunicorn.glogging import Logger
from gunicorn.http.message import Request
from gunicorn.workers.gthread import TConn, ThreadWorker

from hello_project.gunicorn_connection import Connection

ARRIVAL_SECONDS: Final = 10.0
LINGER_SECONDS: Final = 2.0
"""How long an answered client has to close its side (RFC 9112, section 9.6)."""
REQUESTS_A_CONNECTION: Final = 100
"""After as many a client has to connect anew, to whichever worker has the most time for it."""
RECEIVE_BYTES: Final = 16_384
LONGEST_DISCARDED: Final = 65_536

_NOT_NOW: Final = (errno.EAGAIN, errno.EWOULDBLOCK, errno.ECONNABORTED)


class Worker(ThreadWorker):
    """Every connection is in one of three queues, oldest first, with the moment it is closed at.

    An application that has `ask_ahead` is asked what to add to the environs of the requests that
    are to be answered next, when these are several: hello_project.wsgi describes it.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._idle: OrderedDict[Connection, float] = OrderedDict()
        self._arriving: OrderedDict[Connection, float] = OrderedDict()
        self._lingering: OrderedDict[Connection, float] = OrderedDict()
        self._whole: dict[Connection, None] = {}
        self._addition: Mapping[str, Any] = {}

    @classmethod
    def check_config(cls, cfg: Config, log: Logger) -> None:
        if cfg.is_ssl:
            sys.exit("This worker speaks no TLS: put a proxy in front that does.")

    def load_wsgi(self) -> None:
        super().load_wsgi()
        application = self.wsgi
        self._ask_ahead: Callable[[Sequence[Any]], list[dict[str, Any]]] | None = getattr(
            application, "ask_ahead", None
        )

        def with_addition(environ: Any, start_response: Any) -> Iterable[bytes]:
            environ.update(self._addition)
            return application(environ, start_response)

        self.wsgi = with_addition

    # Connections

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
        if connection.queue is self._lingering:
            connection.discarded += len(arrived)
            if not arrived or connection.discarded > LONGEST_DISCARDED:
                self._close(connection)
            return
        if arrived:
            if connection.queue is self._idle:
                self._move(connection, self._arriving, ARRIVAL_SECONDS)
            connection.take(arrived)
        elif connection.received:
            connection.needed = 0  # No more of it will come; gunicorn says what is wrong with that.
        else:
            self._close(connection)
        if connection.request_is_whole:
            self._whole[connection] = None

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

    # Requests

    def wait_for_and_dispatch_events(self, timeout: float | None) -> None:
        """Gunicorn's loop calls this in every round, and `_receive` is what it dispatches to."""
        super().wait_for_and_dispatch_events(timeout)
        connections, self._whole = self._whole, {}
        requests = [
            (connection, connection.parse())
            for connection in connections
            if connection.queue is not None
        ]
        for (connection, _), addition in zip(requests, self._additions(requests), strict=True):
            self._addition = addition
            self._answer(connection)

    def _additions(
        self, requests: Sequence[tuple[Connection, Request | None]]
    ) -> list[dict[str, Any]]:
        additions: list[dict[str, Any]] = [{} for _ in requests]
        if self._ask_ahead is None or len(requests) < 2:
            return additions
        asking = [
            (number, request.path or "", _client_fields(connection, request))
            for number, (connection, request) in enumerate(requests)
            if request is not None and not request.proxy_protocol_info
        ]
        try:
            answers = self._ask_ahead([(path, fields) for _, path, fields in asking])
        except Exception:  # Each request finds out by itself, and answers for it.
            self.log.exception("Could not ask ahead.")
            return additions
        for (number, _, _), answer in zip(asking, answers, strict=True):
            additions[number] = answer
        return additions

    def _answer(self, connection: Connection) -> None:
        if not self.handle(connection):
            self._linger(connection)
            return
        connection.take_back()
        if connection.received:
            self._move(connection, self._arriving, ARRIVAL_SECONDS)
            # Together with those that have arrived meanwhile, in the next round.
            self.method_queue.defer(self._take_in, connection)
        else:
            self._move(connection, self._idle, self.cfg.keepalive)

    def _take_in(self, connection: Connection) -> None:
        if connection.request_is_whole:
            self._whole[connection] = None

    def handle_request(self, req: Request, conn: TConn) -> bool:
        if req.req_number >= REQUESTS_A_CONNECTION:
            req.force_close()
        return super().handle_request(req, conn)


def _client_fields(connection: Connection, request: Request) -> dict[str, str]:
    """Of the environ that gunicorn will make, what tells the client's address."""
    forwarded = [value for name, value in request.headers if name == "X-FORWARDED-FOR"]
    fields = {"REMOTE_ADDR": connection.address}
    if forwarded:
        fields["HTTP_X_FORWARDED_FOR"] = ",".join(forwarded)
    return fields
