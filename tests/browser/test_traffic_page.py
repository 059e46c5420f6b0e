"""The console's first page goes on by itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hello_project.outcomes import Outcome
from hello_project.traffic import traffic

if TYPE_CHECKING:
    from playwright.sync_api import Page


def count() -> None:
    traffic.note(Outcome.ADMITTED, None, None)
    traffic.flush()


def test_the_page_goes_on_and_keeps_what_a_person_did(page: Page) -> None:
    page.locator("#minutes-summary").click()
    for number in ("1", "2"):
        count()
        page.locator("#part-minutes .chart-some strong").get_by_text(number).first.wait_for()
        assert page.evaluate("document.querySelector('#minutes-details').open")
        assert page.evaluate("document.activeElement.id") == "minutes-summary"


def test_the_page_pauses_and_says_when_the_session_is_over(page: Page) -> None:
    page.clock.install()
    page.reload()
    page.get_by_role("button", name="Pause").click()
    resume = page.get_by_role("button", name="Resume")
    resume.wait_for()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.clock.fast_forward("01:00")
    page.wait_for_load_state("networkidle")
    # Chromium fetches the icon when it has nothing else to do.
    assert [url for url in asked if "/static/" not in url] == []
    page.context.clear_cookies()
    resume.click()
    page.get_by_text("You are logged out, so this page is no longer updated.").wait_for()
    page.locator("#said").get_by_role("link", name="Log in again").wait_for()
