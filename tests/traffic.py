"""HTTP clients for tests that care about when a request starts and how many go at once."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass


def get(key: str, address: str, path: str = "/") -> bytes:
    """A request as a trusted proxy would pass it on for a client at `address`."""
    return (
        f"GET {path} HTTP/1.1\r\nHost: localhost\r\nX-API-Key: {key}\r\n"
        f"X-Forwarded-For: {address}\r\n\r\n"
    ).encode()


async def all_at_once(port: int, requests: Sequence[bytes]) -> list[int]:
    """The status of each; every connection is open before the first request is sent."""
    connections = [await Connection.open(port) for _ in requests]
    for connection, request in zip(connections, requests, strict=True):
        connection.writer.write(request)
    try:
        return await asyncio.gather(*(connection.status() for connection in connections))
    finally:
        for connection in connections:
            connection.writer.close()


@dataclass
class Connection:
    """A kept-alive connection, opened anew when the server says that it closes it."""

    port: int
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    is_closed: bool = False

    @classmethod
    async def open(cls, port: int) -> Connection:
        return cls(port, *await asyncio.open_connection("127.0.0.1", port))

    async def ask(self, request: bytes) -> int:
        if self.is_closed:
            self.writer.close()
            self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self.port)
        self.writer.write(request)
        return await self.status()

    async def status(self) -> int:
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        fields = dict(line.lower().split(": ", 1) for line in head[1:] if ": " in line)
        await self.reader.readexactly(int(fields["content-length"]))
        self.is_closed = fields["connection"] == "close"
        return int(head[0].split()[1])
