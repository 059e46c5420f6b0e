"""The page where a key is tried."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest
from django.conf import LazySettings
from django.test import Client
from rest_framework.test import APIClient

from apikeys.models import ApiKey
from tests.hello_project.webdriver import Browser, browser
from tests.servers import Server, gunicorn, wait_for

Issued = tuple[ApiKey, str]

BUTTON = "//button[contains(@class, '{}')]"
OPERATION = "//*[@id='operations-Hello-hello']"
ANSWER = f"{OPERATION}//table[contains(@class, 'live-responses-table')]//tbody"


def test_all_that_it_loads_is_here(api: APIClient, db: None) -> None:
    page = api.get("/docs/")
    loaded = re.findall(r'(?:src|href|data-url)="([^"]*)"', page.content.decode())
    assert len(loaded) == 7
    for path in loaded:
        assert path.startswith("/")
        with closing(api.get(path)) as answer:
            assert answer.status_code == 200, path


def test_its_policy_lets_nothing_in_from_elsewhere(api: APIClient) -> None:
    page = api.get("/docs/")
    policy = dict(each.split(" ", 1) for each in page["Content-Security-Policy"].split("; "))
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
    assert set(" ".join(policy.values()).split()) == {"'none'", "'self'", "data:"}
    assert not re.search(r"<style|style=|<script>| on\w+=", page.content.decode())


def test_where_a_key_is_pasted_is_sent_to_https(settings: LazySettings) -> None:
    settings.SECURE_SSL_REDIRECT = True
    assert Client().get("/docs/")["Location"] == "https://testserver/docs/"
    assert Client().get("/openapi.json").status_code == 200


@pytest.fixture
def server(issued: Issued, tmp_path: Path) -> Iterator[Server]:
    with gunicorn(tmp_path, workers=1) as running:
        yield running


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with browser() as opened:
        yield opened


@pytest.fixture
def window(chromium: Browser, server: Server) -> Browser:
    """On the page."""
    chromium.devtools("Emulation.clearDeviceMetricsOverride")
    chromium.devtools("Emulation.setEmulatedMedia", features=[])
    chromium.visit(f"{server.url}/docs/")
    return chromium


def test_a_pasted_key_says_hello_and_is_kept_nowhere(
    window: Browser, server: Server, issued: Issued
) -> None:
    window.click(BUTTON.format("authorize"))
    first = "//div[@class='auth-container'][.//h4[contains(., 'Bearer')]]"
    window.type(f"{first}//input", issued[1])
    window.click(f"{first}//button[@type='submit']")
    window.click(BUTTON.format("btn-done"))
    window.click(f"{OPERATION}{BUTTON.format('opblock-summary-control')}")
    window.click(f"{OPERATION}{BUTTON.format('execute')}")
    answer = window.text(ANSWER)
    assert answer.startswith("200")
    assert '"message": "Hello, World!"' in answer
    assert 'ratelimit: "ip";r=2;' in answer
    kept = "return [localStorage.length, sessionStorage.length, document.cookie]"
    assert window.run(kept) == [0, 0, ""]
    window.visit(f"{server.url}/docs/?again")
    window.click(BUTTON.format("authorize"))
    window.text(f"{first}//input")  # It asks for a key again.
    assert window.console() == []
    requested = [url for url in window.requested() if not url.startswith("data:")]
    assert f"{server.url}/" in requested
    assert [url for url in requested if not url.startswith(f"{server.url}/")] == []


def test_a_request_too_many_is_shown_as_the_problem_that_it_is(window: Browser) -> None:
    window.click(f"{OPERATION}{BUTTON.format('opblock-summary-control')}")
    for shown in ("r=2;", "r=1;", "r=0;", "Rate limit exceeded"):
        window.click(f"{OPERATION}{BUTTON.format('execute')}")
        window.text(f"{ANSWER}//td[contains(., '{shown}')]")
    answer = window.text(ANSWER)
    assert answer.startswith("429")
    assert "retry-after: " in answer
    assert len(window.console()) == 4  # Each a line of Chromium's own, for the status.


def test_it_follows_the_screen(window: Browser, server: Server) -> None:
    size = {"width": 390, "height": 800, "deviceScaleFactor": 1, "mobile": False}
    window.devtools("Emulation.setDeviceMetricsOverride", **size)
    window.click(f"{OPERATION}{BUTTON.format('opblock-summary-control')}")
    window.text(f"{OPERATION}{BUTTON.format('execute')}")
    assert window.run("return document.documentElement.scrollWidth <= innerWidth")

    def has_background(color: str) -> bool:
        script = "return getComputedStyle(document.documentElement).backgroundColor"
        return bool(window.run(script) == color)

    for scheme, color in (("dark", "rgb(28, 32, 34)"), ("light", "rgba(0, 0, 0, 0)")):
        preferred = [{"name": "prefers-color-scheme", "value": scheme}]
        window.devtools("Emulation.setEmulatedMedia", features=preferred)
        wait_for(partial(has_background, color))
    assert window.console() == []
