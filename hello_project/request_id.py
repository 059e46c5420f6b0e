"""The id of a request, which every line logged on its behalf carries."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Mapping
from contextvars import ContextVar
from typing import Any, Final

from throttling.clients import is_trusted_proxy

FORM: Final = re.compile(r"(?!.*(?:hk_(?:live|test)_|eyJ))[0-9A-Za-z._:/+=@-]{1,128}")
"""What a proxy's X-Request-ID has to look like: it forges no line, and is no key or token."""

current: Final[ContextVar[str]] = ContextVar("request_id", default="-")


def id_of(meta: Mapping[str, Any]) -> str:
    """A trusted proxy's X-Request-ID, or a new one."""
    sent = meta.get("HTTP_X_REQUEST_ID")
    if sent and FORM.fullmatch(sent) and is_trusted_proxy(meta):
        return str(sent)
    return os.urandom(8).hex()


class Filter(logging.Filter):
    """Gives every record `request_id`, "-" outside of a request."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.request_id = current.get()
        return True
