"""What an operator does, from the first login to the last, in a browser."""

from __future__ import annotations

import json
import re
import subprocess
import time
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from django.core.management import call_command
from django.utils import timezone

from apikeys import keys
from apikeys.models import ApiKey
from hello_project.outcomes import refused_by
from hello_project.traffic import traffic
from tests import servers
from tests.browser.conftest import OPERATOR_ADDRESS, PASSWORD, Context, wait_for_status
from tests.servers import Server
from throttling.models import NetworkRule

if TYPE_CHECKING:
    from playwright.sync_api import Page

CLIENT = "198.51.100.7"
RULES_HOLD_SECONDS = 1
"""By then every process knows. Waited out: what one process answers says nothing of the others."""


class Curl:
    """A client at another address for each request, unless told which."""

    def __init__(self, site: Server) -> None:
        self._program = servers.need("curl", "curl")
        self._site = site
        self._requests = 0

    def __call__(self, key: str, address: str = "") -> tuple[int, str]:
        """Status and body."""
        self._requests += 1
        ended = subprocess.run(
            [
                self._program,
                *("--silent", "--write-out", "\n%{http_code}"),
                *("--header", f"Authorization: Bearer {key}"),
                *("--header", f"X-Forwarded-For: {address or f'192.0.2.{self._requests}'}"),
                f"{self._site.url}/",
            ],
            capture_output=True,
            text=True,
            check=True,
        )
        body, _, status = ended.stdout.rpartition("\n")
        return int(status), body


@pytest.fixture
def curl(site: Server) -> Curl:
    return Curl(site)


def copied(page: Page, what: str) -> str:
    page.get_by_role("button", name=f"Copy {what}", exact=True).click()
    page.get_by_text("Copied").first.wait_for()
    return str(page.evaluate("navigator.clipboard.readText()"))


def issue(page: Page, name: str, **fields: str) -> str:
    """By the form; the key as the button copies it."""
    page.goto("/admin/apikeys/apikey/")
    page.get_by_role("link", name=re.compile("Issue")).first.click()
    page.get_by_label("Name:").fill(name)
    for label, text in fields.items():
        page.get_by_label(f"{label}:").fill(text)
    page.get_by_role("button", name="Issue key").click()
    page.get_by_text("it will not be shown again").wait_for()
    return copied(page, "key")


def test_a_key_from_issuing_to_revoking(page: Page, curl: Curl) -> None:
    key = issue(page, "Billing", Owner="Finance")
    assert re.fullmatch(keys.PATTERN, key)
    header, line = copied(page, "header"), copied(page, "curl line")
    assert header == f"Authorization: Bearer {key}"
    assert line.startswith(f'curl -i -H "{header}" http')
    page.reload()
    assert key not in page.content()

    assert curl(key) == (200, '{"message":"Hello, World!"}')
    assert [curl(key, CLIENT)[0] for _ in range(4)] == [200, 200, 200, 429]

    # The page is not loaded again: it refreshes itself.
    page.goto("/admin/")
    curl(key)
    billing = page.get_by_role("row", name=re.compile("Billing"))
    billing.get_by_text("5", exact=True).wait_for()
    page.get_by_role("row", name=re.compile(re.escape(CLIENT))).wait_for()

    page.goto("/admin/apikeys/apikey/")
    row = page.get_by_role("row", name=re.compile("Billing"))
    assert "Active" in row.inner_text()
    assert "Finance" in row.inner_text()
    row.get_by_role("img", name="By hour: 5 requests, 0 of them refused.").wait_for()

    def was_just_used() -> bool:  # As each process writes every ten seconds.
        page.reload()
        return "just now" in row.inner_text()

    servers.wait_for(was_just_used, seconds=15)

    row.get_by_role("link", name="Billing").click()
    page.get_by_role("link", name="Rotate").click()
    page.get_by_label("A time of your own").check()
    page.get_by_label("Own time:").fill("1h")
    page.get_by_role("button", name="Rotate").click()
    page.get_by_text("it will not be shown again").wait_for()
    new = copied(page, "key")
    assert new != key
    assert (curl(key)[0], curl(new)[0]) == (200, 200)
    # The hour passes.
    ApiKey.objects.update(previous_until=timezone.now() - timedelta(seconds=1))
    assert (curl(key)[0], curl(new)[0]) == (401, 200)

    page.get_by_role("link", name="Open this key").click()
    history = page.get_by_role("region", name="History")
    assert "Rotated" in history.inner_text()
    page.get_by_role("link", name="Revoke").click()
    page.get_by_label("Reason:").fill("The contract has ended")
    page.get_by_role("button", name=re.compile("Revoke")).click()
    page.get_by_text("refused from the next request on").wait_for()
    assert (curl(key)[0], curl(new)[0]) == (401, 401)
    page.get_by_role("link", name="Billing").first.click()
    assert "The contract has ended" in page.get_by_role("main").inner_text()
    assert page.get_by_role("button", name="Save").count() == 0


def test_a_network_is_blocked_and_unblocked(page: Page, curl: Curl) -> None:
    key = issue(page, "Shop")
    assert [curl(key, CLIENT)[0] for _ in range(4)] == [200, 200, 200, 429]
    page.goto("/admin/")
    client = page.get_by_role("row", name=re.compile(re.escape(CLIENT)))
    client.get_by_role("link", name=re.compile("Block")).click()
    assert page.get_by_label("Network:").input_value() in (CLIENT, f"{CLIENT}/32")
    page.get_by_role("button", name="Save", exact=True).click()
    page.get_by_text("was added successfully").wait_for()
    time.sleep(RULES_HOLD_SECONDS)
    assert {curl(key, CLIENT)[0] for _ in range(8)} == {403}
    status, body = curl(key, CLIENT)
    assert (status, json.loads(body)["status"]) == (403, 403)
    assert curl(key)[0] == 200

    page.goto("/admin/throttling/networkrule/")
    page.get_by_role("link", name=f"{CLIENT}/32").click()
    page.get_by_role("link", name="Delete").click()
    page.get_by_role("button", name="Delete it").click()
    page.get_by_text("was deleted successfully").wait_for()
    time.sleep(RULES_HOLD_SECONDS)
    assert 403 not in {curl(key, CLIENT)[0] for _ in range(8)}


def test_who_would_lock_themselves_out_is_warned(page: Page) -> None:
    page.goto("/admin/throttling/networkrule/add/?network=203.0.113.0/24&action=block")
    page.get_by_role("button", name="Save", exact=True).click()
    page.get_by_text("This would block your own address").wait_for()
    page.get_by_label("Block my own address all the same").check()
    page.get_by_role("button", name="Save", exact=True).click()
    wait_for_status(page, 403)
    assert OPERATOR_ADDRESS not in page.content()
    call_command("network_rule", "remove", "203.0.113.0/24")
    wait_for_status(page, 200)


NAMES_OF_FOCUSED = """() => {
  const focused = document.activeElement
  return [
    focused.textContent || focused.value || "",
    focused.labels?.[0]?.textContent || "",
    focused.getAttribute("aria-label") || "",
  ].map((text) => text.trim().split("\\n")[0].trim())
}"""
FOCUS_SHOWS = """() => {
  const focused = document.activeElement
  const look = () => {
    const { outlineStyle, boxShadow, textDecorationLine, borderColor, backgroundColor } =
      getComputedStyle(focused)
    return [outlineStyle, boxShadow, textDecorationLine, borderColor, backgroundColor].join()
  }
  const withFocus = look()
  focused.blur()
  const without = look()
  focused.focus()
  return withFocus !== without
}"""


def press_until(page: Page, name: str, key: str = "Tab") -> None:
    """Until the focus is on what is called this, and shows that it is."""
    page.wait_for_load_state()
    for _ in range(150):
        page.keyboard.press(key)
        if name in page.evaluate(NAMES_OF_FOCUSED):
            assert page.evaluate(FOCUS_SHOWS), f"Nothing shows that {name!r} has the focus."
            return
    pytest.fail(f"No way leads to {name!r} by keyboard.")


def test_the_way_from_the_login_to_a_blocked_client_goes_by_keyboard_alone(
    context: Context,
) -> None:
    for _ in range(3):
        traffic.note(refused_by("ip"), None, CLIENT)
    traffic.flush()
    page = context().new_page()
    page.goto("/admin/")
    page.keyboard.type("ann")  # Where the focus is at first.
    press_until(page, "Password:")
    page.keyboard.type(PASSWORD)
    press_until(page, "Log in")
    page.keyboard.press("Enter")
    page.get_by_role("heading", name="Traffic", exact=True).wait_for()
    press_until(page, f"Block {CLIENT}")
    page.keyboard.press("Enter")
    page.get_by_label("Network:").wait_for()
    press_until(page, "Save")
    page.keyboard.press("Enter")
    page.get_by_text("was added successfully").wait_for()
    assert NetworkRule.objects.get().network == f"{CLIENT}/32"
    press_until(page, "Log out")
    page.keyboard.press("Enter")
    page.get_by_role("heading", name="Logged out").wait_for()


def test_keys_are_filtered_and_searched_by_keyboard_alone(page: Page) -> None:
    shop, _ = ApiKey.objects.issue(name="Shop", environment="test")
    ApiKey.objects.issue(name="Billing")
    page.goto("/admin/apikeys/apikey/")
    press_until(page, "Test")
    page.keyboard.press("Enter")
    page.get_by_text("1 found.").wait_for()
    assert page.get_by_role("link", name="Billing").count() == 0
    press_until(page, "Show all")
    page.keyboard.press("Enter")
    page.get_by_role("link", name="Billing").wait_for()
    press_until(page, "Search")
    page.keyboard.type("Shop")
    page.keyboard.press("Enter")
    page.get_by_text("1 found.").wait_for()
    press_until(page, "Show all")  # Past the field, which holds the name too.
    press_until(page, "Shop")
    page.keyboard.press("Enter")
    page.get_by_role("region", name="History").wait_for()
    assert shop.pk in page.url


def test_it_all_goes_by_keyboard_alone(page: Page) -> None:
    """Tab and Enter, from the form to a revoked key."""
    page.goto("/admin/apikeys/apikey/add/")
    press_until(page, "Name:")
    page.keyboard.type("By keyboard")
    press_until(page, "Issue key")
    page.keyboard.press("Enter")
    page.get_by_text("it will not be shown again").wait_for()
    press_until(page, "Copy key")
    page.keyboard.press("Space")
    page.get_by_text("Copied").first.wait_for()
    press_until(page, "Open this key", "Shift+Tab")
    page.keyboard.press("Enter")
    page.get_by_role("region", name="History").wait_for()
    press_until(page, "Rotate")
    page.keyboard.press("Enter")
    page.get_by_text("The old secret goes on working for").first.wait_for()
    press_until(page, "Rotate")
    page.keyboard.press("Enter")
    page.get_by_text("it will not be shown again").wait_for()
    press_until(page, "Open this key", "Shift+Tab")
    page.keyboard.press("Enter")
    page.get_by_role("region", name="History").wait_for()
    press_until(page, "Revoke")
    page.keyboard.press("Enter")
    page.get_by_label("Reason:").wait_for()
    press_until(page, "Reason:")
    page.keyboard.type("done")
    page.keyboard.press("Enter")
    page.get_by_text("refused from the next request on").wait_for()
    key = ApiKey.objects.get()
    assert key.revoked_reason == "done"


def test_many_keys_are_revoked_by_keyboard_alone(page: Page) -> None:
    issued = [ApiKey.objects.issue(name=name)[0] for name in ("Billing", "Shop")]
    page.goto("/admin/apikeys/apikey/")
    for key in reversed(issued):
        press_until(page, f"Select this object for an action - {key}")
        page.keyboard.press("Space")
    press_until(page, "Action:", "Shift+Tab")
    page.keyboard.type("Revoke")
    press_until(page, "Go")
    page.keyboard.press("Enter")
    page.get_by_label("Reason:").wait_for()
    press_until(page, "Reason:")
    page.keyboard.type("done")
    page.keyboard.press("Enter")
    page.get_by_text("refused from the next request on").wait_for()
    assert {key.revoked_reason for key in ApiKey.objects.all()} == {"done"}


def test_a_network_rule_comes_and_goes_by_keyboard_alone(page: Page) -> None:
    page.goto("/admin/throttling/networkrule/add/")
    press_until(page, "Network:")
    page.keyboard.type("198.51.100.0/24")
    press_until(page, "block")
    page.keyboard.press("Space")
    press_until(page, "Save")
    page.keyboard.press("Enter")
    page.get_by_text("was added successfully").wait_for()
    assert NetworkRule.objects.get().action == "block"
    press_until(page, "198.51.100.0/24")
    page.keyboard.press("Enter")
    page.get_by_label("Network:").wait_for()
    press_until(page, "Delete")
    page.keyboard.press("Enter")
    page.get_by_role("button", name="Delete it").wait_for()
    press_until(page, "Delete it")
    page.keyboard.press("Enter")
    page.get_by_text("was deleted successfully").wait_for()
    assert not NetworkRule.objects.exists()
