"""Content negotiation, for an API that answers in JSON."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import Final

from rest_framework.negotiation import DefaultContentNegotiation
from rest_framework.renderers import BaseRenderer
from rest_framework.request import Request

JSON: Final = "application/json"


class JSONNegotiation(DefaultContentNegotiation):
    """DRF's, which takes its time, only where an Accept field asks for more than JSON."""

    def select_renderer(
        self,
        request: Request,
        renderers: Iterable[BaseRenderer],
        format_suffix: str | None = None,
    ) -> tuple[BaseRenderer, str]:
        only, *others = renderers
        is_ours = not others and not format_suffix and only.media_type == JSON
        if is_ours and _takes_json(request.META.get("HTTP_ACCEPT", "*/*")):
            return only, JSON
        chosen: tuple[BaseRenderer, str] = super().select_renderer(
            request, [only, *others], format_suffix
        )
        return chosen


class WhateverIsAccepted(JSONNegotiation):
    """For answers to a proxy, which passes on what the client of another service accepts."""

    def select_renderer(
        self,
        request: Request,
        renderers: Iterable[BaseRenderer],
        format_suffix: str | None = None,
    ) -> tuple[BaseRenderer, str]:
        first = next(iter(renderers))
        return first, str(first.media_type)


@lru_cache(maxsize=256)
def _takes_json(accept: str) -> bool:
    """Whether JSON is named, or anything will do, without a parameter that could say otherwise."""
    return not {"*/*", JSON}.isdisjoint(item.strip().lower() for item in accept.split(","))
