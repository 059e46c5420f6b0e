"""A key that was shown, or pasted into the search, is found nowhere afterwards."""

from __future__ import annotations

import re
import time
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from django.apps import apps
from django.contrib.sessions.models import Session
from redis import Redis

from apikeys import keys
from tests import servers
from tests.browser.conftest import ARGUMENTS, OPERATOR_ADDRESS, log_in
from tests.servers import Server

if TYPE_CHECKING:
    from playwright.sync_api import Page

KEYS = "/admin/apikeys/apikey/"


def issue(page: Page) -> str:
    page.goto(f"{KEYS}add/")
    page.get_by_label("Name:").fill("Billing")
    page.get_by_role("button", name="Issue key").click()
    shown = page.locator("#shown-key").inner_text()
    assert keys.parse(shown) is not None
    return shown


def state_of(page: Page) -> str:
    """Empty while it goes from one page to the next."""
    try:
        page.wait_for_load_state("networkidle")
        return str(page.evaluate("document.readyState"))
    except import_module("playwright.sync_api").Error:
        return ""


def kept_by_the_page(page: Page) -> str:
    stored = ""
    if page.evaluate("origin") != "null":  # As that of the browser's own page of an error is.
        stored = page.evaluate(
            "JSON.stringify([localStorage, sessionStorage, document.cookie, history.state, name])"
        )
    return f"{stored} {page.context.cookies()} {page.content()} {page.url}"


def test_a_key_is_found_nowhere_after_its_page(
    playwright: Any, chromium: str, site: Server, store: Redis, tmp_path: Path
) -> None:
    profile = tmp_path / "profile"
    window = playwright.chromium.launch_persistent_context(
        profile,
        executable_path=chromium,
        args=ARGUMENTS,
        base_url=site.url,
        extra_http_headers={"X-Forwarded-For": OPERATOR_ADDRESS},
    )
    try:
        page = window.new_page()
        log_in(page)
        shown = issue(page)
        key = keys.parse(shown)
        assert key is not None
        page.get_by_role("link", name="Open this key").click()
        page.get_by_role("region", name="History").wait_for()
        assert key.secret not in kept_by_the_page(page)

        page.goto(KEYS)
        page.get_by_role("searchbox", name="Search").fill(f"  {shown} ")
        page.get_by_role("button", name="Search").click()
        page.wait_for_url(re.compile(rf"\?q={key.id}$"))
        assert page.get_by_role("link", name="Billing").count() == 1
        assert key.secret not in kept_by_the_page(page)

        for _ in range(4):
            # Where the key was, there is nothing: the browser would have to send the form again.
            with suppress(import_module("playwright.sync_api").Error):
                page.go_back()
            servers.wait_for(lambda: state_of(page) == "complete")
            assert key.secret not in kept_by_the_page(page)
        time.sleep(1)  # What Chromium writes, it writes later.
    finally:
        window.close()
    files = [file for file in profile.rglob("*") if file.is_file()]
    # What was searched for is there to be found, and is the key's id.
    assert any(f"?q={key.id}".encode() in file.read_bytes() for file in files)
    for file in [*files, site.log]:
        content = file.read_bytes()
        assert key.secret.encode() not in content, file
        assert key.secret.encode("utf-16-le") not in content, file
    rows = [repr(row) for model in apps.get_models() for row in model.objects.values()]  # type: ignore[attr-defined]
    sessions = [repr(session.get_decoded()) for session in Session.objects.all()]
    assert sessions
    kept = "".join(rows + sessions + servers.kept_by(store))
    assert key.id in kept
    assert key.secret not in kept


@pytest.mark.parametrize("pasted", ["Authorization: Bearer {}", "X-API-Key: {}", "{}"])
def test_a_pasted_key_finds_itself_by_its_id_alone(page: Page, pasted: str) -> None:
    shown = issue(page)
    key = keys.parse(shown)
    assert key is not None
    page.goto(KEYS)
    requested: list[str] = []
    page.on("request", lambda request: requested.append(request.url))
    page.get_by_role("searchbox", name="Search").fill(pasted.format(shown))
    page.get_by_role("searchbox", name="Search").press("Enter")
    page.wait_for_url(re.compile(rf"\?q={key.id}$"))
    assert page.get_by_role("searchbox", name="Search").input_value() == key.id
    assert key.secret not in " ".join(requested)
