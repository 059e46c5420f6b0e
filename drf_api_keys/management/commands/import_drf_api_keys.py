"""`manage.py import_drf_api_keys`: the keys of djangorestframework-api-key, digests and all."""

from __future__ import annotations

import time
from argparse import ArgumentParser
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from django.core.management.base import CommandError, OutputWrapper

from apikeys.generation import GenerationNotRaised
from apikeys.management.key_command import KeyCommand
from drf_api_keys.importing import Importer, Tally
from drf_api_keys.source import DEFAULT_TABLE, Source, SourceFailed, opened

SECONDS_BETWEEN_LINES: Final = 10.0
INTERRUPTED: Final = 130
"""What a shell calls a command that Ctrl-C has ended."""


class Command(KeyCommand):
    help = (
        "Imports the keys of djangorestframework-api-key, so that clients go on with the keys that"
        " they have. Their table is only read. Can be repeated, and interrupted."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--database-url",
            metavar="URL",
            help="where the old keys are: postgres://user@host/name or sqlite:////absolute/path;"
            " without this, in this project's own database",
        )
        parser.add_argument(
            "--table",
            default=DEFAULT_TABLE,
            metavar="NAME",
            help="of a model of your own that derives from AbstractAPIKey (default: %(default)s)",
        )
        parser.add_argument(
            "--dry-run", action="store_true", help="say what would be done, and write nothing"
        )

    def handle(self, *, table: str, dry_run: bool, **options: Any) -> None:
        try:
            with opened(table, options["database_url"]) as source:
                self._import(source, dry_run)
        except SourceFailed as failure:
            raise CommandError(str(failure)) from failure
        except GenerationNotRaised as failure:
            raise CommandError(f"{failure} To repeat it, run this command again.") from failure

    def _import(self, source: Source, dry_run: bool) -> None:
        total = source.count()
        progress = Progress(self.stderr, total)
        importer = Importer(source, dry_run=dry_run, say=progress.say)
        try:
            for taken in importer.run():
                progress.show(taken)
        except KeyboardInterrupt as interrupt:
            raise CommandError(
                "Interrupted: what was imported stays. Run this command again to go on.",
                returncode=INTERRUPTED,
            ) from interrupt
        finally:
            progress.end()
        for line in report(source, total, importer.tally, dry_run):
            self.stdout.write(line)
        if skipped := importer.tally.skipped:
            raise CommandError(f"{skipped:,} of {counted(total, 'key')} skipped: see above.")


class Progress:
    """How far it is: on a terminal in one line that changes, elsewhere in a line now and then."""

    def __init__(
        self, stream: OutputWrapper, total: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._stream = stream
        self._total = total
        self._clock = clock
        self._is_terminal = stream.isatty()
        self._last_shown = clock()
        self._line = ""

    def show(self, taken: int) -> None:
        line = f"{taken:,} of {counted(self._total, 'key')}"
        if self._is_terminal:
            self._rewrite(line)
            self._line = line
        elif (now := self._clock()) - self._last_shown >= SECONDS_BETWEEN_LINES:
            self._stream.write(line, style_func=str)
            self._last_shown = now

    def say(self, sentence: str) -> None:
        self.end()
        self._stream.write(sentence)

    def end(self) -> None:
        """Leave the line that changes, for others to be written."""
        if self._line:
            self._rewrite(f"{' ' * len(self._line)}\r")
            self._line = ""

    def _rewrite(self, line: str) -> None:
        self._stream.write(f"\r{line}", style_func=str, ending="")
        self._stream.flush()


def report(source: Source, total: int, tally: Tally, dry_run: bool) -> Iterator[str]:
    yield f"{source.table} has {counted(total, 'key')}."
    new = {
        "revoked": tally.imported_revoked,
        "expired": tally.imported_expired,
        "with a slow hash": tally.imported_slow,
    }
    yield f"{'To import' if dry_run else 'Imported'}: {of_these(tally.imported, new)}."
    since = {
        "revoked there since": tally.revoked_since,
        "with a faster hash since": tally.hashed_faster,
    }
    yield f"Imported before: {of_these(tally.known, since)}."
    if tally.gone:
        yield f"Imported before and no longer there: {tally.gone:,}."
    if tally.skipped:
        yield f"Skipped: {tally.skipped:,}."
    if tally.imported_unusual:
        yield (
            f"Not of the usual form: {tally.imported_unusual:,}. They are taken only by a class"
            " with a pattern of its own: docs/from-drf-api-key.md."
        )
    others = [table for table in source.tables if table != source.table]
    if others:
        yield f"Keys are also in {', '.join(others)}: import them with --table."
    if dry_run:
        yield "Nothing was written: this was a dry run."


def of_these(number: int, kinds: Mapping[str, int]) -> str:
    parts = [f"{count:,} {kind}" for kind, count in kinds.items() if count]
    return f"{number:,}, of these {', '.join(parts)}" if parts else f"{number:,}"


def counted(number: int, noun: str) -> str:
    return f"{number:,} {noun if number == 1 else noun + 's'}"
