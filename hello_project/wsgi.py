"""The site as a WSGI application."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from wsgiref.types import StartResponse, WSGIEnvironment

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.core.wsgi import get_wsgi_application
from django.urls import Resolver404, resolve
from django.utils.http import parse_header_parameters

if TYPE_CHECKING:
    from throttling.throttles import SlidingWindowThrottle
    from throttling.views import RateLimitedView

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "hello_project.settings")
try:
    settings.SECRET_KEY  # noqa: B018 - Django raises on an empty one, without saying what to do
except ImproperlyConfigured as error:
    raise ImproperlyConfigured(f"{error} Set SECRET_KEY or SECRET_KEY_FILE.") from error

if settings.DATABASES["default"]["ENGINE"] == "django.db.backends.sqlite3":
    # Else DRF imports the driver of the other database, for field types that nothing here has: 9 MB
    # a process.
    sys.modules.setdefault("psycopg", None)  # type: ignore[arg-type]  # Which makes it ImportError.


class Site:
    def __init__(self) -> None:
        self._django = get_wsgi_application()

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Django's answer; a Content-Type that it cannot parse would crash it before any view."""
        try:
            if content_type := environ.get("CONTENT_TYPE"):
                parse_header_parameters(content_type)
        except ValueError:
            environ["CONTENT_TYPE"] = ""
        return self._django(environ, start_response)

    def ask_ahead(self, requests: Sequence[tuple[str, Mapping[str, Any]]]) -> list[dict[str, Any]]:
        """For requests about to be answered, what to add to their environs: it saves them asking.

        A request is its path, and of its environ what tells the client's address.
        """
        from throttling import ahead  # After Django's setup.

        additions: list[dict[str, Any]] = [{} for _ in requests]
        limited = []
        for (path, fields), addition in zip(requests, additions, strict=True):
            found = _first_throttle(path)
            if found is not None:
                limited.append((*found, fields, addition))
        asked = ahead.ask_ahead([(throttle, view, fields) for throttle, view, fields, _ in limited])
        for (*_, addition), answer in zip(limited, asked, strict=True):
            addition.update(answer)
        return additions


@lru_cache(maxsize=1024)
def _first_throttle(path: str) -> tuple[SlidingWindowThrottle, RateLimitedView] | None:
    """What the path's view asks the store before anything else."""
    from throttling.throttles import SlidingWindowThrottle
    from throttling.views import RateLimitedView

    try:
        view_class = getattr(resolve(path).func, "cls", None)
    except Resolver404:
        return None
    if view_class is None or not issubclass(view_class, RateLimitedView):
        return None
    view = view_class()
    throttle = next(iter(view.get_throttles()), None)
    if not isinstance(throttle, SlidingWindowThrottle) or not throttle.before_authentication:
        return None
    return throttle, view


application = Site()
