"""The DRF authentication class for API keys."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Final

from django.http import HttpRequest
from django.utils import timezone
from rest_framework.authentication import BaseAuthentication
from rest_framework.exceptions import AuthenticationFailed, ParseError
from rest_framework.request import Request

from apikeys import generation, keys
from apikeys.last_used import last_used
from apikeys.records import KeyRecord, records

logger = logging.getLogger(__name__)

SCHEMES: Final = ("bearer", "api-key")
KEY_ID: Final = "apikeys.key_id"
"""The META entry with the id of the good key that a request carried."""


@dataclass(frozen=True, slots=True)
class KeyHolder:
    """`request.user` of a request made with a key."""

    pk: str
    name: str
    is_authenticated: bool = True
    is_anonymous: bool = False
    is_active: bool = True

    def __str__(self) -> str:
        return f"{self.name} ({self.pk})"


class InvalidKey(AuthenticationFailed):
    """One answer whatever was wrong with the credential; the log says what."""

    default_detail = "The API key is not valid."


class ApiKeyAuthentication(BaseAuthentication):
    """`Authorization: Bearer <key>`, `Authorization: Api-Key <key>` or `X-API-Key: <key>`.

    Gives (KeyHolder, KeyRecord). A request without any of the three is left to the next
    authentication class. Raises InvalidKey (401), and ParseError (400) for two different keys.
    """

    def authenticate(self, request: Request) -> tuple[KeyHolder, KeyRecord] | None:
        credentials = set(credentials_in(request))
        if not credentials:
            return None
        if len(credentials) > 1:
            raise ParseError("Send one API key; this request has two different ones.")
        record = self.authenticate_key(request, credentials.pop())
        return KeyHolder(record.key_id, record.name), record

    def authenticate_key(self, request: Request, credential: str) -> KeyRecord:
        """The record of a good key. Raises InvalidKey."""
        key = keys.parse(credential)
        if key is None:
            logger.info("Refused a credential that has not the form of a key.")
            raise InvalidKey
        now = timezone.now()
        record = records.find(key.id, generation.current(request))
        refusal = "unknown" if record is None else record.refusal_of(key, now)
        if record is None or refusal is not None:
            logger.info("Refused key %s: %s.", key.id, refusal)
            raise InvalidKey
        last_used.note(record.key_id, now)
        request.META[KEY_ID] = record.key_id
        return record

    def authenticate_header(self, request: Request) -> str:
        """RFC 6750, section 3: the error is named only when a credential was sent."""
        challenge = 'Bearer realm="api"'
        return f'{challenge}, error="invalid_token"' if credentials_in(request) else challenge


def credentials_in(request: Request | HttpRequest) -> list[str]:
    """What was sent where a key belongs, good or not. Repeated fields arrive joined by commas."""
    meta = request.META
    found = []
    for part in meta.get("HTTP_AUTHORIZATION", "").split(","):
        scheme, _, credential = part.strip().partition(" ")
        if scheme.lower() in SCHEMES:
            found.append(credential.strip())
    if "HTTP_X_API_KEY" in meta:
        found += [part.strip() for part in meta["HTTP_X_API_KEY"].split(",")]
    return found
