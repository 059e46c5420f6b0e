"""The admin's pages for keys, as a browser meets them."""

from __future__ import annotations

import html
import re
from typing import Any

from django.conf import settings
from django.test import Client
from redis import Redis
from redis.exceptions import ConnectionError as StoreConnectionError

from apikeys import generation, keys
from apikeys.models import ApiKey

LIST = "/admin/apikeys/apikey/"
ADD = f"{LIST}add/"
REVOKE = f"{LIST}revoke/"
FIND = f"{LIST}find/"
STORE_NOT_TOLD = str(generation.GenerationNotRaised())


def page_of(key: ApiKey) -> str:
    return f"{LIST}{key.pk}/change/"


def rotate_page_of(key: ApiKey) -> str:
    return f"{LIST}{key.pk}/rotate/"


def end_overlap_page_of(key: ApiKey) -> str:
    return f"{LIST}{key.pk}/end-overlap/"


def history_page_of(key: ApiKey) -> str:
    return f"{LIST}{key.pk}/history/"


def text_of(answer: Any) -> str:
    return html.unescape(answer.content.decode())


def inputs(answer: Any) -> dict[str, str]:
    """What a browser would send of the page's own form, without its buttons and its boxes."""
    found = {}
    content = answer.content.decode().partition('<div id="content"')[2]
    for tag in re.findall(r"<input [^>]*>", content):
        fields = dict(re.findall(r'([a-z]+)="([^"]*)"', tag))
        is_sent = fields.get("type") in ("text", "hidden", "date", "time") or " checked" in tag
        if is_sent and "name" in fields:
            found[fields["name"]] = html.unescape(fields.get("value", ""))
    return found


def plaintexts(answer: Any) -> set[str]:
    return {match[0] for match in re.finditer(keys.PATTERN, answer.content.decode())}


def filled_in(client: Client, **values: str) -> dict[str, str]:
    """The form for a new key, as a browser sends it."""
    form = inputs(client.get(ADD))
    chosen = {"expires": "own"} if "expires_at_0" in values else {"expires": form["expires"]}
    new = {"key_id": form["key_id"], "name": "billing", "environment": "live"}
    return new | chosen | values


def events_shown(answer: Any) -> list[tuple[str, str, str]]:
    """Who, what and the detail of each line of a page's history."""
    rows = re.findall(r"<td><time [^>]*>[^<]*</time></td>(.*?)</tr>", text_of(answer))
    found = [re.findall(r"<td>(.*?)</td>", row) for row in rows]
    return [(who, what, detail) for who, what, detail in found]


def edited(key: ApiKey, **values: str) -> dict[str, str]:
    unchanged = {"name": key.name, "owner": key.owner, "rate": key.rate, "networks": key.networks}
    return unchanged | {"expires_at_0": "", "expires_at_1": ""} | values


def number() -> int:
    """The generation number; 0 before the first. Asked without the site's short timeout."""
    with Redis.from_url(settings.REDIS_URL) as client:
        return int(client.get(generation.STORE_KEY) or 0)


def out_of_reach() -> Redis:
    raise StoreConnectionError
