"""Load on one server by wrk, the Debian package."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

CONNECTIONS: Final = 16
_SCRIPT: Final = Path(__file__).with_name("wrk.lua")


@dataclass(frozen=True)
class Load:
    """What one run of wrk saw.

    `refusals` is the answers with a status of 400 and above; `statuses` is empty unless they were
    asked for. The latencies are wrk's, in milliseconds.
    """

    requests: int
    seconds: float
    p50_ms: float
    p99_ms: float
    refusals: int
    socket_errors: int
    statuses: Mapping[int, int] = field(default_factory=dict)

    @property
    def rate(self) -> float:
        """Requests a second."""
        return self.requests / self.seconds


class NoConnection(Exception):
    """wrk found nobody at the port."""


def check() -> None:
    """Ends the process with a sentence when wrk is not installed."""
    if shutil.which("wrk") is None:
        sys.exit("wrk is not installed: apt-get install wrk")


def get(path: str, headers: Mapping[str, str]) -> str:
    """A GET request as it goes over the wire."""
    lines = [f"GET {path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join([*lines, "", ""])


def run(
    port: int,
    requests: Sequence[str],
    seconds: int,
    *,
    connections: int = CONNECTIONS,
    count_statuses: bool = False,
) -> Load:
    """Send `requests` in turn, over and over, to a server on loopback, for whole `seconds`.

    Raises NoConnection.
    """
    with tempfile.NamedTemporaryFile("w", newline="", prefix="requests-") as file:
        file.write("\0".join(requests))
        file.flush()
        environment = {"PATH": os.environ["PATH"], "REQUESTS": file.name}
        if count_statuses:
            environment["COUNT_STATUSES"] = "1"
        command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "-s", str(_SCRIPT)]
        result = subprocess.run(
            [*command, f"http://127.0.0.1:{port}/"],
            check=False,
            env=environment,
            capture_output=True,
            text=True,
        )
    if result.returncode:
        raise NoConnection(result.stderr.strip())
    return _parse(result.stdout)


def _parse(output: str) -> Load:
    seen = json.loads(output.rstrip().rpartition("\n")[2])
    return Load(
        requests=seen["requests"],
        seconds=seen["duration_us"] / 1e6,
        p50_ms=seen["p50_us"] / 1e3,
        p99_ms=seen["p99_us"] / 1e3,
        refusals=seen["from_400_on"],
        socket_errors=seen["socket_errors"],
        statuses={int(status): count for status, count in seen["statuses"].items()},
    )
