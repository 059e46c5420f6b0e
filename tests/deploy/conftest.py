from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from urllib.request import urlopen

import pytest

from apikeys.models import ApiKey
from tests import servers
from tests.deploy import proxies
from tests.deploy.proxies import Proxy, Service
from tests.servers import Server


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    with proxies.service(tmp_path) as running:
        yield running


@pytest.fixture(params=proxies.KINDS)
def proxy_before(
    request: pytest.FixtureRequest, tmp_path: Path, service: Service
) -> Iterator[Callable[[int], Proxy]]:
    """Starts a proxy that asks a site at this port and passes on to the service."""
    if sys.platform != "linux":
        pytest.skip("Only Linux connects from 127.0.0.2 without being told to.")
    with ExitStack() as stack:
        yield lambda site: stack.enter_context(
            proxies.proxy(request.param, tmp_path / "proxy", site, service.port)
        )


@pytest.fixture
def site(issued: tuple[ApiKey, str], tmp_path: Path) -> Iterator[Server]:
    with _site(tmp_path) as running:
        yield running


@pytest.fixture
def site_again(site: Server, tmp_path: Path) -> Callable[[], AbstractContextManager[Server]]:
    """Starts the site anew, on the port that it had."""
    return lambda: _site(tmp_path, str(site.port))


@contextmanager
def _site(folder: Path, port: str = "") -> Iterator[Server]:
    with servers.gunicorn(folder, workers=2, PORT=port, TRUSTED_PROXIES="127.0.0.1") as running:
        # It listens before it has a worker, and a proxy would not wait that long.
        with urlopen(f"{running.url}/livez", timeout=servers.START_SECONDS) as answer:
            assert answer.status == 200
        yield running


@pytest.fixture
def proxy(site: Server, proxy_before: Callable[[int], Proxy]) -> Proxy:
    """In front of `service`. It goes before the site does, which waits for its connections."""
    return proxy_before(site.port)


@pytest.fixture
def yes_site(tmp_path: Path) -> Iterator[Service]:
    """Stands in for the site where what it is asked matters. It lets all pass."""
    with proxies.service(tmp_path, status=200) as running:
        yield running


@pytest.fixture
def open_proxy(yes_site: Service, proxy_before: Callable[[int], Proxy]) -> Proxy:
    return proxy_before(yes_site.port)
