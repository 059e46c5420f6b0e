"""What one decision costs the store: server time beside an empty script's, and memory a client.

Empty is a script that returns 1, and one that returns four integers, which is the least that a
decision has to say. A hit of any kind has to read the clock and the counter.

    python benchmarks/script_cost.py

Runs on a Valkey of its own and, where redis-server is installed, on a Redis of its own. The cases
take turns; times are the server's own, from INFO commandstats, and medians over the rounds.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import struct
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from unittest.mock import patch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from redis import Redis

from tests import servers
from throttling import limiter
from throttling.limiter import RateLimit, SlidingWindowCounter

HITS_A_ROUND: Final = 2_700
HITS_BETWEEN_LOOKS: Final = 270  # Few enough for a full window of a minute to stay full.
SMALL, LARGE = RateLimit.parse("3/10s"), RateLimit.parse("1000/60s")


@dataclass(frozen=True)
class Case:
    """Hits of one unit on fresh identifiers, `hits` on each, all of them `allowed` or none.

    Before, each of the window's slots, or with 3/10s only the current one, holds `used` units.
    """

    name: str
    rate: RateLimit
    used: int
    hits: int
    allowed: bool

    def measure(self, store: Redis, prefix: str) -> float:
        """Microseconds of the server a hit."""
        usec = calls = 0
        for start in range(0, HITS_A_ROUND, HITS_BETWEEN_LOOKS):
            numbers = range(start, start + HITS_BETWEEN_LOOKS, self.hits)
            stats = self._measure(store, [f"{prefix}{number}" for number in numbers])
            usec, calls = usec + stats["usec"], calls + stats["calls"]
        if calls != HITS_A_ROUND:
            sys.exit(f"{self.name}: {calls} calls for {HITS_A_ROUND} hits; nothing is measured.")
        return usec / calls

    def _measure(self, store: Redis, identifiers: list[str]) -> dict[str, int]:
        counter = SlidingWindowCounter(self.rate, store)
        for identifier in identifiers:
            self._use(store, identifier)
        store.config_resetstat()
        for identifier in identifiers:
            for _ in range(self.hits):
                if counter.hit(identifier).allowed is not self.allowed:
                    sys.exit(f"{self.name}: a hit was decided otherwise; nothing is measured.")
        stats: dict[str, int] = store.info("commandstats")["cmdstat_evalsha"]
        return stats

    def _use(self, store: Redis, identifier: str) -> None:
        slots = self.rate.slots if self.rate is LARGE else 1
        now = time.time_ns() // 1_000_000
        moments = iter(range(now - (slots - 1) * self.rate.slot_ms, now + 1, self.rate.slot_ms))
        past = SlidingWindowCounter(self.rate, store, clock=lambda: next(moments))
        for _ in range(slots if self.used else 0):
            if not past.hit(identifier, self.used).allowed:
                sys.exit(f"{self.name}: the window could not be filled; nothing is measured.")


CASES: Final = [
    Case("3/10s, admitted", SMALL, used=0, hits=3, allowed=True),
    Case("3/10s, refused", SMALL, used=3, hits=270, allowed=False),
    Case("1000/60s, full window, admitted", LARGE, used=9, hits=90, allowed=True),
    Case("1000/60s, full window, refused", LARGE, used=10, hits=270, allowed=False),
]


# Instead of a hit's script: what a call costs that decides nothing.
SCRIPTS: Final = {
    "return 1": "return 1",
    "answer: four integers": "return {1, 2, 0, 10070}",
    "answer: packed": "return struct.pack('>I4I8I8', 2, 0, 10070)",
    "TIME and GET, no logic": "redis.call('TIME') redis.call('GET', KEYS[1]) return 1",
    "TIME, GET and PSETEX, no logic": """
        redis.call('TIME') redis.call('GET', KEYS[1])
        redis.call('PSETEX', KEYS[1], 10000, '0123456789ab') return 1""",
}


def measure_script(store: Redis, script: str) -> float:
    """Microseconds of the server a call, made as `SlidingWindowCounter.hit` makes it."""
    counter = SlidingWindowCounter(SMALL, store)
    store.config_resetstat()
    with patch.multiple(limiter, SCRIPT=script, SCRIPT_SHA=store.script_load(script)):
        for number in range(HITS_A_ROUND):
            with suppress(TypeError, struct.error):  # It makes no decision of the reply.
                counter.hit(f"ip:{number // 3}")
    return float(store.info("commandstats")["cmdstat_evalsha"]["usec_per_call"])


def report(store: Redis, rounds: int) -> None:
    times: list[dict[str, float]] = []
    for number in range(rounds + 1):
        store.flushall()
        row = {name: measure_script(store, script) for name, script in SCRIPTS.items()}
        row |= {case.name: case.measure(store, f"{case.name} {number} ") for case in CASES}
        times.append(row)
    del times[0]  # It warms up.
    print(f"{'':34}{'µs':>7}{'to return 1':>14}{'to four integers':>19}")
    for name in times[0]:
        microseconds = statistics.median(row[name] for row in times)
        to_nothing, to_answer = (
            statistics.median(row[name] / row[base] for row in times)
            for base in ("return 1", "answer: four integers")
        )
        print(f"{name:34}{microseconds:7.2f}{to_nothing:14.2f}{to_answer:19.2f}")
    small, large = CASES[0].name, CASES[2].name
    growth = statistics.median(row[large] / row[small] for row in times)
    print(f"an admitted hit at {LARGE} costs {growth:.2f} times one at {SMALL}")
    for rate, cost in ((SMALL, 1), (LARGE, 10)):
        print(f"memory a client at {rate}, window full: {memory(store, rate, cost)} bytes")


def memory(store: Redis, rate: RateLimit, cost_a_slot: int) -> int:
    """MEMORY USAGE of the fullest counter that an IPv4 client can have."""
    identifier = "ip:203.0.113.255"
    store.flushall()
    moments = iter(range(10**12, 10**12 + rate.window_ms, rate.slot_ms))
    counter = SlidingWindowCounter(rate, store, clock=lambda: next(moments))
    while counter.hit(identifier, cost_a_slot).remaining:
        pass
    return store.memory_usage(counter.key(identifier)) or sys.exit("The counter is gone.")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=15, help="default: %(default)s")
    rounds = parser.parse_args().rounds
    kinds = {"Valkey": servers.valkey}
    if shutil.which("redis-server"):
        kinds["Redis"] = servers.redis7
    else:
        print("redis-server is not installed (apt-get install redis-server): Valkey alone.")
    for kind, start in kinds.items():
        with start() as store:
            server = store.info("server")
            version = server.get("valkey_version") or server["redis_version"]
            print(f"\n{kind} {version}, medians of {rounds} rounds of {HITS_A_ROUND} calls a line")
            report(store, rounds)


if __name__ == "__main__":
    main()
