"""From nothing to a running API, as a person does it: clone, `python3 manage.py up`, curl.

    python3 tests/first_start.py

Takes the committed state of this checkout, any Python 3.11 without packages, git and curl. Ends
with 1 and a sentence when something takes too long or answers otherwise.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent
FIRST_ANSWER_SECONDS, SECOND_ANSWER_SECONDS, STOP_SECONDS = 90, 3, 5
OURS = "VIRTUAL_ENV PYTHONPATH DJANGO_SETTINGS_MODULE SECRET_KEY DATABASE_URL REDIS_URL DATA_DIR"


def main() -> None:
    bare = {name: value for name, value in os.environ.items() if name not in OURS.split()}
    with tempfile.TemporaryDirectory() as folder:
        clone = Path(folder) / "clone"
        subprocess.run(["git", "clone", "--quiet", str(PROJECT), str(clone)], check=True)
        with up(clone, bare) as (port, said):
            seconds = wait_for_answer(port, FIRST_ANSWER_SECONDS)
            print(f"The first start answered after {seconds:.1f} s.")
            curl = curl_line(said)
            statuses = [status_of(curl) for _ in range(4)]
            print(f"The printed curl line, four times: {' '.join(statuses)}")
            if statuses != ["200", "200", "200", "429"]:
                sys.exit("That should have been 200 200 200 429.")
        with up(clone, bare) as (port, _):
            seconds = wait_for_answer(port, SECOND_ANSWER_SECONDS)
            print(f"The second start answered after {seconds:.1f} s.")


@contextlib.contextmanager
def up(clone: Path, environment: dict[str, str]) -> Iterator[tuple[int, Path]]:
    """A running `manage.py up`: its port, and the file that holds what it prints on stdout."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    said = clone.parent / "stdout"
    with said.open("wb") as stdout:
        command = ["python3", "manage.py", "up", "--port", str(port)]
        process = subprocess.Popen(command, cwd=clone, env=environment, stdout=stdout)
    try:
        yield port, said
    finally:
        process.send_signal(signal.SIGINT)
        started = time.monotonic()
        code = process.wait(60)
        print(f"Ctrl-C stopped it within {time.monotonic() - started:.1f} s, exit code {code}.")
    if code != 0 or time.monotonic() - started > STOP_SECONDS:
        sys.exit(f"It should have stopped within {STOP_SECONDS} s with exit code 0.")


def wait_for_answer(port: int, within: float) -> float:
    """Seconds until the API answers."""
    started = time.monotonic()
    while time.monotonic() - started < within:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/livez", timeout=within).close()
        except OSError:
            time.sleep(0.02)  # Nothing listens yet, and nothing tells when it will.
        else:
            return time.monotonic() - started
    sys.exit(f"There was no answer within {within} s.")


def curl_line(said: Path) -> list[str]:
    deadline = time.monotonic() + STOP_SECONDS
    while time.monotonic() < deadline:  # It is printed just after the first answer.
        for line in said.read_text().splitlines(keepends=True):
            if line.startswith("curl") and line.endswith("\n"):
                return shlex.split(line)
        time.sleep(0.02)  # A file does not tell when it grows.
    sys.exit(f"`up` printed no line that begins with curl:\n{said.read_text()}")


def status_of(curl: list[str]) -> str:
    command = [*curl, "-s", "-o", os.devnull, "-w", "%{http_code}"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout[-3:]


if __name__ == "__main__":
    main()
