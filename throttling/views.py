"""The base view that limits before it authenticates."""

from __future__ import annotations

from typing import Any

from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from throttling.headers import rate_limit_headers
from throttling.throttles import APPLIED


class RateLimitedView(APIView):
    """An APIView whose `before_authentication` throttles run before anything else.

    The others run where DRF runs them. The first refusal ends the request, so that a refused hit
    spends nothing of the limits behind it. Every answer carries the RateLimit headers.
    """

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        self._run_throttles(request, before_authentication=True)
        super().initial(request, *args, **kwargs)

    def check_throttles(self, request: Request) -> None:
        self._run_throttles(request, before_authentication=False)

    def _run_throttles(self, request: Request, *, before_authentication: bool) -> None:
        for throttle in self.get_throttles():
            if getattr(throttle, "before_authentication", False) is not before_authentication:
                continue
            if not throttle.allow_request(request, self):
                self.throttled(request, throttle.wait() or 0)

    def finalize_response(
        self, request: Request, response: Response, *args: Any, **kwargs: Any
    ) -> Response:
        finalized = super().finalize_response(request, response, *args, **kwargs)
        for name, value in rate_limit_headers(request.META.get(APPLIED, ())).items():
            finalized[name] = value
        return finalized
