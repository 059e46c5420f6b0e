from __future__ import annotations

from typing import Final

from django.http import HttpRequest, HttpResponsePermanentRedirect
from django.middleware import common

PROBES: Final = ("/livez", "/readyz")


class CommonMiddleware(common.CommonMiddleware):
    """Django's, but for load balancers' probes: those ask by an address, not by a served name."""

    def process_request(self, request: HttpRequest) -> HttpResponsePermanentRedirect | None:
        return None if request.path_info in PROBES else super().process_request(request)
