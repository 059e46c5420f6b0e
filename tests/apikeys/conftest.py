from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.auth.models import Permission, User
from django.test import Client
from redis import Redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from rest_framework.test import APIClient

from apikeys import generation
from apikeys.models import ApiKey

Issued = tuple[ApiKey, str]
Ask = Callable[..., Any]
LogIn = Callable[..., Client]


@pytest.fixture
def ask(api: APIClient) -> Ask:
    """GET a path with these headers, each time from another address."""
    numbers = itertools.count()

    def get(headers: dict[str, str] | None = None, path: str = "/") -> Any:
        number = next(numbers)
        address = f"10.1.{number // 250}.{number % 250 + 1}"
        return api.get(path, headers=headers or {}, REMOTE_ADDR=address)

    return get


@pytest.fixture
def no_store_for_generation(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever asks for the generation number meets a socket that nobody listens on."""
    nobody = Redis(unix_socket_path="/nonexistent/store.sock", retry=Retry(NoBackoff(), 0))
    monkeypatch.setattr(generation, "_connection", lambda: nobody)


@pytest.fixture
def log_in() -> LogIn:
    """A client of a new member of staff with these permissions on keys."""

    def log_in(*actions: str, name: str = "operator", **options: Any) -> Client:
        user = User.objects.create_user(name, password="password", is_staff=True)
        codenames = [f"{action}_apikey" for action in actions]
        user.user_permissions.set(Permission.objects.filter(codename__in=codenames))
        client = Client(**options)
        client.force_login(user)
        return client

    return log_in


@pytest.fixture
def operator(log_in: LogIn) -> Client:
    return log_in("view", "add", "change", "rotate", "revoke")
