"""A project that uses djangorestframework-api-key, in a process of its own that has it on its path.

Gets its database's URL and a JSON array of things to do in order, such as ["make", {"name": "a"}],
and prints a JSON array of what each gave.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import django
import environ
from django.conf import settings
from django.core.management import call_command
from django.db import connection, models
from django.utils import timezone


def main() -> None:
    url, doings = sys.argv[1], json.loads(sys.argv[2])
    settings.configure(
        DATABASES={"default": environ.Env.db_url_config(url)},
        INSTALLED_APPS=["rest_framework", "rest_framework_api_key"],
        DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
        USE_TZ=True,
    )
    django.setup()
    call_command("migrate", verbosity=0)
    json.dump([DOINGS[name](*given) for name, *given in doings], sys.stdout)


def model_of(name: str) -> Any:
    from rest_framework_api_key.models import (  # type: ignore[import-not-found]
        AbstractAPIKey,
        APIKey,
    )

    if name == "APIKey":
        return APIKey
    meta = type("Meta", (AbstractAPIKey.Meta,), {"app_label": "shop"})
    body = {"__module__": "shop", "Meta": meta, "shop": models.CharField(max_length=20)}
    return type("ShopKey", (AbstractAPIKey,), body)


def make(options: dict[str, Any]) -> str:
    """The plaintext. `expires_in` is in seconds."""
    model = model_of(options.pop("model", "APIKey"))
    if model._meta.db_table not in connection.introspection.table_names():
        with connection.schema_editor() as editor:
            editor.create_model(model)
    expires_in = options.pop("expires_in", None)
    if expires_in is not None:
        options["expiry_date"] = timezone.now() + timedelta(seconds=expires_in)
    _, key = model.objects.create_key(**options)
    return str(key)


def is_valid(key: str) -> bool:
    """As a request with the key would find out, with what that changes."""
    return bool(model_of("APIKey").objects.is_valid(key))


def change(key: str, changes: dict[str, Any]) -> None:
    row = model_of("APIKey").objects.get(prefix=key.partition(".")[0])
    for name, value in changes.items():
        setattr(row, name, value)
    row.save()


def delete(key: str) -> None:
    model_of("APIKey").objects.get(prefix=key.partition(".")[0]).delete()


def zero() -> None:
    model_of("APIKey").objects.all().delete()  # Its columns become too short for their hashes.
    call_command("migrate", "rest_framework_api_key", "zero", verbosity=0)
    with connection.cursor() as cursor:
        cursor.execute("DROP TABLE IF EXISTS shop_shopkey")


DOINGS: dict[str, Callable[..., Any]] = {
    each.__name__: each for each in (make, is_valid, change, delete, zero)
}

if __name__ == "__main__":
    main()
