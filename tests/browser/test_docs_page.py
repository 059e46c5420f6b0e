"""The page where a key is tried."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from apikeys.models import ApiKey
from tests import servers
from tests.browser.conftest import Context
from tests.servers import Server

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page


@pytest.fixture
def docs(context: Context, site: Server) -> Page:
    page = context().new_page()
    page.goto("/docs/")
    page.locator("#operations-Hello-hello").wait_for()
    return page


def hello(page: Page) -> Locator:
    return page.locator("#operations-Hello-hello")


def answer(page: Page) -> Locator:
    return hello(page).locator("table.live-responses-table tbody")


def unfold(page: Page) -> None:
    hello(page).locator("button.opblock-summary-control").click()


def execute(page: Page) -> None:
    hello(page).get_by_role("button", name="Execute").click()


def test_a_pasted_key_says_hello_and_is_kept_nowhere(
    docs: Page, site: Server, issued: tuple[ApiKey, str]
) -> None:
    said: list[str] = []
    requested: list[str] = []
    docs.on("console", lambda message: said.append(message.text))
    docs.on("request", lambda request: requested.append(request.url))
    docs.locator("button.authorize").first.click()
    first = docs.locator(".auth-container").filter(has_text="Bearer").first
    first.locator("input").fill(issued[1])
    first.locator("button[type=submit]").click()
    docs.locator("button.btn-done").first.click()
    unfold(docs)
    execute(docs)
    answer(docs).get_by_text("200").first.wait_for()
    text = answer(docs).inner_text()
    assert '"message": "Hello, World!"' in text
    assert 'ratelimit: "ip";r=2;' in text
    kept = "[localStorage.length, sessionStorage.length, document.cookie]"
    assert docs.evaluate(kept) == [0, 0, ""]
    docs.goto("/docs/?again")
    docs.locator("button.authorize").first.click()
    docs.locator(".auth-container input").first.wait_for()  # It asks for a key again.
    assert said == []
    assert f"{site.url}/" in requested
    assert [url for url in requested if not url.startswith((f"{site.url}/", "data:"))] == []


def test_a_request_too_many_is_shown_as_the_problem_that_it_is(docs: Page) -> None:
    said: list[str] = []
    docs.on("console", lambda message: said.append(message.text))
    unfold(docs)
    for shown in ("r=2;", "r=1;", "r=0;", "Rate limit exceeded"):
        execute(docs)
        answer(docs).get_by_text(shown).first.wait_for()
    text = answer(docs).inner_text()
    assert text.startswith("429")
    assert "retry-after: " in text
    assert len(said) == 4  # Each a line of Chromium's own, for the status.


def test_it_follows_the_screen(docs: Page) -> None:
    docs.set_viewport_size({"width": 390, "height": 800})
    unfold(docs)
    hello(docs).get_by_role("button", name="Execute").wait_for()
    assert docs.evaluate("document.documentElement.scrollWidth <= innerWidth")
    color = "getComputedStyle(document.documentElement).backgroundColor"
    docs.emulate_media(color_scheme="dark")
    servers.wait_for(lambda: docs.evaluate(color) == "rgb(28, 32, 34)")
    docs.emulate_media(color_scheme="light")
    servers.wait_for(lambda: docs.evaluate(color) == "rgba(0, 0, 0, 0)")
