"""Django's middlewares, where this site needs them to be a little different."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

from django.contrib.auth import middleware as auth
from django.contrib.messages import middleware as messages
from django.http import HttpRequest, HttpResponseForbidden, HttpResponsePermanentRedirect
from django.http.response import HttpResponseBase
from django.middleware import common
from django.template.loader import render_to_string
from django.utils.deprecation import MiddlewareMixin

from hello_project.problems import is_for_people, problem_response
from throttling.network_rules import rule_for
from throttling.throttles import NetworkBlocked

PROBES: Final = ("/livez", "/readyz")
METRICS: Final = "/metrics"
VERIFY: Final = "/verify"
UNBLOCKED: Final = (*PROBES, METRICS)


def is_verify(request: HttpRequest) -> bool:
    return request.path_info == VERIFY or request.path_info.startswith(f"{VERIFY}/")


CONTENT_SECURITY_POLICY: Final = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data:",
        "font-src 'self'",
        "connect-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    )
)
"""Of the console's pages: nothing from elsewhere, and no script or style in a page itself."""


class ForPeople(MiddlewareMixin):
    """Mixed into a middleware that only pages need: a request for the API passes it by.

    Not done to those whose settings Django's deployment checks look at: they go by the name.
    """

    def __call__(self, request: HttpRequest) -> HttpResponseBase | Awaitable[HttpResponseBase]:
        return super().__call__(request) if is_for_people(request) else self.get_response(request)


class BlockedNetworksMiddleware:
    """A blocked network is answered nothing but that: neither by the API nor by the console."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        if request.path_info in UNBLOCKED:
            return self.get_response(request)
        rule = rule_for(request)
        if rule is None or not rule.blocks:
            return self.get_response(request)
        if is_for_people(request):
            return HttpResponseForbidden(render_to_string("hello_project/blocked.html"))
        return problem_response(403, NetworkBlocked.default_detail)


class ContentSecurityPolicyMiddleware(ForPeople):
    def process_response(
        self, request: HttpRequest, response: HttpResponseBase
    ) -> HttpResponseBase:
        response.headers["Content-Security-Policy"] = CONTENT_SECURITY_POLICY
        return response


class AuthenticationMiddleware(ForPeople, auth.AuthenticationMiddleware):
    pass


class MessageMiddleware(ForPeople, messages.MessageMiddleware):
    pass


class CommonMiddleware(common.CommonMiddleware):
    """For the API only what it needs: the check of Host, and Content-Length.

    Not even that check for load balancers' probes and for Prometheus, which ask by an address, and
    for proxies that ask about a request, which may ask by the name that the request was for.
    """

    def process_request(self, request: HttpRequest) -> HttpResponsePermanentRedirect | None:
        if is_for_people(request):
            return super().process_request(request)
        if not (request.path_info in PROBES or request.path_info == METRICS or is_verify(request)):
            request.get_host()
        return None
