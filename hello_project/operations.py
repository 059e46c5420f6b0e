"""What the API's operations take and answer, in the words of OpenAPI 3.1 and JSON Schema."""

from __future__ import annotations

import json
from typing import Any, Final

from django.conf import settings
from django.http import HttpRequest
from rest_framework.views import APIView

from apikeys import keys, tokens
from hello_project import views
from hello_project.parsers import LengthRequired
from hello_project.problems import MEDIA_TYPE, QUOTA_EXCEEDED, problem, quota_exceeded_response
from throttling.headers import AppliedLimit, rate_limit_headers
from throttling.limiter import Decision
from throttling.rates import RateLimit
from throttling.throttles import APPLIED, StoreUnavailable

Described = dict[str, Any]

RATE: Final[RateLimit] = settings.IP_RATE_LIMIT
ENQUIRY_RATE: Final = RATE.times(settings.ENQUIRIES_PER_REQUEST)
EVERYWHERE: Final = ("Cache-Control", "X-Request-ID")
LIMITED: Final = ("RateLimit-Policy", "RateLimit", *EVERYWHERE)


def _in_words(rate: RateLimit) -> str:
    requests = "1 request" if rate.limit == 1 else f"{rate.limit} requests"
    seconds = "second" if rate.window == 1 else f"{rate.window:g} seconds"
    return f"{requests} in any {seconds}"


def _ref(kind: str, name: str) -> Described:
    return {"$ref": f"#/components/{kind}/{name}"}


def _object(required: Described, optional: Described | None = None) -> Described:
    properties = required | (optional or {})
    return {"type": "object", "required": list(required), "properties": properties}


def _answer(
    description: str, schema: str, headers: tuple[str, ...], **examples: Described
) -> Described:
    """`examples` by name; that of a single one is not told."""
    return _with_body("application/json", description, schema, headers, examples)


def _error(
    description: str, headers: tuple[str, ...], schema: str = "Problem", **examples: Described
) -> Described:
    return _with_body(MEDIA_TYPE, description, schema, headers, examples)


def _with_body(
    media_type: str,
    description: str,
    schema: str,
    headers: tuple[str, ...],
    examples: dict[str, Described],
) -> Described:
    named = {name: {"value": value} for name, value in examples.items()}
    shown = {"examples": named} if len(named) > 1 else {"example": next(iter(examples.values()))}
    content = {"schema": _ref("schemas", schema)} | shown
    return _without_body(description, headers) | {"content": {media_type: content}}


def _without_body(description: str, headers: tuple[str, ...]) -> Described:
    return {"description": description, "headers": _header_refs(headers)}


def _header_refs(names: tuple[str, ...]) -> Described:
    return {name: _ref("headers", name) for name in names}


def _refusal(policy: str, rate: RateLimit = RATE) -> Described:
    """The site's own body for it, when a client has used up its limit at once."""
    decision = Decision(False, 0, retry_after=rate.window, reset_after=rate.window)
    request = HttpRequest()
    request.META[APPLIED] = [AppliedLimit(policy, "", rate, decision)]
    body: Described = json.loads(quota_exceeded_response(request).content)
    return body


_FRESH: Final = Decision(True, RATE.limit - 1, retry_after=0, reset_after=RATE.window)
_RATE_LIMIT_EXAMPLES: Final = rate_limit_headers([AppliedLimit("ip", "", RATE, _FRESH)])

ABOUT: Final = f"""\
**Keys.** An operator gives you a key, which looks like `{keys.PATTERN}`. Send it in one of three
headers, never in the URL: `Authorization: Bearer …`, `X-API-Key: …` or `Authorization: Api-Key …`.
A key buys a token, which is good for {tokens.SECONDS // 60} minutes and is sent as
`Authorization: Bearer …`.

**Limits.** A client's address may make {_in_words(RATE)}, whatever becomes of them. An IPv6 client
is its /64. A key may have a limit of its own besides. Every answer says what is left, and a
refusal, 429, when to come back: waiting `Retry-After` seconds is enough, unless others share the
address or the key.

**Errors** are `application/problem+json` (RFC 9457). Beside those of each operation there are 404
for an unknown path, 405 for a method that a path does not have, and 400, 414, 417, 431 and 501 for
what is no proper request.

`HEAD` is answered wherever `GET` is.
"""

TAGS: Final = ("Hello", "Tokens", "Limits", "Forward authentication", "Health")
"""In the order in which they are shown."""

_STRING: Final = {"type": "string"}
_OK: Final = {"type": "string", "const": "ok"}
_OK_OR_DOWN: Final = {"type": "string", "enum": ["ok", "down"]}
_PROBLEM: Final = {
    "title": {"type": "string", "description": "The same for all problems of this type."},
    "status": {"type": "integer", "description": "That of the answer."},
    "detail": {"type": "string", "description": "What was wrong this time, for people."},
}

SCHEMAS: Final = {
    "Hello": _object({"message": _STRING}),
    "Token": _object(
        {
            "access_token": {"type": "string", "description": "A JSON Web Token (RFC 9068)."},
            "token_type": {"type": "string", "const": "Bearer"},
            "expires_in": {"type": "integer", "description": "Seconds."},
        }
    ),
    "RateLimits": _object({"policies": {"type": "array", "items": _ref("schemas", "RateLimit")}}),
    "RateLimit": _object(
        {
            "policy": {
                "type": "string",
                "description": "`ip` for the client's address, `key` for the key's own.",
            },
            "limit": {"type": "integer", "minimum": 1, "description": "Requests in any window."},
            "window": {"type": "number", "exclusiveMinimum": 0, "description": "Seconds."},
            "remaining": {"type": "integer", "minimum": 0, "description": "Requests."},
            "reset_after": {
                "type": "number",
                "minimum": 0,
                "description": "Seconds until more remain; 0 when all do.",
            },
        }
    ),
    "Alive": _object({"status": _OK}),
    "Ready": _object({"status": _OK, "database": _OK, "store": _OK}),
    "Problem": {"description": "RFC 9457."}
    | _object(
        _PROBLEM,
        {"type": {"type": "string", "format": "uri-reference", "default": "about:blank"}},
    ),
    "QuotaExceeded": {"description": "RFC 9457, of a registered type."}
    | _object(
        _PROBLEM
        | {
            "type": {"type": "string", "const": QUOTA_EXCEEDED},
            "violated-policies": {
                "type": "array",
                "items": _STRING,
                "description": "Names of policies, as in `RateLimit-Policy`.",
            },
        }
    ),
    "NotReady": {"description": "RFC 9457, with what is down."}
    | _object(_PROBLEM | {"database": _OK_OR_DOWN, "store": _OK_OR_DOWN}),
}


def _header(description: str, example: Any, **schema: Any) -> Described:
    return {"description": description, "schema": _STRING | schema, "example": example}


HEADERS: Final = {
    "RateLimit-Policy": _header(
        "Each limit by its name: `q` requests in any `w` seconds"
        " (draft-ietf-httpapi-ratelimit-headers).",
        _RATE_LIMIT_EXAMPLES["RateLimit-Policy"],
    ),
    "RateLimit": _header(
        "Of each limit, by its name: `r` requests remain, and more in `t` seconds.",
        _RATE_LIMIT_EXAMPLES["RateLimit"],
    ),
    "Retry-After": _header(
        "Seconds after which the same request will do.", 1, type="integer", minimum=1
    ),
    "WWW-Authenticate": _header(
        "RFC 6750; with `error` when a credential was sent.",
        'Bearer realm="api", error="invalid_token"',
    ),
    "Cache-Control": _header("Nothing of the API is to be stored.", "no-store", const="no-store"),
    "X-Request-ID": _header("What the log knows the request by.", "f9bd7c22da2ab611"),
    "X-Api-Key-Id": _header("The public part of the key.", "d3QLeRZgONzT"),
    "X-Api-Key-Name": _header(
        "UTF-8, percent-encoded but for visible ASCII characters and spaces.",
        "%C3%9Cnal & S%C3%B6hne",
    ),
}

RESPONSES: Final = {
    "BadRequest": _error(
        "Two different credentials, or a request that is malformed or for another host",
        LIMITED,
        credentials=problem(400, "Send one API key; this request has two different ones."),
        host=problem(400, "The request is malformed or names a host that is not served here."),
    ),
    "Unauthorized": _error(
        "No key, or one that is unknown, wrong, revoked or expired: one answer for all of these",
        ("WWW-Authenticate", *LIMITED),
        key=problem(401, "A valid API key is required."),
    ),
    "Forbidden": _error(
        "The key may not be used from this network",
        LIMITED,
        network=problem(403, "This key may not be used from this network."),
    ),
    "NotAcceptable": _error(
        "The `Accept` field does not take JSON",
        LIMITED,
        accept=problem(406, "Could not satisfy the request Accept header."),
    ),
    "LengthRequired": _error(
        "A body without its length", LIMITED, chunked=problem(411, LengthRequired.default_detail)
    ),
    "TooManyRequests": _error(
        "The address or the key is over its limit",
        ("Retry-After", *LIMITED),
        "QuotaExceeded",
        address=_refusal("ip"),
        key=_refusal("key"),
    ),
    "TooManyEnquiries": _error(
        "Too many enquiries, or without a good key too many requests",
        ("Retry-After", *LIMITED),
        "QuotaExceeded",
        enquiries=_refusal("rate-limit", ENQUIRY_RATE),
        address=_refusal("ip"),
    ),
    "InternalServerError": _error(
        "A fault of the server's",
        EVERYWHERE,
        crash=problem(500, "Something went wrong here. It has been logged."),
    ),
    "ServiceUnavailable": _error(
        "The database is needed and does not answer, or the limits' store does not",
        ("Retry-After", *LIMITED),
        database=problem(503, "The database does not answer. Try again in a second."),
        store=problem(503, StoreUnavailable.default_detail),
    ),
}

SECURITY_SCHEMES: Final = {
    "Bearer": {
        "type": "http",
        "scheme": "bearer",
        "description": "A key or, but for `/get-auth-token`, a token.",
    },
    "XApiKey": {"type": "apiKey", "in": "header", "name": "X-API-Key", "description": "A key."},
    "ApiKey": {
        "type": "apiKey",
        "in": "header",
        "name": "Authorization",
        "description": "The word `Api-Key`, a space and a key.",
    },
}
"""Any one of them will do. The page shows the first one first."""

COMPONENTS: Final = {"schemas": SCHEMAS, "headers": HEADERS, "responses": RESPONSES}

_ERRORS: Final = {
    "400": _ref("responses", "BadRequest"),
    "401": _ref("responses", "Unauthorized"),
    "403": _ref("responses", "Forbidden"),
    "406": _ref("responses", "NotAcceptable"),
    "429": _ref("responses", "TooManyRequests"),
    "500": _ref("responses", "InternalServerError"),
    "503": _ref("responses", "ServiceUnavailable"),
}
_TOKEN: Final = _answer(
    "A token",
    "Token",
    LIMITED,
    token={"access_token": "eyJ…", "token_type": "Bearer", "expires_in": tokens.SECONDS},
)


def _left(policy: str, rate: RateLimit) -> Described:
    return {
        "policy": policy,
        "limit": rate.limit,
        "window": rate.window,
        "remaining": rate.limit - 1,
        "reset_after": rate.window,
    }


_WELL: Final = {"status": "ok", "database": "ok", "store": "ok"}
_NOT_ACCEPTABLE: Final = {
    key: RESPONSES["NotAcceptable"][key] for key in ("description", "content")
}
_UNLIMITED_ERRORS: Final = {
    "406": _NOT_ACCEPTABLE | {"headers": _header_refs(EVERYWHERE)},
    "500": _ref("responses", "InternalServerError"),
}

OPERATIONS: Final[dict[tuple[type[APIView], str], Described]] = {
    (views.HelloView, "GET"): {
        "operationId": "hello",
        "tags": ["Hello"],
        "summary": "Say hello",
        "description": "To whoever has a key or a token.",
        "responses": {
            "200": _answer("Hello", "Hello", LIMITED, hello={"message": "Hello, World!"}),
            **_ERRORS,
        },
    },
    (views.TokenView, "GET"): {
        "operationId": "get_token",
        "tags": ["Tokens"],
        "summary": "Buy a token",
        "description": "A key buys a token. A token buys none: it is refused, 401.",
        "responses": {"200": _TOKEN, **_ERRORS},
    },
    (views.TokenView, "POST"): {
        "operationId": "create_token",
        "tags": ["Tokens"],
        "summary": "Buy a token",
        "description": "As by `GET`. Needs no body; none is read.",
        "responses": {
            "200": _TOKEN,
            **_ERRORS,
            "411": _ref("responses", "LengthRequired"),
        },
    },
    (views.RateLimitView, "GET"): {
        "operationId": "get_rate_limits",
        "tags": ["Limits"],
        "summary": "Tell what is left",
        "description": (
            "Uses up nothing of what it tells, and has a limit of its own:"
            f" {_in_words(ENQUIRY_RATE)}. Without a good key it costs what any request costs."
        ),
        "responses": {
            "200": _answer(
                "What is left",
                "RateLimits",
                LIMITED,
                address={"policies": [_left("ip", RATE)]},
                key={"policies": [_left("ip", RATE), _left("key", RateLimit(100, 60))]},
            ),
            **_ERRORS,
            "429": _ref("responses", "TooManyEnquiries"),
        },
    },
    (views.VerifyView, "GET"): {
        "operationId": "verify",
        "tags": ["Forward authentication"],
        "summary": "Authenticate another's request",
        "description": (
            "For a proxy, which asks before it passes on a request: 204 lets it pass."
            " Every method is answered alike; so is every path below this one, but for 200 in"
            " place of 204, since Envoy, which appends its path, takes nothing else."
        ),
        "responses": {
            "204": _without_body(
                "The key is good; who it is", ("X-Api-Key-Id", "X-Api-Key-Name", *LIMITED)
            ),
            **{status: error for status, error in _ERRORS.items() if status != "406"},
        },
    },
    (views.LivezView, "GET"): {
        "operationId": "livez",
        "tags": ["Health"],
        "summary": "Does the process answer?",
        "description": "For load balancers; open and unlimited.",
        "responses": {
            "200": _answer("It does", "Alive", EVERYWHERE, alive={"status": "ok"}),
            **_UNLIMITED_ERRORS,
        },
    },
    (views.ReadyzView, "GET"): {
        "operationId": "readyz",
        "tags": ["Health"],
        "summary": "Do its database and its store answer?",
        "description": "For load balancers; open and unlimited.",
        "responses": {
            "200": _answer("They do", "Ready", EVERYWHERE, ready=_WELL),
            **_UNLIMITED_ERRORS,
            "503": _error(
                "One of them does not",
                ("Retry-After", *EVERYWHERE),
                "NotReady",
                store=problem(503, "No answer from the store.", database="ok", store="down"),
                both=problem(
                    503, "No answer from the database and the store.", database="down", store="down"
                ),
            ),
        },
    },
}
