"""A real browser, Chromium, driven by Playwright, before a real site."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest
from django.contrib.auth.hashers import PBKDF2PasswordHasher, make_password
from django.contrib.auth.models import User

from tests import servers
from tests.servers import Server

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Page

HERE: Final = Path(__file__).parent
AXE: Final = HERE / "node_modules" / "axe-core" / "axe.min.js"
OPERATOR_ADDRESS: Final = "203.0.113.50"
PASSWORD: Final = "correct horse battery staple"
ARGUMENTS: Final = [
    "--no-sandbox",  # Tests may run as root.
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]

Context = Callable[..., "BrowserContext"]


@pytest.fixture(scope="package")
def playwright() -> Iterator[Any]:
    """Its loop runs in this thread, where Django then expects no queries, until the package ends.

    Nobody else's tests are to meet it.
    """
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        servers.unavailable(
            "playwright is not installed: pip install -r tests/requirements-browser.txt"
        )
    with pytest.MonkeyPatch.context() as patched, sync_playwright() as started:
        patched.setenv("DJANGO_ALLOW_ASYNC_UNSAFE", "true")
        yield started


@pytest.fixture(scope="package")
def chromium() -> str:
    return servers.need("chromium", "chromium")


@pytest.fixture(scope="package")
def browser(playwright: Any, chromium: str) -> Iterator[Browser]:
    running = playwright.chromium.launch(executable_path=chromium, args=ARGUMENTS)
    yield running
    running.close()


@pytest.fixture
def axe() -> str:
    if not AXE.exists():
        servers.unavailable("axe-core is not installed: npm ci --prefix tests/browser")
    return AXE.read_text()


@pytest.fixture
def operator(transactional_db: None) -> User:
    user = User.objects.create_superuser("ann")
    # The server does not know the hasher that makes the tests quick.
    user.password = make_password(PASSWORD, hasher=PBKDF2PasswordHasher())
    user.save()
    return user


@pytest.fixture
def site(operator: User, tmp_path: Path) -> Iterator[Server]:
    """Behind a proxy, so that tests choose where a request comes from."""
    settings = {"TRUSTED_PROXIES": "127.0.0.1", "SECOND_FACTOR": "optional"}
    with servers.gunicorn(tmp_path, workers=2, **settings) as running:
        yield running


@pytest.fixture
def context(browser: Browser, site: Server) -> Iterator[Context]:
    """A window's worth of cookies; its requests come from OPERATOR_ADDRESS."""
    opened = []

    def open_context(**options: Any) -> BrowserContext:
        new = browser.new_context(
            base_url=site.url,
            extra_http_headers={"X-Forwarded-For": OPERATOR_ADDRESS},
            **options,
        )
        new.set_default_timeout(15_000)
        opened.append(new)
        return new

    yield open_context
    for each in opened:
        each.close()


@pytest.fixture
def page(context: Context) -> Page:
    """Logged in."""
    opened = context(permissions=["clipboard-read", "clipboard-write"]).new_page()
    log_in(opened)
    return opened


def wait_for_status(page: Page, status: int) -> None:
    """Of the console. A network rule holds everywhere within a second."""

    def has_it() -> bool:
        answer = page.goto("/admin/")
        return answer is not None and answer.status == status

    servers.wait_for(has_it, seconds=2)


def log_in(page: Page) -> None:
    send_login(page, PASSWORD)
    page.get_by_role("heading", name="Traffic", exact=True).wait_for()


def send_login(page: Page, password: str) -> None:
    page.goto("/admin/")
    page.get_by_label("Username").fill("ann")
    page.get_by_label("Password").fill(password)
    page.get_by_role("button", name="Log in").click()
