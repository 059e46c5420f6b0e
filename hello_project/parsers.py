"""Request bodies, within bounds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import IO, Any, Final, cast

from rest_framework.exceptions import APIException, ParseError
from rest_framework.parsers import JSONParser

MAX_BODY_BYTES: Final = 1_048_576


class BodyTooLarge(APIException):
    status_code = 413
    default_detail = f"The request body is larger than {MAX_BODY_BYTES} bytes."
    default_code = "body_too_large"


class BoundedJSONParser(JSONParser):
    """DRF's, for bodies of at most MAX_BODY_BYTES that do not exhaust the stack."""

    def parse(
        self,
        stream: IO[Any],
        media_type: str | None = None,
        parser_context: Mapping[str, Any] | None = None,
    ) -> Any:
        try:
            return super().parse(cast("IO[Any]", _Bounded(stream)), media_type, parser_context)
        except RecursionError as error:
            raise ParseError("The JSON body is nested too deeply.") from error


class _Bounded:
    """A stream that refuses to give more than MAX_BODY_BYTES."""

    def __init__(self, stream: IO[Any]) -> None:
        self._stream = stream

    def read(self, size: int = -1) -> bytes:
        body: bytes = self._stream.read(MAX_BODY_BYTES + 1)
        if len(body) > MAX_BODY_BYTES:
            raise BodyTooLarge
        return body
