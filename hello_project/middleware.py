"""Django's middlewares, where this site needs them to be a little different."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Final

from django.contrib.auth import middleware as auth
from django.contrib.messages import middleware as messages
from django.http import HttpRequest, HttpResponsePermanentRedirect
from django.http.response import HttpResponseBase
from django.middleware import common
from django.utils.deprecation import MiddlewareMixin

from hello_project.problems import is_for_people

PROBES: Final = ("/livez", "/readyz")


class ForPeople(MiddlewareMixin):
    """Mixed into a middleware that only pages need: a request for the API passes it by.

    Not done to those whose settings Django's deployment checks look at: they go by the name.
    """

    def __call__(self, request: HttpRequest) -> HttpResponseBase | Awaitable[HttpResponseBase]:
        return super().__call__(request) if is_for_people(request) else self.get_response(request)


class AuthenticationMiddleware(ForPeople, auth.AuthenticationMiddleware):
    pass


class MessageMiddleware(ForPeople, messages.MessageMiddleware):
    pass


class CommonMiddleware(common.CommonMiddleware):
    """For the API only what it needs: the check of Host, and Content-Length.

    Load balancers' probes ask by an address, not by a served name, so not even that check.
    """

    def process_request(self, request: HttpRequest) -> HttpResponsePermanentRedirect | None:
        if is_for_people(request):
            return super().process_request(request)
        if request.path_info not in PROBES:
            request.get_host()
        return None
