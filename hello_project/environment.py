"""Settings from the environment and `.env`; each secret also as NAME_FILE.

Every reader raises ImproperlyConfigured with one sentence that names the setting and says what to
write. A setting that is empty counts as not set.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

import environ
from django.core.exceptions import ImproperlyConfigured

T = TypeVar("T")

_SWITCHES = {
    **dict.fromkeys(("1", "true", "yes", "on"), True),
    **dict.fromkeys(("0", "false", "no", "off"), False),
}
_STORE_SCHEMES = ("redis", "rediss", "unix")
_DATABASE_SCHEMES = ("postgres", "postgresql", "sqlite")


def read_dotenv(path: Path) -> None:
    """Take what `path` sets and the environment does not."""
    try:
        environ.Env.read_env(path, parse_comments=True)
    except UnicodeDecodeError as error:
        raise ImproperlyConfigured(f"{path} cannot be read: {error}.") from error


def text(name: str, default: str = "") -> str:
    return os.environ.get(name, "").strip() or default


def secret(name: str, default: str = "") -> str:
    """The setting, or the content of the file that NAME_FILE names."""
    path = text(f"{name}_FILE")
    if not path:
        return text(name, default)
    if text(name):
        raise ImproperlyConfigured(f"Both {name} and {name}_FILE are set: keep one of them.")
    return content_of(Path(path), f"{name}_FILE") or default


def secrets(name: str, shortest: int) -> list[str]:
    """Comma-separated; in a file also a line each."""
    found = [each.strip() for each in secret(name).replace("\n", ",").split(",") if each.strip()]
    for each in found:
        _check_length(name, each, shortest)
    return found


def long_secret(name: str, shortest: int) -> str:
    """Of at least so many characters, or "" when not set."""
    found = secret(name)
    if found:
        _check_length(name, found, shortest)
    return found


def _check_length(name: str, found: str, shortest: int) -> None:
    if len(found) < shortest:
        raise ImproperlyConfigured(
            f"{name} has a secret of {len(found)} characters: write at least {shortest},"
            ' such as `python3 -c "import secrets; print(secrets.token_urlsafe(48))"` makes.'
        )


def content_of(path: Path, name: str, *, missing_ok: bool = False) -> str:
    """Of a file that the setting `name` has led to; "" when there is none and that is fine."""
    try:
        return path.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        if missing_ok and isinstance(error, FileNotFoundError):
            return ""
        raise ImproperlyConfigured(f"{name} cannot be read: {error}.") from error


def switch(name: str, default: bool) -> bool:
    value = text(name)
    if not value:
        return default
    if value.lower() not in _SWITCHES:
        raise ImproperlyConfigured(f"{name} is {value!r}: write true or false.")
    return _SWITCHES[value.lower()]


def whole_number(name: str, default: int, lowest: int, highest: int) -> int:
    value = text(name) or str(default)
    digits = value.isascii() and value.isdigit() and len(value) <= len(str(highest))
    if not digits or not lowest <= int(value) <= highest:
        raise ImproperlyConfigured(
            f"{name} is {value!r}: write a whole number from {lowest} to {highest}."
        )
    return int(value)


def choice(name: str, choices: Sequence[str]) -> str:
    """One of `choices`; the first is the default."""
    value = text(name, choices[0])
    if value not in choices:
        raise ImproperlyConfigured(f"{name} is {value!r}: write one of {', '.join(choices)}.")
    return value


def words(name: str, default: Sequence[str] = ()) -> list[str]:
    """Comma-separated."""
    return [word.strip() for word in text(name).split(",") if word.strip()] or list(default)


def parsed(name: str, default: str, parse: Callable[[str], T]) -> T:
    """What `parse` makes of the setting; its ValueError becomes the sentence."""
    value = text(name, default)
    try:
        return parse(value)
    except ValueError as error:
        raise ImproperlyConfigured(f"{name} is {value!r}: {error}") from error


def origins(name: str) -> list[str]:
    found = words(name)
    for origin in found:
        if urlsplit(origin).scheme not in ("http", "https") or not urlsplit(origin).netloc:
            raise ImproperlyConfigured(
                f"{name} has {origin!r}: write origins such as https://api.example.com."
            )
    return found


def store_url(name: str, default: str) -> str:
    """A redis://, rediss:// or unix:// URL."""
    url = secret(name, default)
    if not _is_url(url, _STORE_SCHEMES):
        raise ImproperlyConfigured(
            f"{name} is not a store's URL: write redis://host:6379/0, rediss://… or unix:///path."
        )
    return url


def database(name: str, default: str) -> dict[str, object]:
    """Django's connection settings from a postgres:// or sqlite:// URL."""
    url = secret(name, default)
    if not _is_url(url, _DATABASE_SCHEMES):
        raise ImproperlyConfigured(
            f"{name} is not a database's URL:"
            " write postgres://user:password@host:5432/name or sqlite:////absolute/path."
        )
    return dict(environ.Env.db_url_config(url))


def _is_url(url: str, schemes: Sequence[str]) -> bool:
    try:
        parts = urlsplit(url)
        has_place = bool(parts.hostname or parts.path) and parts.port != 0
    except ValueError:
        return False
    return parts.scheme in schemes and has_place
