"""What network rules cost a request: a lookup and a whole request, with no rule, 10 and 10,000.

    python benchmarks/network_rules.py

Nothing is started but an embedded store. Requests go through the site's middlewares in this
process; the cases take turns, and figures are medians over the rounds.
"""

from __future__ import annotations

import argparse
import logging
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from ipaddress import ip_network
from pathlib import Path
from typing import Any, Final

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

LOOKUPS: Final = 20_000
REQUESTS: Final = 500
OUTSIDE: Final = "198.51.100.7"
BLOCKED: Final = "10.0.0.9"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=15)
    rounds: int = parser.parse_args().rounds
    with tempfile.TemporaryDirectory(prefix="network-rules-") as folder:
        os.environ |= {
            "DJANGO_SETTINGS_MODULE": "hello_project.settings",
            "SECRET_KEY": "of this benchmark alone",
            "DATA_DIR": folder,
            "REDIS_URL": "",
            "DATABASE_URL": "",
            "IP_RATE_LIMIT": "1000000000/1s",
        }
        import django

        django.setup()
        from django.core.management import call_command

        from hello_project.embedded import EmbeddedStore
        from hello_project.traffic import traffic

        logging.disable(logging.WARNING)
        store = EmbeddedStore(Path(folder))
        store.start()
        try:
            call_command("migrate", verbosity=0)
            measure(rounds)
        finally:
            traffic.clear()
            store.stop()


def measure(rounds: int) -> None:
    from apikeys.models import ApiKey
    from throttling.network_rules import Rule, rules_of_process, watcher

    watcher.look_seconds = rules_of_process.trusted_seconds = 3600
    _, key = ApiKey.objects.issue(name="benchmark")
    application = site()
    tables = {
        count: [Rule(n, network(n), "block", None, None) for n in range(count)]
        for count in (0, 10, 10_000)
    }
    lookups: dict[int, list[float]] = {count: [] for count in tables}
    admitted: dict[int, list[float]] = {count: [] for count in tables}
    blocked: dict[int, list[float]] = {count: [] for count in tables}
    building: dict[int, list[float]] = {count: [] for count in tables}
    for _ in range(rounds):
        for count, rules in tables.items():
            begun = time.perf_counter()
            rules_of_process.take(rules, None, time.monotonic())
            building[count].append((time.perf_counter() - begun) * 1e6)
            lookups[count].append(timed(LOOKUPS, lambda: rules_of_process.find(OUTSIDE)))
            admitted[count].append(timed(REQUESTS, lambda: application(key, OUTSIDE, 200)))
            if count:
                blocked[count].append(timed(REQUESTS, lambda: application(key, BLOCKED, 403)))
    print(f"{'rules':>8}{'lookup':>10}{'admitted':>12}{'blocked':>10}{'building the table':>22}")
    for count in tables:
        refused = f"{statistics.median(blocked[count]):.0f}" if count else "-"
        print(
            f"{count:>8,}{statistics.median(lookups[count]):>10.2f}"
            f"{statistics.median(admitted[count]):>12.0f}{refused:>10}"
            f"{statistics.median(building[count]):>22,.0f}"
        )
    ratio = statistics.median(admitted[10_000]) / statistics.median(admitted[10])
    print(f"Microseconds. An admitted request under 10,000 rules, to one under 10: {ratio:.3f} x")


def network(number: int) -> str:
    return str(ip_network((0x0A000000 + (number << 8), 24)))


def site() -> Callable[[str, str, int], None]:
    """Asks the site for its first page as a client with this key, from this address."""
    from django.test import RequestFactory

    from hello_project.wsgi import application

    environs = RequestFactory()

    def ask(key: str, address: str, expected: int) -> None:
        environ: dict[str, Any] = environs.get(
            "/", headers={"x-api-key": key, "host": "localhost"}, REMOTE_ADDR=address
        ).environ
        seen: list[str] = []
        list(application(environ, lambda status, headers, exc=None: seen.append(status)))  # type: ignore[arg-type]
        if not seen[0].startswith(str(expected)):
            sys.exit(f"Answered {seen[0]} instead of {expected}; nothing is measured.")

    return ask


def timed(times: int, action: Callable[[], object]) -> float:
    """Microseconds each."""
    begun = time.perf_counter()
    for _ in range(times):
        action()
    return (time.perf_counter() - begun) / times * 1e6


if __name__ == "__main__":
    main()
