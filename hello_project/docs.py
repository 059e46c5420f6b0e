"""The API's description, and a page to read it on and try it. For everyone, and not limited."""

from __future__ import annotations

import hashlib
from typing import Final

from django.http import HttpRequest, HttpResponse
from django.template.loader import render_to_string
from django.utils.cache import get_conditional_response
from django.utils.http import quote_etag
from django.views.decorators.csrf import csrf_exempt

from hello_project.problems import problem_response

METHODS: Final = ("GET", "HEAD")
CACHED: Final = {"Cache-Control": "public, max-age=60"}
"""As long as the static files."""
CONTENT_SECURITY_POLICY: Final = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data:",  # Swagger UI's stylesheet has its icons in it.
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)


@csrf_exempt  # Whose check would come before the answer that it is only read.
def openapi(request: HttpRequest) -> HttpResponse:
    if request.method not in METHODS:
        return _not_allowed()
    from hello_project.openapi import document  # Up to 0.1 s and 4 MB, once somebody asks.

    body = document()
    etag = quote_etag(hashlib.sha256(body).hexdigest()[:32])
    response = HttpResponse(body, content_type="application/json", headers=CACHED | {"ETag": etag})
    return get_conditional_response(request, etag=etag, response=response) or response


@csrf_exempt
def page(request: HttpRequest) -> HttpResponse:
    if request.method not in METHODS:
        return _not_allowed()
    headers = CACHED | {"Content-Security-Policy": CONTENT_SECURITY_POLICY}
    return HttpResponse(render_to_string("hello_project/docs.html"), headers=headers)


def _not_allowed() -> HttpResponse:
    return problem_response(405, "This is read by GET.", {"Allow": ", ".join(METHODS)})
