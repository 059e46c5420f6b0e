"""Request bodies, within bounds. The bound itself is DATA_UPLOAD_MAX_MEMORY_SIZE."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import IO, Any

from django.conf import settings
from rest_framework.exceptions import APIException, ParseError
from rest_framework.parsers import JSONParser


class LengthRequired(APIException):
    """Django reads no more of a body than Content-Length says: of a chunked one, nothing."""

    status_code = 411
    default_detail = "Send the body with its Content-Length, not chunked."
    default_code = "length_required"


class BodyTooLarge(APIException):
    status_code = 413
    default_detail = (
        f"The request body is larger than {settings.DATA_UPLOAD_MAX_MEMORY_SIZE} bytes."
    )
    default_code = "body_too_large"


class StrictJSONParser(JSONParser):
    """DRF's, for bodies that arrived whole and that a view may answer with or store.

    Infinity by way of 1e999 and half a surrogate pair are read by Python's parser and crash
    whatever writes them.
    """

    def parse(
        self,
        stream: IO[Any],
        media_type: str | None = None,
        parser_context: Mapping[str, Any] | None = None,
    ) -> Any:
        request = (parser_context or {})["request"]
        if len(request.body) < int(request.META.get("CONTENT_LENGTH") or 0):
            raise ParseError("The body is shorter than its Content-Length.")
        try:
            parsed = super().parse(stream, media_type, parser_context)
            json.dumps(parsed, ensure_ascii=False, allow_nan=False).encode()
        except RecursionError as error:
            raise ParseError("The JSON body is nested too deeply.") from error
        except ValueError as error:
            raise ParseError(f"The JSON body cannot be used: {error}.") from error
        return parsed
