"""Pictures of the console's pages for docs/screenshots, with made-up keys and traffic.

`python -m pytest tests/browser/screenshots.py`: each page in light and dark, 1280 and 390 wide.
"""

from __future__ import annotations

import io
import math
import random
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

import pytest
from django.conf import settings
from django.contrib.auth.models import User
from django.utils import timezone
from django_otp.plugins.otp_totp.models import TOTPDevice
from django_redis import get_redis_connection

from apikeys.models import ApiKey
from hello_project.models import KeyUsage
from hello_project.traffic import (
    BUSIEST_BY_HOUR,
    CLIENTS_BY_HOUR,
    KEYS_BY_FIVE_MINUTES,
    KEYS_BY_HOUR,
    OUTCOMES_BY_HOUR,
    OUTCOMES_BY_MINUTE,
)
from tests.browser.conftest import OPERATOR_ADDRESS, Context, log_in, wait_for_status
from throttling.models import NetworkRule

if TYPE_CHECKING:
    from playwright.sync_api import Page

FOLDER: Final = settings.BASE_DIR / "docs" / "screenshots"
KEYS: Final = "/admin/apikeys/apikey/"
RULES: Final = "/admin/throttling/networkrule/"
SHARES: Final = {
    "admitted": 0.81,
    "refused:ip": 0.09,
    "refused:key": 0.04,
    "unauthenticated": 0.03,
    "forbidden": 0.01,
    "invalid": 0.015,
    "error": 0.005,
}
NAMES: Final = [
    ("Billing, nightly run", "Finance"),
    ("Shop front end", "Web"),
    ("Warehouse scanners", "Logistics"),
    ("Status page", "Operations"),
    ("Partner: Müller & Söhne", "Partners"),
    ("Mobile app, Android", "Mobile"),
    ("Mobile app, iOS", "Mobile"),
    ("Data export", "Analytics"),
    ("Old importer", "Finance"),
    ("Load test", "Operations"),
    ("Support desk", "Support"),
    ("Price comparison", "Partners"),
]


def at_that_hour(moment: datetime, most: int) -> int:
    """Few at night, many at noon, and never twice the same."""
    day = 0.55 - 0.45 * math.cos((moment.hour + moment.minute / 60) / 24 * 2 * math.pi)
    weekend = 0.6 if moment.weekday() >= 5 else 1.0
    return int(most * day * weekend * random.uniform(0.8, 1.2))


def split(requests: int) -> dict[str, int]:
    return {outcome: int(requests * share) for outcome, share in SHARES.items()}


@pytest.fixture
def some_keys(operator: User) -> list[ApiKey]:
    now = timezone.now()
    keys = []
    for number, (name, owner) in enumerate(NAMES):
        rate = "600/1m" if number % 4 == 1 else ""
        key, _ = ApiKey.objects.issue(
            name=name,
            owner=owner,
            rate=rate,
            environment="test" if name == "Load test" else "live",
            networks="203.0.113.0/24, 2001:db8::/32" if number == 2 else "",
            by=operator,
        )
        keys.append(key)
    keys[0].rotate(timedelta(hours=19), by=operator)
    keys[8].revoke("Replaced by Data export", by=operator)
    used = [now - timedelta(minutes=7 * number * number) for number in range(len(keys))]
    for key, at in zip(keys, used, strict=True):
        ApiKey.objects.filter(pk=key.pk).update(
            last_used_at=at,
            created_at=at - timedelta(days=70),
            expires_at={3: now + timedelta(days=6), 11: now - timedelta(days=2)}.get(
                keys.index(key)
            ),
        )
    NetworkRule.objects.create(network="198.51.100.0/24", action="block", note="A flood, 24 Nov")
    NetworkRule.objects.create(
        network="203.0.113.0/24", action="rate", rate="1000/1m", note="The office"
    )
    NetworkRule.objects.create(network="10.0.0.0/8", action="exempt", note="Our own monitors")
    NetworkRule.objects.create(
        network="2001:db8:bad::/48", action="block", ends_at=now + timedelta(hours=20)
    )
    return keys


@pytest.fixture
def a_month_of_traffic(some_keys: list[ApiKey]) -> None:
    random.seed(1)
    now = timezone.now()
    seconds = int(now.timestamp())
    pipeline = get_redis_connection("default").pipeline(transaction=False)
    for minute in range(60):
        moment = now - timedelta(minutes=minute)
        counts = split(at_that_hour(moment, 900))
        pipeline.hset(OUTCOMES_BY_MINUTE.key(seconds // 60 - minute), mapping=counts)
    for hour in range(720):
        moment = now - timedelta(hours=hour)
        counts = split(at_that_hour(moment, 54_000))
        pipeline.hset(OUTCOMES_BY_HOUR.key(seconds // 3600 - hour), mapping=counts)
    for rank, key in enumerate(some_keys[:8]):
        most = 12_000 // (rank + 1)
        for hour in range(24):
            count = at_that_hour(now - timedelta(hours=hour), most)
            of_key = {f"{key.pk} admitted": count, f"{key.pk} refused:key": count // 30}
            pipeline.hset(KEYS_BY_HOUR.key(seconds // 3600 - hour), mapping=of_key)
            pipeline.zadd(
                BUSIEST_BY_HOUR.key(seconds // 3600 - hour), {key.pk: sum(of_key.values())}
            )
        for part in range(12):
            count = at_that_hour(now - timedelta(minutes=5 * part), most // 12)
            of_key = {f"{key.pk} admitted": count, f"{key.pk} refused:key": count // 25}
            pipeline.hset(KEYS_BY_FIVE_MINUTES.key(seconds // 300 - part), mapping=of_key)
        KeyUsage.objects.bulk_create(
            KeyUsage(
                key_id=key.pk,
                day=(now - timedelta(days=day)).date(),
                admitted=(count := at_that_hour(now - timedelta(days=day), most * 20)),
                refused=count // 28,
            )
            for day in range(30)
        )
    for rank, client in enumerate(
        ["198.51.100.23", "192.0.2.201", "2001:db8:77:1::/64", "203.0.113.9", "192.0.2.14"]
    ):
        pipeline.zadd(CLIENTS_BY_HOUR.key(seconds // 3600), {client: 9_200 // (rank + 1)})
    pipeline.execute()


def pages_of(some_keys: list[ApiKey]) -> dict[str, str]:
    rule = NetworkRule.objects.get(network="203.0.113.0/24")
    return {
        "traffic": "/admin/",
        "keys": KEYS,
        "issue": f"{KEYS}add/",
        "key": f"{KEYS}{some_keys[1].pk}/change/",
        "history": f"{KEYS}{some_keys[0].pk}/history/",
        "rotate": f"{KEYS}{some_keys[1].pk}/rotate/",
        "end-overlap": f"{KEYS}{some_keys[0].pk}/end-overlap/",
        "revoke": f"{KEYS}revoke/?id={some_keys[1].pk}",
        "rules": RULES,
        "rule": f"{RULES}{rule.pk}/change/",
        "rule-delete": f"{RULES}{rule.pk}/delete/",
        "second-factor": "/admin/second-factor/",
    }


def shown_once(page: Page) -> None:
    page.goto(f"{KEYS}add/")
    page.get_by_label("Name:").fill("Partner: Example Ltd")
    page.get_by_role("button", name="Issue key").click()
    page.get_by_text("it will not be shown again").wait_for()


def warning(page: Page) -> None:
    page.goto(f"{RULES}add/?network=203.0.113.48/28&action=block")
    page.get_by_role("button", name="Save", exact=True).click()
    page.get_by_text("This would block your own address").wait_for()


def code(page: Page) -> None:
    """What the login asks for next. Nothing else is shown any more."""
    TOTPDevice.objects.create(user=User.objects.get(), name="phone")
    page.goto("/admin/")
    page.get_by_label("Code").wait_for()


def blocked(page: Page) -> None:
    NetworkRule.objects.create(network=OPERATOR_ADDRESS, action="block")
    wait_for_status(page, 403)


def take(page: Page, name: str) -> None:
    """With few enough colours to be small."""
    from PIL import Image

    page.evaluate("document.activeElement?.blur()")
    picture = Image.open(io.BytesIO(page.screenshot(full_page=True)))
    picture.convert("RGB").quantize(256, dither=Image.Dither.NONE).save(
        FOLDER / f"{name}.png", optimize=True
    )


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_take_them(
    context: Context, some_keys: list[ApiKey], a_month_of_traffic: None, theme: str, width: int
) -> None:
    FOLDER.mkdir(exist_ok=True)
    options: dict[str, Any] = {"viewport": {"width": width, "height": 800}, "color_scheme": theme}
    page = context(**options).new_page()
    page.goto("/admin/login/")
    take(page, f"login-{width}-{theme}")
    log_in(page)
    for name, path in pages_of(some_keys).items():
        page.goto(path)
        take(page, f"{name}-{width}-{theme}")
    states = {"shown-once": shown_once, "warning": warning, "code": code, "blocked": blocked}
    for name, state in states.items():
        state(page)
        take(page, f"{name}-{width}-{theme}")


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("count", [0, 1, 10_000_000])
def test_take_the_charts_of_nothing_of_one_and_of_ten_million(
    context: Context, operator: User, theme: str, width: int, count: int
) -> None:
    FOLDER.mkdir(exist_ok=True)
    seconds = int(timezone.now().timestamp())
    if count:
        connection = get_redis_connection("default")
        connection.hset(OUTCOMES_BY_MINUTE.key(seconds // 60 - 5), "admitted", count)
        connection.hset(OUTCOMES_BY_HOUR.key(seconds // 3600), "admitted", count)
    options: dict[str, Any] = {"viewport": {"width": width, "height": 800}, "color_scheme": theme}
    page = context(**options).new_page()
    log_in(page)
    take(page, f"traffic-of-{count}-{width}-{theme}")
