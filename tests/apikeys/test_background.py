from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from textwrap import dedent

import pytest
from django.conf import settings

from apikeys.background import FlushedInBackground
from tests.servers import wait_for


class Words(FlushedInBackground):
    """Gathers words and writes them into a list; the first flush can be held up, or fail."""

    _gathered: list[str]

    def __init__(self, flush_seconds: float) -> None:
        self.written: list[str] = []
        self.taken = threading.Event()
        self.hold: threading.Event | None = None
        self.failures = 0
        super().__init__(flush_seconds)

    def note(self, word: str) -> None:
        with self._lock:
            self._gathered.append(word)
        self.ensure_flushes()

    def write(self) -> None:
        if self.failures:
            self.failures -= 1
            raise RuntimeError("a defect")
        with self._lock:
            gathered, self._gathered = self._gathered, []
        if gathered:
            self.taken.set()
            hold, self.hold = self.hold, None
            assert hold is None or hold.wait(10)
            self.written += gathered

    def clear(self) -> None:
        with self._lock:
            self._gathered = []


@pytest.fixture
def often() -> Iterator[Words]:
    words = Words(flush_seconds=0.01)
    yield words
    words.stop()


def threads_of(kind: type[FlushedInBackground]) -> int:
    return sum(thread.name == f"flush-{kind.__name__}" for thread in threading.enumerate())


def test_nothing_runs_before_something_is_gathered(often: Words) -> None:
    assert threads_of(Words) == 0
    often.note("first")
    assert threads_of(Words) == 1


def test_a_thread_flushes_again_and_again(often: Words) -> None:
    for word in ("one", "two", "three"):
        often.taken.clear()
        often.note(word)
        assert often.taken.wait(5)
    wait_for(lambda: often.written == ["one", "two", "three"], seconds=5)


def test_threads_that_gather_at_once_start_a_single_one(often: Words) -> None:
    threads = [threading.Thread(target=often.ensure_flushes) for _ in range(8)]
    with often._lock:
        for thread in threads:
            thread.start()
            thread.join(0.01)  # It gets as far as the lock, having found that nothing runs.
    for thread in threads:
        thread.join()
    assert threads_of(Words) == 1


def test_a_flush_that_fails_is_logged_and_the_next_one_comes(
    often: Words, caplog: pytest.LogCaptureFixture
) -> None:
    often.failures = 1
    often.note("kept")
    wait_for(lambda: often.written == ["kept"], seconds=5)
    assert caplog.messages == ["Words could not be flushed."]
    assert "a defect" in caplog.text


def test_the_last_flush_waits_for_the_one_under_way(often: Words) -> None:
    often.hold = go_on = threading.Event()
    often.note("taken by the thread")
    assert often.taken.wait(5)
    often.note("gathered since")
    stopping = threading.Thread(target=often.stop)
    stopping.start()
    stopping.join(0.05)
    assert stopping.is_alive()
    go_on.set()
    stopping.join(5)
    assert often.written == ["taken by the thread", "gathered since"]


def test_after_the_last_flush_the_thread_ends(often: Words) -> None:
    often.note("word")
    often.stop()
    assert often.written == ["word"]
    wait_for(lambda: threads_of(Words) == 0, seconds=5)


def test_a_process_that_ends_in_order_flushes_once_more() -> None:
    program = """
        words = Words(3600)
        words.note("only one")
    """
    assert said_by(program) == ["only one"]


def test_a_forked_child_flushes_by_itself_and_only_what_is_its_own() -> None:
    program = """
        words = Words(3600)
        words.note("parent's")
        child = os.fork()
        if child == 0:
            words.flush_seconds = 0.01
            words.note("child's")
            words.written_one.wait(10)
            os._exit(0)  # No last flush: its thread has done it.
        os.waitpid(child, 0)
    """
    assert said_by(program) == ["child's", "parent's"]


def test_a_forked_child_that_gathers_nothing_flushes_nothing() -> None:
    program = """
        words = Words(3600)
        words.note("parent's")
        child = os.fork()
        if child:
            os.waitpid(child, 0)
        else:
            words.write = lambda: print("child's", flush=True)
    """
    assert said_by(program) == ["parent's"]


def test_a_child_forked_in_the_middle_of_a_flush_is_not_stuck() -> None:
    program = """
        words = Words(3600)
        words.note("parent's")
        with words._flushing, words._lock:
            child = os.fork()
            if child == 0:
                words.note("child's")
                sys.exit()
            os.waitpid(child, 0)
    """
    assert said_by(program) == ["child's", "parent's"]


def said_by(program: str) -> list[str]:
    """What a process of its own flushes, line by line, in the order of the flushes."""
    about_forking = ["-W", "ignore::DeprecationWarning"]  # With a thread, as here; from 3.12 on.
    done = subprocess.run(
        [sys.executable, *about_forking, "-c", PRELUDE + dedent(program)],
        cwd=settings.BASE_DIR,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


PRELUDE = """
import os, sys
from threading import Event
from apikeys.background import FlushedInBackground

class Words(FlushedInBackground):
    written_one = Event()

    def note(self, word):
        with self._lock:
            self._gathered.append(word)
        self.ensure_flushes()

    def write(self):
        with self._lock:
            gathered, self._gathered = self._gathered, []
        for word in gathered:
            print(word, flush=True)
            self.written_one.set()

    def clear(self):
        with self._lock:
            self._gathered = []

"""
