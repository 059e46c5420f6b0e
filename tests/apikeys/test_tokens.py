"""Tokens: what they say, and which texts are one."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import logging
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import jwt
import pytest
from django.conf import settings as site_settings
from django.utils import timezone
from django.utils.crypto import salted_hmac
from hypothesis import given, settings
from hypothesis import strategies as st
from pytest_django import DjangoAssertNumQueries, Settings
from rest_framework.test import APIClient

from apikeys import keys, tokens
from apikeys.last_used import last_used
from apikeys.models import ApiKey
from apikeys.records import KeyRecord, load, mark_of
from tests.apikeys.conftest import Ask, Issued
from tests.conftest import CommandsSent

NOW = datetime(2030, 1, 1, 12, 0, 0, 500_000, tzinfo=UTC)
SECOND = int(NOW.timestamp())
KEY_ID = "abcdefghijkl"
SECRETS = [letter * 32 for letter in "nml"]
"""Newest first."""

Fields = dict[str, Any]

without_deadline = settings(deadline=None, derandomize=True, database=None)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[datetime], None]:
    return lambda moment: monkeypatch.setattr(timezone, "now", lambda: moment)


@pytest.fixture
def at_noon(clock: Callable[[datetime], None]) -> None:
    clock(NOW)


def record(key_id: str = KEY_ID, expires_at: datetime | None = None) -> KeyRecord:
    return KeyRecord(key_id, "tests", "live", "0" * 64, "", "", expires_at, None)


def issue(now: datetime = NOW) -> str:
    return tokens.issue(record(), now)[0]


def key_id_of(token: str) -> str | None:
    """Of what a good token is for."""
    subject = tokens.subject_of(token)
    return subject.key_id if subject is not None else None


# Made by hand, as RFC 7515 has it


def derived_secret(secret_key: str) -> bytes:
    return salted_hmac("apikeys.tokens", "", secret_key, algorithm="sha256").digest()


def in_base64(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


def from_base64(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def as_json(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":"), sort_keys=True).encode()


def signed(
    header: bytes, claims: bytes, secret: bytes | None = None, digest: str = "sha256"
) -> str:
    secret = derived_secret(site_settings.SECRET_KEY) if secret is None else secret
    signing_input = f"{in_base64(header)}.{in_base64(claims)}"
    signature = hmac.digest(secret, signing_input.encode(), digest)
    return f"{signing_input}.{in_base64(signature)}"


def parts(token: str) -> tuple[Fields, Fields]:
    header, claims, _ = (from_base64(part) for part in token.split("."))
    return json.loads(header), json.loads(claims)


def altered(header: Fields | None = None, claims: Fields | None = None, **how: Any) -> str:
    """A good token with these fields instead, None for left out, signed as the good one is."""
    before = parts(issue())
    after = [
        {name: value for name, value in (old | (new or {})).items() if value is not None}
        for old, new in zip(before, (header, claims), strict=True)
    ]
    return signed(as_json(after[0]), as_json(after[1]), **how)


def replaced(token: str, header: bytes) -> str:
    """With this header, and the signature that was."""
    return ".".join([in_base64(header), *token.split(".")[1:]])


# What a token says


def test_a_token_has_the_shape_of_rfc_9068() -> None:
    token, seconds = tokens.issue(record(), NOW)
    header, claims = parts(token)
    assert seconds == 300
    assert header == {"alg": "HS256", "typ": "at+jwt", "kid": header["kid"]}
    assert claims == {
        "iss": "apikeys",
        "aud": "api",
        "sub": KEY_ID,
        "client_id": KEY_ID,
        "iat": SECOND,
        "exp": SECOND + 300,
        "jti": claims["jti"],
        "mark": mark_of("0" * 64),
    }
    assert signed(as_json(header), from_base64(token.split(".")[1])) == token
    assert len(from_base64(claims["jti"])) == 16


def test_no_two_tokens_are_the_same() -> None:
    assert len({parts(issue())[1]["jti"] for _ in range(100)}) == 100


@pytest.mark.parametrize(
    ("left", "seconds"),
    [
        (timedelta(days=1), 300),
        (timedelta(seconds=300), 300),
        (timedelta(seconds=299.999), 299),
        (timedelta(seconds=7.2), 7),
        (timedelta(seconds=0.4), 0),
    ],
)
@pytest.mark.usefixtures("at_noon")
def test_a_token_lasts_no_longer_than_its_key(left: timedelta, seconds: int) -> None:
    token, told = tokens.issue(record(expires_at=NOW + left), NOW)
    claims = parts(token)[1]
    assert told == claims["exp"] - claims["iat"] == seconds
    assert claims["exp"] <= (NOW + left).timestamp()
    assert key_id_of(token) == (KEY_ID if seconds else None)


# Which texts are one


@pytest.mark.usefixtures("at_noon")
def test_a_token_is_read_back() -> None:
    assert key_id_of(issue()) == KEY_ID
    assert key_id_of(altered()) == KEY_ID


@pytest.mark.parametrize(
    ("seconds_later", "key_id"), [(-61.0, None), (-60.0, KEY_ID), (299.0, KEY_ID), (299.5, None)]
)
def test_a_token_is_good_for_its_time_give_or_take_the_clocks_of_two_hosts(
    clock: Callable[[datetime], None], seconds_later: float, key_id: str | None
) -> None:
    """One may be a minute behind the other that issued it; nothing makes it last longer."""
    clock(NOW + timedelta(seconds=seconds_later))
    assert key_id_of(issue()) == key_id


NO_HEADER = "Its header is none that is made here"
NO_SIGNATURE = "Signature verification failed"
NO_KEY = "It is for no key"
NO_TIMES = "Its times are not whole seconds"
TOO_LONG = "It lasts longer than any that is made here"
EXPIRED = "It has expired"
FROM_THE_FUTURE = "It comes from the future"
NO_CLAIMS = "Invalid payload string"
NOT_JSON = (b"", b"[]", b"null", b"[" * 6000, b'{"a":' * 1200, b"\xff", b"{", b"NaN", b'"a"')

Spoiled = dict[str, tuple[str, str]]
"""Texts that are no good token, and why not. All that can be are signed with the right secret."""


def wrong_headers() -> Spoiled:
    good = issue()
    fields = parts(good)[0]
    claims = from_base64(good.split(".")[1])
    changes: list[Fields] = [{"alg": alg} for alg in ("HS512", "HS384", "RS256", "ES256", "hs256")]
    changes += [{"alg": alg} for alg in ("none", "None", "NONE", "", None, 1, ["HS256"])]
    changes += [{"typ": typ} for typ in ("JWT", "at+JWT", "application/at+jwt", "", None, 1)]
    changes += [{"kid": kid} for kid in ("0" * 16, fields["kid"] + "0", "../../dev/null", "")]
    changes += [{"kid": kid} for kid in (None, 1, 1.5, ["a"], {"a": 1})]
    changes += [{"crit": ["exp"]}, {"crit": []}, {"crit": ["b64"], "b64": False}, {"b64": False}]
    changes += [{"jwk": {"kty": "oct", "k": "AA"}}, {"jku": "https://example.com/keys"}]
    found = {f"{change}": altered(change) for change in changes}
    found |= {
        f"{change}, signature kept": replaced(good, as_json(fields | change)) for change in changes
    }
    found |= {f"header {content[:9]!r}": signed(content, claims) for content in NOT_JSON}
    for alg, digest in (("HS512", "sha512"), ("HS384", "sha384")):
        found[f"signed by {alg}"] = altered({"alg": alg}, digest=digest)
    unsigned = signed(as_json(fields | {"alg": "none"}), claims).rpartition(".")[0]
    found |= {"unsigned": f"{unsigned}.", "unsigned, no dot": unsigned}
    found["with blanks"] = signed(json.dumps(fields).encode(), claims)
    found["padded"] = good.replace(".", "=.", 1)
    return {name: (text, NO_HEADER) for name, text in found.items()}


def wrong_signatures() -> Spoiled:
    good = issue()
    header, claims, signature = good.split(".")
    other = in_base64(from_base64(claims).replace(KEY_ID.encode(), b"mnopqrstuvwx"))
    found = {
        "another secret": altered(secret=b"x" * 32),
        "an empty secret": altered(secret=b""),
        "the SECRET_KEY itself": altered(secret=site_settings.SECRET_KEY.encode()),
        "the kid as secret": altered(secret=parts(good)[0]["kid"].encode()),
        "by HS512 under this header": altered(digest="sha512"),
        "another key's id": f"{header}.{other}.{signature}",
        "another end": f"{header}.{claims[:-4]}AAAA.{signature}",
        "no claims": f"{header}..{signature}",
        "no signature": f"{header}.{claims}.",
        "half a signature": f"{header}.{claims}.{signature[:20]}",
        "a longer signature": f"{good}AAAA",
    }
    return {name: (text, NO_SIGNATURE) for name, text in found.items()}


def wrong_shapes() -> Spoiled:
    good = issue()
    header, claims, signature = good.split(".")
    found = {
        "signature in another alphabet": (f"{good[:-2]}+/", "Invalid crypto padding"),
        "padded signature": (f"{good}==", "Invalid crypto padding"),
        "signature with a blank": (f"{good[:-1]} ", "Invalid crypto padding"),
        "four parts": (f"{good}.{signature}", "Invalid payload padding"),
        "two parts": (f"{header}.{claims}", "Not enough segments"),
        "header alone": (header, "Not enough segments"),
        "not ASCII": (f"{good}\u00e9", "It is not ASCII"),
        "half a character": (f"{good}\ud800", "It is not ASCII"),
    }
    for text in ("", ".", "..", "a.b.c", "\0.\0.\0", "a" * 8190, "." * 8190, "a" * 8000 + ".b.c"):
        found[f"{text[:9]!r} {len(text)}"] = text, NO_HEADER
    return found


def wrong_claims() -> Spoiled:
    header, good = parts(issue())
    found = {}
    for content in NOT_JSON:
        found[f"claims {content[:9]!r}"] = signed(as_json(header), content), NO_CLAIMS
    for name in ("iss", "aud", "sub", "client_id", "iat", "exp", "jti"):
        reason = f'Token is missing the "{name}" claim'
        found[f"no {name}"] = altered(claims={name: None}), reason
        null = as_json(good | {name: None})
        found[f"{name} null"] = signed(as_json(header), null), reason
    for iss in ("hello", "APIKEYS", "", ["apikeys"], 1):
        found[f"iss {iss}"] = altered(claims={"iss": iss}), ""
    for aud in ("admin", "API", ["api"], ["api", "admin"], {"api": 1}, 1):
        found[f"aud {aud}"] = altered(claims={"aud": aud}), ""
    for sub in ("short", "abcdefghijk_", "abcdefghijklm", f"{KEY_ID}\n", "\ud800" * 12):
        found[f"sub {sub!r}"] = altered(claims={"sub": sub, "client_id": sub}), NO_KEY
    found["sub a number"] = altered(claims={"sub": 1, "client_id": 1}), "Subject must be a string"
    found["jti a number"] = altered(claims={"jti": 1}), "JWT ID must be a string"
    found["client_id another"] = altered(claims={"client_id": "mnopqrstuvwx"}), NO_KEY
    found["client_id a list"] = altered(claims={"client_id": [KEY_ID]}), NO_KEY
    return found


def wrong_times() -> Spoiled:
    header, good = parts(issue())
    found = {}
    values: list[Any] = [str(SECOND), SECOND + 0.5, float(SECOND), True, [1], {}, ""]
    for value in (*values, float("nan"), float("inf"), -float("inf"), 1e300):
        for name in ("iat", "exp"):
            found[f"{name} {value!r}"] = altered(claims={name: value}), NO_TIMES
    for nbf in (SECOND + 10**9, 1e999, "soon", [1]):
        found[f"nbf {nbf}"] = altered(claims={"nbf": nbf}), ""
    long_number = as_json(good).replace(b'"exp":', b'"exp":' + b"9" * 5000)
    return found | {
        "exp of 5000 digits": (signed(as_json(header), long_number), NO_CLAIMS),
        "exp past": (altered(claims={"iat": SECOND - 300, "exp": SECOND}), EXPIRED),
        "exp long past": (altered(claims={"iat": -300, "exp": -1}), EXPIRED),
        "exp very negative": (altered(claims={"exp": -(10**400)}), EXPIRED),
        "exp huge": (altered(claims={"exp": 10**400}), TOO_LONG),
        "exp a second late": (altered(claims={"exp": SECOND + 301}), TOO_LONG),
        "iat ahead": (altered(claims={"iat": SECOND + 61}), FROM_THE_FUTURE),
        "iat far ahead": (altered(claims={"iat": 10**400, "exp": 10**400}), FROM_THE_FUTURE),
    }


def spoiled() -> Spoiled:
    wrong = wrong_headers() | wrong_signatures() | wrong_shapes()
    return wrong | wrong_claims() | wrong_times()


@pytest.mark.parametrize("kind", spoiled())
@pytest.mark.usefixtures("at_noon")
def test_a_text_that_is_not_quite_a_token_is_none_and_the_log_says_why(
    kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    text, reason = spoiled()[kind]
    assert key_id_of(text) is None
    [line] = caplog.records
    assert (line.name, line.levelno) == ("apikeys.tokens", logging.INFO)
    assert line.getMessage().startswith(f"Refused a token: {reason}")
    assert line.exc_info is None
    for told in [part for part in text.split(".") if len(part) > 8]:
        assert told not in caplog.text
        assert told[-12:] not in caplog.text


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
fields = st.dictionaries(
    st.sampled_from(["alg", "typ", "kid", "crit", "b64", "jwk"]) | st.text(), anything, max_size=4
)
nearly = st.sampled_from(["apikeys", "api", KEY_ID, None]) | st.integers(SECOND - 400, SECOND + 400)
claims = st.dictionaries(st.sampled_from(tokens.CLAIMS), nearly | anything, max_size=3)
noise = (
    st.text() | st.text(".eyJ_-=ab", max_size=200) | st.from_regex(r"eyJ[\w-]*\.[\w.-]*\.[\w-]*")
)


@without_deadline
@given(noise)
def test_no_text_makes_it_raise(text: str) -> None:
    assert key_id_of(text) is None


@without_deadline
@given(fields, st.binary() | anything.map(as_json))
def test_no_header_makes_it_raise(header: Fields, claims: bytes) -> None:
    assert key_id_of(signed(as_json(parts(issue())[0] | header), claims)) is None


@without_deadline
@given(claims)
def test_claims_with_our_signature_are_good_when_and_only_when_each_of_them_is(
    changed: Fields,
) -> None:
    header, good = parts(issue())
    sent = good | changed
    token = signed(as_json(header), as_json(sent))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(timezone, "now", lambda: NOW)
        assert key_id_of(token) == (sent["sub"] if are_good(sent) else None)


def are_good(sent: Fields) -> bool:
    times = sent["iat"], sent["exp"]
    return (
        (sent["iss"], sent["aud"]) == ("apikeys", "api")
        and isinstance(sent["jti"], str)
        and isinstance(sent["sub"], str)
        and keys.is_id(sent["sub"])
        and sent["client_id"] == sent["sub"]
        and all(type(time) is int for time in times)
        and NOW.timestamp() < sent["exp"] <= sent["iat"] + 300
        and sent["iat"] <= NOW.timestamp() + 60
    )


@without_deadline
@given(st.data())
def test_no_character_of_a_token_can_be_changed(data: st.DataObject) -> None:
    token = tokens.issue(record(), timezone.now())[0]
    at = data.draw(st.integers(0, len(token) - 1))
    other = data.draw(st.characters().filter(lambda each: each != token[at]))
    assert key_id_of(token[:at] + other + token[at + 1 :]) is None


# Secrets


def kid_of(token: str) -> str:
    return str(parts(token)[0]["kid"])


@pytest.mark.usefixtures("at_noon")
def test_a_rolled_secret_verifies_as_long_as_it_is_listed(settings: Settings) -> None:
    by_secret = {}
    for secret in SECRETS:
        settings.API_KEY_TOKEN_SECRETS = [secret]
        by_secret[secret] = issue()
    for listed in (SECRETS, SECRETS[:2], SECRETS[:1], SECRETS[1:], SECRETS[::-1]):
        settings.API_KEY_TOKEN_SECRETS = listed
        for secret, token in by_secret.items():
            assert key_id_of(token) == (KEY_ID if secret in listed else None)
        assert kid_of(issue()) == kid_of(by_secret[listed[0]])


@pytest.mark.parametrize("unset", [None, [], ()])
@pytest.mark.usefixtures("at_noon")
def test_without_secrets_of_their_own_they_come_from_djangos(
    settings: Settings, unset: list[str] | None
) -> None:
    if unset is None:
        del settings.API_KEY_TOKEN_SECRETS
    else:
        settings.API_KEY_TOKEN_SECRETS = unset
    settings.SECRET_KEY = "old" * 20
    token = issue()
    header = parts(token)[0]
    assert signed(as_json(header), from_base64(token.split(".")[1])) == token
    settings.SECRET_KEY = "new" * 20
    assert key_id_of(token) is None
    settings.SECRET_KEY_FALLBACKS = ["older" * 20, "old" * 20]
    assert key_id_of(token) == KEY_ID
    assert kid_of(issue()) != kid_of(token)
    settings.API_KEY_TOKEN_SECRETS = SECRETS
    assert key_id_of(token) is None


def test_a_secret_of_their_own_is_what_signs(settings: Settings) -> None:
    """So that whoever shares it can verify them by any library."""
    settings.API_KEY_TOKEN_SECRETS = SECRETS
    token = issue(timezone.now())
    found = jwt.decode(token, SECRETS[0], ["HS256"], audience="api", issuer="apikeys")
    assert found["sub"] == KEY_ID


@pytest.mark.parametrize("secret", ["s" * 32, "s" * 64, "s" * 65, "s" * 200])
def test_the_kid_tells_nothing_of_the_secret(settings: Settings, secret: str) -> None:
    settings.API_KEY_TOKEN_SECRETS = [secret]
    kid = kid_of(issue())
    assert len(kid) == 16
    # Of a longer secret, HMAC's own key is this SHA-256.
    for told in (secret, hashlib.sha256(secret.encode()).hexdigest()):
        assert kid not in told
    settings.API_KEY_TOKEN_SECRETS = [f"{secret}t"]
    assert kid_of(issue()) != kid


def test_a_secret_that_is_too_short_signs_nothing(settings: Settings) -> None:
    settings.API_KEY_TOKEN_SECRETS = ["short"]
    with pytest.raises(jwt.InvalidKeyError):
        issue()
    assert key_id_of("a.b.c") is None


# In requests


def bought(issued: Issued, now: datetime | None = None) -> str:
    found = load(issued[0].pk)
    assert found is not None
    return tokens.issue(found, now or timezone.now())[0]


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def test_a_token_is_accepted_where_its_key_is(ask: Ask, issued: Issued) -> None:
    token = bought(issued)
    for headers in (bearer(token), {"Authorization": f"bEARER  {token} "}):
        answer = ask(headers)
        assert answer.status_code == 200
        assert answer.wsgi_request.META["apikeys.key_id"] == issued[0].pk
    assert ask(bearer(token) | {"X-API-Key": token}).status_code == 200
    last_used.flush()
    assert ApiKey.objects.get().last_used_at is not None


@pytest.mark.parametrize(
    "headers",
    [
        {"X-API-Key": "{token}"},
        {"Authorization": "Api-Key {token}"},
        {"Authorization": "Api-Key {token}", "X-API-Key": "{token}"},
        {"Authorization": "Basic {token}"},
        {"Authorization": "{token}"},
        {"Authorization": "Bearer Bearer {token}"},
        {"Cookie": "access_token={token}"},
    ],
)
def test_a_token_is_nothing_anywhere_else(
    ask: Ask, issued: Issued, headers: dict[str, str]
) -> None:
    token = bought(issued)
    sent = {name: value.format(token=token) for name, value in headers.items()}
    assert ask(sent).status_code == 401
    assert ask(path=f"/?access_token={token}").status_code == 401


def test_a_token_and_its_key_in_one_request_are_two_credentials(ask: Ask, issued: Issued) -> None:
    answer = ask(bearer(bought(issued)) | {"X-API-Key": issued[1]})
    assert answer.status_code == 400


ENDS: dict[str, Callable[[ApiKey], Any]] = {
    "revoked": lambda key: key.revoke(),
    "deleted": lambda key: key.delete(),
    "rotated": lambda key: key.rotate(timedelta()),
    "overlap ended": lambda key: key.rotate(timedelta(hours=1)) and key.end_overlap(),
    "expired": lambda key: ApiKey.objects.update(expires_at=timezone.now()),
    "from elsewhere": lambda key: ApiKey.objects.update(networks="192.0.2.0/24"),
}


@pytest.mark.parametrize(
    ("end", "status"),
    [*((end, 401) for end in ENDS if end != "from elsewhere"), ("from elsewhere", 403)],
)
def test_a_token_ends_with_its_key_at_the_next_request(
    ask: Ask, issued: Issued, end: str, status: int
) -> None:
    token = bought(issued)
    assert ask(bearer(token)).status_code == 200
    ENDS[end](issued[0])
    assert ask(bearer(token)).status_code == status


def test_a_key_that_expires_takes_its_tokens_with_it_to_the_microsecond(
    ask: Ask, issued: Issued, clock: Callable[[datetime], None]
) -> None:
    token = bought(issued, NOW)
    expiry = NOW + timedelta(seconds=7, microseconds=3)
    ApiKey.objects.update(expires_at=expiry)
    clock(expiry - timedelta(microseconds=1))
    assert ask(bearer(token)).status_code == 200
    clock(expiry)
    assert ask(bearer(token)).status_code == 401


def test_the_rate_of_a_key_binds_its_tokens(ask: Ask, issued: Issued) -> None:
    ApiKey.objects.update(rate="3/1m")
    tokens_of_it = [bought(issued) for _ in range(3)]
    assert [ask(bearer(token)).status_code for token in tokens_of_it] == [200] * 3
    answer = ask({"X-API-Key": issued[1]})
    assert answer.status_code == 429
    assert answer.json()["violated-policies"] == ["key"]
    assert ask(bearer(tokens_of_it[0])).status_code == 429


def test_a_token_is_as_good_in_the_steady_state_as_its_key(
    ask: Ask,
    issued: Issued,
    commands_sent: CommandsSent,
    django_assert_num_queries: DjangoAssertNumQueries,
) -> None:
    token, new = bought(issued), bought(issued)
    ask(bearer(token))
    with commands_sent() as commands, django_assert_num_queries(0):
        assert ask(bearer(token)).status_code == 200
        assert ask({"X-API-Key": issued[1]}).status_code == 200  # Of the same copy.
        assert ask(bearer(new)).status_code == 200
    assert [command.split()[0] for command in commands] == ["EVALSHA", "GET"] * 3


def test_a_wrong_token_costs_no_more_than_its_hit(
    ask: Ask,
    issued: Issued,
    commands_sent: CommandsSent,
    django_assert_num_queries: DjangoAssertNumQueries,
) -> None:
    ask()  # The store has the script from here on.
    token = bought(issued)
    expired = bought(issued, timezone.now() - timedelta(seconds=300))
    wrong = [f"{token[:-4]}AAAA", expired, "a.b.c", "..", "a" * 4000 + ".b.c"]
    with commands_sent() as commands, django_assert_num_queries(0):
        assert [ask(bearer(text)).status_code for text in wrong] == [401] * 5
    assert [command.split()[0] for command in commands] == ["EVALSHA", "GET"] * 5


def test_one_answer_whatever_was_wrong_with_a_token(ask: Ask, issued: Issued) -> None:
    good = bought(issued)
    revoked = ApiKey.objects.issue(name="revoked")
    token_of_revoked = bought(revoked)
    revoked[0].revoke()
    expired = bought(issued, timezone.now() - timedelta(seconds=300))
    wrong = [f"{good[:-4]}AAAA", token_of_revoked, expired, "a.b.c", f"{good}.", "nonsense"]
    answers = [ask(bearer(text)) for text in wrong]
    seen = {
        (answer.status_code, answer.content, answer["WWW-Authenticate"], answer["Content-Type"])
        for answer in answers
    }
    assert seen == {
        (
            401,
            ask({"X-API-Key": "nonsense"}).content,
            'Bearer realm="api", error="invalid_token"',
            "application/problem+json",
        )
    }


def test_the_log_tells_of_tokens_and_shows_none(
    ask: Ask, issued: Issued, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    token = bought(issued)
    ask(bearer(token))
    ask(bearer(f"{token[:-4]}AAAA"))
    ask({"X-API-Key": token})
    ask(path=f"/{token}")
    issued[0].revoke()
    ask(bearer(token))
    lines = [each.getMessage() for each in caplog.records if each.name.startswith("apikeys")]
    assert lines == [
        "Refused a token: Signature verification failed.",
        "Refused a credential that has not the form of a key.",
        f"Refused key {issued[0].pk}: revoked.",
    ]
    shown = caplog.text + "".join(str(vars(each)) for each in caplog.records)
    for part in token.split("."):
        assert part not in shown
    assert keys.parse(issued[1]) is not None
    assert issued[1] not in shown
    assert repr(derived_secret(site_settings.SECRET_KEY)) not in shown


def test_from_another_network_a_token_is_refused_as_its_key_is(
    api: APIClient, issued: Issued
) -> None:
    ApiKey.objects.update(networks="203.0.113.0/24")
    get = partial(api.get, "/", headers=bearer(bought(issued)))
    assert get(REMOTE_ADDR="203.0.113.7").status_code == 200
    assert get(REMOTE_ADDR="198.51.100.7").status_code == 403
