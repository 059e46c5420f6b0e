"""axe-core looks at every page of the console, the browser at what their policy forbids."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from django.contrib.auth.models import Group, User
from django.utils import timezone
from django_otp.plugins.otp_totp.models import TOTPDevice

from apikeys.models import ApiKey
from hello_project.outcomes import Outcome, refused_by
from hello_project.traffic import traffic
from tests.browser.conftest import OPERATOR_ADDRESS, Context, log_in, send_login, wait_for_status
from throttling.models import NetworkRule

if TYPE_CHECKING:
    from playwright.sync_api import Page

KEYS = "/admin/apikeys/apikey/"
RULES = "/admin/throttling/networkrule/"
SERIOUS = ("serious", "critical")
WIDTHS = (1280, 390)


@pytest.fixture
def paths(transactional_db: None) -> list[str]:
    """Of pages with something on them."""
    now = timezone.now()
    key, _ = ApiKey.objects.issue(name="Billing", owner="Finance", rate="100/1m")
    key.rotate(timedelta(hours=1))
    soon, _ = ApiKey.objects.issue(name="Soon", expires_at=now + timedelta(days=2))
    revoked, _ = ApiKey.objects.issue(name="Revoked", environment="test")
    revoked.revoke("leaked")
    rule = NetworkRule.objects.create(network="198.51.100.0/24", action="rate", rate="100/1m")
    NetworkRule.objects.create(network="2001:db8::/32", action="block", note="a flood")
    for _ in range(20):
        traffic.note(Outcome.ADMITTED, key.pk, None)
        traffic.note(refused_by("ip"), None, "198.51.100.7")
        traffic.note(refused_by("key"), key.pk, "203.0.113.9")
    traffic.flush()
    group = Group.objects.create(name="auditors")
    other = User.objects.create_user("bob", is_staff=True)
    group.user_set.add(other)
    return [
        "/admin/",
        KEYS,
        f"{KEYS}?q=nobody",
        f"{KEYS}add/",
        f"{KEYS}{key.pk}/change/",
        f"{KEYS}{soon.pk}/change/",
        f"{KEYS}{revoked.pk}/change/",
        f"{KEYS}{key.pk}/history/",
        f"{KEYS}{key.pk}/rotate/",
        f"{KEYS}{key.pk}/end-overlap/",
        f"{KEYS}revoke/?id={key.pk}",
        RULES,
        f"{RULES}add/?network=203.0.113.0/24&action=block",
        f"{RULES}{rule.pk}/change/",
        f"{RULES}{rule.pk}/delete/",
        f"{RULES}{rule.pk}/history/",
        "/admin/password_change/",
        "/admin/password_change/done/",
        "/admin/second-factor/",
        *(
            f"/admin/auth/user/{rest}"
            for rest in ("", "add/", *of_one(other.pk), f"{other.pk}/password/")
        ),
        *(f"/admin/auth/group/{rest}" for rest in ("", "add/", *of_one(group.pk))),
        "/admin/auth/",
        f"{KEYS}revoke/?id={key.pk}+{soon.pk}",
    ]


def of_one(number: int) -> list[str]:
    return [f"{number}/{what}/" for what in ("change", "history", "delete")]


def faults(page: Page, axe: str) -> list[str]:
    page.evaluate(axe)
    found: dict[str, Any] = page.evaluate("axe.run({resultTypes: ['violations']})")
    return [
        f"{page.url}: {each['id']}: {each['nodes'][0]['html'][:200]}"
        for each in found["violations"]
        if each["impact"] in SERIOUS
    ]


def errors_in_forms(page: Page) -> None:
    page.goto(f"{KEYS}add/")
    page.get_by_label("Name:").fill("x")
    page.get_by_label("Own rate:").fill("often")
    page.get_by_role("button", name="Issue key").click()
    page.get_by_text("Please correct the error").wait_for()


def shown_once(page: Page) -> None:
    page.goto(f"{KEYS}add/")
    page.get_by_label("Name:").fill("Shop")
    page.get_by_role("button", name="Issue key").click()
    page.get_by_text("it will not be shown again").wait_for()


def shown_once_again(page: Page) -> None:
    page.goto(f"{KEYS}{ApiKey.objects.get(name='Billing').pk}/rotate/")
    page.get_by_role("button", name="Rotate").click()
    page.get_by_text("it will not be shown again").wait_for()


def warning(page: Page) -> None:
    page.goto(f"{RULES}add/?network=203.0.113.0/24&action=block")
    page.get_by_role("button", name="Save", exact=True).click()
    page.get_by_text("This would block your own address").wait_for()


def second_factor(page: Page) -> None:
    """The page that asks for a code. Nothing else is shown any more."""
    TOTPDevice.objects.create(user=User.objects.get(username="ann"), name="phone")
    page.goto("/admin/")
    page.get_by_label("Code").wait_for()


def blocked(page: Page) -> None:
    NetworkRule.objects.create(network=OPERATOR_ADDRESS, action="block")
    wait_for_status(page, 403)


def failed_login(page: Page) -> None:
    send_login(page, "wrong")
    page.get_by_text("Please enter the correct").wait_for()


class Look:
    """At pages on every screen, for what axe-core finds and for what is wider than the window."""

    def __init__(self, page: Page, axe: str) -> None:
        self.page = page
        self.found: list[str] = []
        self._axe = axe

    def at(self, path: str) -> None:
        """All of it, what is folded away too."""
        self.page.goto(path)
        for summary in self.page.locator("summary").all():
            summary.click()
        self.here()

    def here(self) -> None:
        # A theme's colours come at once, not over a moment in which axe-core looks.
        self.page.add_style_tag(content="* { transition: none !important }")
        for width in WIDTHS:
            self.page.set_viewport_size({"width": width, "height": 900})
            if self.page.evaluate("document.documentElement.scrollWidth") > width:
                self.found.append(f"{self.page.url}: wider than {width} px")
            for theme in ("light", "dark"):
                self.page.emulate_media(color_scheme=theme)
                found = faults(self.page, self._axe)
                self.found += [f"{width} px, {theme}: {fault}" for fault in found]


@pytest.fixture
def look(context: Context, axe: str) -> Look:
    """Before the login."""
    opened = context(bypass_csp=True)  # For axe, which the policy would keep out.
    return Look(opened.new_page(), axe)


def test_no_page_has_a_serious_fault_or_is_wider_than_the_window(
    look: Look, paths: list[str]
) -> None:
    look.at("/admin/login/")
    failed_login(look.page)
    look.here()
    log_in(look.page)
    for path in paths:
        look.at(path)
    for state in (errors_in_forms, shown_once, shown_once_again, warning, second_factor, blocked):
        state(look.page)
        look.here()
    assert look.found == []


def test_nor_has_a_page_with_nothing_on_it_yet(look: Look) -> None:
    log_in(look.page)
    for path in ("/admin/", KEYS, RULES, "/admin/auth/group/"):
        look.at(path)
    assert look.found == []


def test_no_page_needs_what_its_policy_forbids(page: Page, paths: list[str]) -> None:
    said: list[str] = []
    page.on("console", lambda message: said.append(f"{message.type}: {message.text}"))
    page.on("pageerror", lambda error: said.append(str(error)))
    requested: list[str] = []
    page.on("request", lambda request: requested.append(request.url))
    page.add_init_script(
        "document.addEventListener('securitypolicyviolation',"
        " (event) => console.error(event.violatedDirective, event.blockedURI))"
    )
    for path in paths:
        answer = page.goto(path)
        assert answer is not None
        assert "default-src 'none'" in answer.headers["content-security-policy"]
    for state in (errors_in_forms, shown_once, shown_once_again, warning, second_factor):
        state(page)
    assert [each for each in said if each.startswith(("error", "warning"))] == []
    origin = page.evaluate("location.origin")
    assert {url for url in requested if not url.startswith((origin, "data:"))} == set()
