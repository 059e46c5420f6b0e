"""Short-lived tokens that a key buys: JSON Web Tokens in the shape of RFC 9068.

A token does no more than name its key, and the secret of it that bought the token. Whether both are
good, and from where, the key's record says in every request, as for the key itself.
"""

from __future__ import annotations

import hashlib
import logging
import secrets
from datetime import datetime
from functools import lru_cache
from typing import Final, NamedTuple

import jwt
from django.conf import settings
from django.utils import timezone
from django.utils.crypto import salted_hmac

from apikeys import keys
from apikeys.records import KeyRecord, mark_of

logger = logging.getLogger(__name__)

SECONDS: Final = 300
CLOCK_SKEW: Final = 60
"""Seconds that the clock of the host that issued a token may be ahead of this one's."""
ISSUER: Final = "apikeys"
AUDIENCE: Final = "api"
CLAIMS: Final = ("iss", "aud", "sub", "client_id", "iat", "exp", "jti")
"""Of every token, by RFC 9068, section 2.2."""
MARK: Final = "mark"
"""The claim that names the secret (records.mark_of): no registered one means this."""

_ALGORITHM: Final = "HS256"
_TYPE: Final = "at+jwt"
_SALT: Final = "apikeys.tokens"
_JWT: Final = jwt.PyJWT(
    {
        "require": [*CLAIMS, MARK],
        "strict_aud": True,
        "enforce_minimum_key_length": True,
        # Done here, by Django's clock: PyJWT takes "300" and 300.5 for a time too.
        "verify_exp": False,
        "verify_iat": False,
    }
)


class Subject(NamedTuple):
    """What a token is for: a key, and the secret of it that has this mark."""

    key_id: str
    mark: str


def issue(record: KeyRecord, now: datetime) -> tuple[str, int]:
    """A token for this key, and its seconds: 300, or fewer when the key expires sooner."""
    seconds = SECONDS
    if record.expires_at is not None:
        seconds = min(seconds, int((record.expires_at - now).total_seconds()))
    issued_at = int(now.timestamp())
    claims = {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "sub": record.key_id,
        "client_id": record.key_id,
        "iat": issued_at,
        "exp": issued_at + seconds,
        "jti": secrets.token_urlsafe(16),
        MARK: mark_of(record.digest),
    }
    newest = next(iter(_secrets().values()))
    return _signed(claims, newest), seconds


def is_shaped_like(text: str) -> bool:
    """Whether the text can be a token, good or not; no key is."""
    return text.count(".") == 2


def subject_of(token: str) -> Subject | None:
    """What a good token is for; None for whatever else, which the log explains.

    Never raises, and does no I/O.
    """
    try:
        return _verified_subject(token)
    except (jwt.PyJWTError, RecursionError) as error:
        logger.info("Refused a token: %s.", str(error).rstrip("."))
        return None


def _verified_subject(token: str) -> Subject:
    """Raises PyJWTError, with a reason that quotes nothing of the token."""
    # A header that is not ours, letter for letter, is not even read: no other algorithm, type or
    # extension gets as far as the signature.
    secret = _secrets().get(token.partition(".")[0])
    if secret is None:
        raise jwt.InvalidTokenError("Its header is none that is made here")
    subject, issued_at, expires_at = _signed_claims(token, secret)
    now = timezone.now().timestamp()
    if expires_at <= now:
        raise jwt.ExpiredSignatureError("It has expired")
    if issued_at > now + CLOCK_SKEW:
        raise jwt.ImmatureSignatureError("It comes from the future")
    return subject


@lru_cache(maxsize=1024)
def _signed_claims(token: str, secret: bytes) -> tuple[Subject, int, int]:
    """What it is for, `iat` and `exp`. Raises PyJWTError.

    Remembered, since this takes longer than the rest of authentication, and tokens come again.
    """
    if not token.isascii():
        raise jwt.DecodeError("It is not ASCII")
    claims = _JWT.decode(token, secret, [_ALGORITHM], audience=AUDIENCE, issuer=ISSUER)
    key_id, issued_at, expires_at = claims["sub"], claims["iat"], claims["exp"]
    if claims["client_id"] != key_id or not keys.is_id(key_id):
        raise jwt.InvalidTokenError("It is for no key")
    mark = claims[MARK]
    if not (isinstance(mark, str) and mark.isascii()):
        raise jwt.InvalidTokenError("It is for no secret")
    if type(issued_at) is not int or type(expires_at) is not int:
        raise jwt.InvalidTokenError("Its times are not whole seconds")
    if expires_at > issued_at + SECONDS:
        raise jwt.InvalidTokenError("It lasts longer than any that is made here")
    return Subject(key_id, mark), issued_at, expires_at


def _signed(claims: dict[str, object], secret: bytes) -> str:
    # Not of the secret alone: HMAC signs with the SHA-256 of a secret of more than 64 bytes.
    kid = hashlib.sha256(b"kid:" + secret).hexdigest()[:16]
    return _JWT.encode(claims, secret, _ALGORITHM, headers={"typ": _TYPE, "kid": kid})


def _secrets() -> dict[str, bytes]:
    """By the header of the tokens that each signs, newest first."""
    own = getattr(settings, "API_KEY_TOKEN_SECRETS", ())
    if own:
        return _by_header(tuple(own))
    return _derived_by_header((settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS))


@lru_cache(maxsize=1)
def _by_header(own: tuple[str, ...]) -> dict[str, bytes]:
    return {_header(secret): secret for secret in map(str.encode, own)}


@lru_cache(maxsize=1)
def _derived_by_header(secret_keys: tuple[str | bytes, ...]) -> dict[str, bytes]:
    derived = [salted_hmac(_SALT, "", key, algorithm="sha256").digest() for key in secret_keys]
    return {_header(secret): secret for secret in derived}


def _header(secret: bytes) -> str:
    return _signed({}, secret).partition(".")[0]
