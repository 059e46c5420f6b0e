"""The DRF authentication classes for API keys, and for the tokens that they buy."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import Final

from django.conf import settings
from django.http import HttpRequest
from django.utils import timezone
from django.utils.module_loading import import_string
from rest_framework.authentication import BaseAuthentication
from rest_framework.exceptions import AuthenticationFailed, ParseError, PermissionDenied
from rest_framework.request import Request

from apikeys import generation, keys, networks, tokens
from apikeys.last_used import last_used
from apikeys.records import KeyRecord, records

logger = logging.getLogger(__name__)

BEARER: Final = "bearer"
X_API_KEY: Final = "x-api-key"
SCHEMES: Final = (BEARER, "api-key")
"""Those of the Authorization header."""
KEY_ID: Final = "apikeys.key_id"
"""The META entry with the id of the good key that a request carried."""


@dataclass(frozen=True, slots=True)
class Credential:
    """What was sent where a key belongs, and how. Its repr leaves the text out."""

    scheme: str
    """"bearer", "api-key" or "x-api-key"."""
    text: str = field(repr=False)


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
    authentication class. Raises InvalidKey (401), ParseError (400) for two different keys, and
    PermissionDenied (403) for a key that is used from a network that it does not allow.
    """

    def authenticate(self, request: Request) -> tuple[KeyHolder, KeyRecord] | None:
        credentials = credentials_in(request)
        if not credentials:
            return None
        credential = credentials[0] if len(credentials) == 1 else _one_of(credentials)
        record = self.record_of(request, credential)
        request.META[KEY_ID] = record.key_id
        if record.networks:
            _check_network(request, record)
        last_used.note(record.key_id, timezone.now())
        return KeyHolder(record.key_id, record.name), record

    def record_of(self, request: Request, credential: Credential) -> KeyRecord:
        """The record of the good key that this credential names. Raises InvalidKey.

        To be extended by who takes other credentials too.
        """
        key = keys.parse(credential.text)
        if key is None:
            logger.info("Refused a credential that has not the form of a key.")
            raise InvalidKey
        record = _record(request, key.id)
        _refuse_if(record, record.refusal_of(key, timezone.now()))
        return record.as_of(key)

    def authenticate_header(self, request: Request) -> str:
        """RFC 6750, section 3: the error is named only when a credential was sent."""
        challenge = 'Bearer realm="api"'
        return f'{challenge}, error="invalid_token"' if credentials_in(request) else challenge


class KeyOrTokenAuthentication(ApiKeyAuthentication):
    """Takes `Authorization: Bearer <token>` too: a token of apikeys.tokens stands for its key."""

    def record_of(self, request: Request, credential: Credential) -> KeyRecord:
        if credential.scheme != BEARER or not tokens.is_shaped_like(credential.text):
            return super().record_of(request, credential)
        subject = tokens.subject_of(credential.text)
        if subject is None:
            raise InvalidKey
        record = _record(request, subject.key_id)
        _refuse_if(record, record.refusal_of_mark(subject.mark, timezone.now()))
        return record


def credentials_in(request: Request | HttpRequest) -> list[Credential]:
    """What was sent where a key belongs, good or not. Repeated fields arrive joined by commas."""
    meta = request.META
    found = []
    for part in meta.get("HTTP_AUTHORIZATION", "").split(","):
        scheme, _, text = part.strip().partition(" ")
        if (scheme := scheme.lower()) in SCHEMES:
            found.append(Credential(scheme, text.strip()))
    if "HTTP_X_API_KEY" in meta:
        found += [Credential(X_API_KEY, part.strip()) for part in meta["HTTP_X_API_KEY"].split(",")]
    return found


def _one_of(credentials: list[Credential]) -> Credential:
    """Of one text sent several times, that sent as Bearer. Raises ParseError for several texts."""
    if len({credential.text for credential in credentials}) > 1:
        raise ParseError("Send one API key; this request has two different ones.")
    return next((each for each in credentials if each.scheme == BEARER), credentials[0])


def _check_network(request: Request, record: KeyRecord) -> None:
    address = client_address(request)
    if not networks.contain(record.networks, address):
        logger.info("Refused key %s: its networks do not have %s.", record.key_id, address)
        raise PermissionDenied("This key may not be used from this network.")


def client_address(request: Request) -> str:
    """Where the request came from, by API_KEY_CLIENT_ADDRESS, which takes META; else the peer."""
    path = getattr(settings, "API_KEY_CLIENT_ADDRESS", None)
    address: str = (
        import_string(path)(request.META) if path else request.META.get("REMOTE_ADDR", "")
    )
    return address


def _record(request: Request, key_id: str) -> KeyRecord:
    record = records.find(key_id, generation.current(request))
    if record is None:
        raise _refused(key_id, "unknown")
    return record


def _refuse_if(record: KeyRecord, refusal: str | None) -> None:
    """For this reason, or because the key is not good now. Raises InvalidKey."""
    refusal = refusal or record.refusal_at(timezone.now())
    if refusal is not None:
        raise _refused(record.key_id, refusal)


def _refused(key_id: str, refusal: str) -> InvalidKey:
    logger.info("Refused key %s: %s.", key_id, refusal)
    return InvalidKey()
