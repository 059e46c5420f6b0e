"""Which network rule decides on a request: found in this process's copy of the operators' rules.

A copy is trusted for a second. A thread looks earlier than that at throttling.changes and takes the
rules over from the database when that number has changed; a request that finds the copy older, as
the first one of an idle process does, looks first. So what an operator changes holds everywhere
within a second, and a request asks neither the store nor the database for it.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from datetime import datetime
from math import inf
from threading import Lock
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from django.apps import apps
from django.conf import settings
from django.db import Error, connection, transaction
from django.utils import timezone
from django_redis import get_redis_connection
from redis.exceptions import RedisError

from throttling import changes, matches
from throttling.clients import client_address
from throttling.networks import NetworkTable
from throttling.rates import InvalidRateLimit, RateLimit
from throttling.refusals import refusals
from throttling.watcher import Watcher

if TYPE_CHECKING:
    from redis import Redis

logger = logging.getLogger(__name__)

META_NAME: Final = "throttling.network_rule"
"""The META entry with the Rule that decides on this request, None when none does."""

LOOK_SECONDS: Final = 0.7
TRUSTED_SECONDS: Final = 1.0
RETRY_SECONDS: Final = 3.0
"""Between two readings of the database while the store does not tell whether anything changed, or
the database failed."""
RELOAD_SECONDS: Final = 60.0
"""The rules are read anew after so long even if nothing was announced: whoever saved one may have
died before saying so."""
LONGEST_WAIT: Final = 0.25
"""Of a request, for the thread that is taking the rules over."""

_ATTEMPTS_TO_ANNOUNCE: Final = 3


@dataclass(frozen=True, slots=True)
class Rule:
    """A models.NetworkRule, as a request goes by it. `rate` goes with the action "rate" only."""

    pk: int
    network: str
    action: str
    rate: RateLimit | None
    ends_at: datetime | None

    @property
    def blocks(self) -> bool:
        return self.action == "block"

    @property
    def exempts(self) -> bool:
        return self.action == "exempt"


Load: TypeAlias = Callable[[], Sequence[Rule]]


class RulesOfProcess:
    """The copy. `load` reads the rules from the database; `clock` gives monotonic seconds."""

    _changes: int | None
    """The number that the rules were read under, None when there was none."""

    def __init__(
        self,
        load: Load,
        trusted_seconds: float = TRUSTED_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._load = load
        self.trusted_seconds = trusted_seconds
        self._clock = clock
        self._rules: Sequence[Rule] = ()
        self._table: NetworkTable[Rule] = NetworkTable()
        self._next_end: datetime | None = None
        self._database_failed = False
        self._begin()

    def find(self, address: str) -> Rule | None:
        """`address` is in canonical form."""
        if self._clock() >= self._trusted_until:
            self._look_before_deciding()
        return self._table.find(address)

    @property
    def is_empty(self) -> bool:
        """Whether there are no rules, for sure."""
        return self._table.is_empty and self._clock() < self._trusted_until

    def distrust(self) -> None:
        """Look before the next decision: this process has itself changed a rule."""
        self._trusted_until = -inf

    def take(self, rules: Sequence[Rule], changes: int | None, read_at: float) -> None:
        """Go by these, which were read when throttling.changes was this, for `trusted_seconds`."""
        self._rules, self._changes, self._read_at = rules, changes, read_at
        self._rebuild()
        self._trusted_until = read_at + self.trusted_seconds

    def look(self) -> None:
        """Take over what operators have changed. Never raises: without the store or the database
        the rules stay what they are."""
        with self._looking:
            self._look()

    def _look_before_deciding(self) -> None:
        if not self._looking.acquire(timeout=LONGEST_WAIT):
            # The thread is at it, and the database hangs. It will say when it is through.
            self._trusted_until = inf
            return
        try:
            if self._clock() >= self._trusted_until:
                self._look()
        finally:
            self._looking.release()

    def _look(self) -> None:
        at = self._clock()
        number = _read_changes()
        if number is not None:
            refusals.confirm(number, at)
        if self._is_to_be_read(number, at):
            self._read(number, at)
        elif self._next_end is not None and self._next_end <= timezone.now():
            self._rebuild()
        unsure = number is None or self._database_failed
        # While there is no telling, the thread tries often enough; requests need not as well.
        self._trusted_until = at + (2 * RETRY_SECONDS if unsure else self.trusted_seconds)

    def _is_to_be_read(self, number: int | None, at: float) -> bool:
        since = at - self._read_at
        if number is None or self._database_failed:
            return since >= RETRY_SECONDS
        return number != self._changes or since >= RELOAD_SECONDS

    def _read(self, number: int | None, at: float) -> None:
        """The number was read before: a change in between is then read twice, and none missed."""
        try:
            rules = self._load()
        except Error as error:
            self._read_at = at
            if not self._database_failed:
                logger.error("The network rules could not be read (%s); going by the old.", error)
            self._database_failed = True
            return
        if self._database_failed:
            logger.warning("The network rules can be read again.")
        self._database_failed = False
        self.take(rules, number, at)

    def _rebuild(self) -> None:
        now = timezone.now()
        self._rules = [rule for rule in self._rules if rule.ends_at is None or rule.ends_at > now]
        self._next_end = min((rule.ends_at for rule in self._rules if rule.ends_at), default=None)
        self._table = NetworkTable((rule.network, rule) for rule in self._rules)

    def _begin(self) -> None:
        """Also in a forked child, where nobody has looked yet."""
        self._looking = Lock()
        self._trusted_until = -inf
        self._changes = None
        self._read_at = -inf


def _rows() -> list[Rule]:
    if not apps.is_installed("throttling"):
        return []  # A project that has only the throttles has no table.
    from throttling.models import NetworkRule  # Here, since throttles are imported without models.

    rows = NetworkRule.objects.in_force(timezone.now()).order_by()
    fields = ("pk", "network", "action", "rate", "ends_at")
    # In a transaction of the caller's, a failure here must not spoil that.
    with transaction.atomic() if connection.in_atomic_block else nullcontext():
        found = list(rows.values_list(*fields))
    return [rule for row in found if (rule := _rule(*row)) is not None]


def _rule(pk: int, network: str, action: str, rate: str, ends_at: datetime | None) -> Rule | None:
    try:
        return Rule(pk, network, action, RateLimit.parse(rate) if rate else None, ends_at)
    except InvalidRateLimit as error:
        logger.error("The rule for %s is passed over: %s", network, error)
        return None


rules_of_process: Final = RulesOfProcess(_rows)
os.register_at_fork(after_in_child=rules_of_process._begin)


def rule_for(request: Any) -> Rule | None:
    """The rule that decides on this request, found and counted once, whoever asks. Never raises."""
    meta: dict[str, Any] = request.META
    if META_NAME not in meta:
        rule = meta[META_NAME] = find(meta)
        if rule is not None:
            matches.gathered.note(rule.pk)
    found: Rule | None = meta[META_NAME]
    return found


def find(meta: Mapping[str, Any]) -> Rule | None:
    """The same by the request's META, not counted."""
    watcher.ensure_runs()
    if rules_of_process.is_empty:
        return None
    return rules_of_process.find(client_address(meta))


class ChangeNotAnnounced(Exception):
    """Network rules were changed in the database, but the store could not be told."""

    def __init__(self) -> None:
        super().__init__(
            "The change is saved, but the store could not be told: it takes effect within a minute,"
            " not within a second."
        )


def announce(gone: Iterable[int] = ()) -> None:
    """Make every process take the rules over. To be called after the change is committed.

    `gone` are the numbers of rules that are no more. Raises ChangeNotAnnounced.
    """
    rules_of_process.distrust()
    for attempt in range(1, _ATTEMPTS_TO_ANNOUNCE + 1):
        try:
            changes.announce(store())
            matches.forget(store(), gone)
        except RedisError as error:
            if attempt == _ATTEMPTS_TO_ANNOUNCE:
                logger.exception("A change of the network rules could not be announced.")
                raise ChangeNotAnnounced from error
        else:
            return


def _read_changes() -> int | None:
    """The number; None without the store."""
    try:
        return changes.read(store())
    except RedisError:
        return None  # Whether it answers, the breaker says.


def store() -> Redis:
    connection: Redis = get_redis_connection(getattr(settings, "STORE_CACHE", "default"))
    return connection


def _look_and_write() -> None:
    try:
        rules_of_process.look()
    finally:
        connection.close()
    _write_matches()


def _write_matches() -> None:
    with suppress(RedisError):  # They are kept until it answers.
        matches.gathered.write(store())


watcher: Final = Watcher(_look_and_write, _write_matches, LOOK_SECONDS)
