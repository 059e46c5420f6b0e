"""The base view that limits before it authenticates."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.http import HttpRequest
from django.http.response import HttpResponseBase
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.throttling import BaseThrottle
from rest_framework.views import APIView

from throttling.headers import rate_limit_headers
from throttling.throttles import APPLIED


class RateLimitedView(APIView):
    """An APIView whose `before_authentication` throttles run before anything else of it.

    They are given Django's request, since DRF's is not made yet. The others run where DRF runs
    them. The first refusal ends the request, so that a refused hit spends nothing of the limits
    behind it. Every answer carries the RateLimit headers.
    """

    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        _name_action(self, request)
        early, self._later = _split(self.get_throttles())
        try:
            for throttle in early:
                if not throttle.allow_request(request, self):  # type: ignore[arg-type]
                    return self.refuse(request, throttle)
        except Exception as error:  # handle_exception raises again what is not DRF's.
            return self._answer_error(request, error, *args, **kwargs)
        return super().dispatch(request, *args, **kwargs)

    def refuse(self, request: HttpRequest, throttle: BaseThrottle) -> HttpResponseBase:
        """The answer to what a throttle refused before authentication: DRF's, by its exception.

        That costs more than answering the request would have; a project may do better here.
        """
        self.throttled(request, throttle.wait() or 0)  # type: ignore[arg-type]

    def check_throttles(self, request: Request) -> None:
        for throttle in self._later:
            if not throttle.allow_request(request, self):
                self.throttled(request, throttle.wait() or 0)

    def finalize_response(
        self, request: Request, response: Response, *args: Any, **kwargs: Any
    ) -> Response:
        finalized = super().finalize_response(request, response, *args, **kwargs)
        for name, value in rate_limit_headers(request.META.get(APPLIED, ())).items():
            finalized[name] = value
        return finalized

    def _answer_error(
        self, request: HttpRequest, error: Exception, *args: Any, **kwargs: Any
    ) -> HttpResponseBase:
        """What DRF's `dispatch` does with an exception, for one from before it."""
        self.args, self.kwargs = args, kwargs
        self.request = self.initialize_request(request, *args, **kwargs)
        self.request.authenticators = ()  # Nobody has asked who it is, nor shall the rendering.
        self.format_kwarg = self.get_format_suffix(**kwargs)
        self.headers = self.default_response_headers
        response = self.handle_exception(error)
        return self.finalize_response(self.request, response, *args, **kwargs)


def _name_action(view: Any, request: HttpRequest) -> None:
    """Of a viewset, whose `get_throttles` may go by it. DRF does this when it makes its request."""
    if hasattr(view, "action_map"):
        view.action = view.action_map.get((request.method or "").lower())


def _split(throttles: Sequence[BaseThrottle]) -> tuple[list[BaseThrottle], list[BaseThrottle]]:
    early: list[BaseThrottle] = []
    later: list[BaseThrottle] = []
    for throttle in throttles:
        before = getattr(throttle, "before_authentication", False)
        (early if before else later).append(throttle)
    return early, later
