"""What people paste where a secret has no business: a search, a name, a reason."""

from __future__ import annotations

import re
from typing import Final

_KEY: Final = re.compile(r"(hk_(?:live|test)_([0-9A-Za-z]{12}))(?![0-9A-Za-z])[0-9A-Za-z_]*")
"""Also one that is cut short, mistyped or masked: of the second group, the id, all are readable."""
_SECRET: Final = re.compile(r"[0-9A-Za-z]{30,}")
"""Longer than words are, and shorter than what any credential keeps secret."""


def key_id_in(text: str) -> str | None:
    """The id of the first key in the text, good or not."""
    match = _KEY.search(text)
    return match[2] if match else None


def holds_secret(text: str) -> bool:
    """Whether it may hold a credential: a key, a token, or what is left of one."""
    return _SECRET.search(text) is not None


def without_secrets(text: str) -> str:
    """Of keys, what is public: ``hk_live_<id>_…``."""
    return _KEY.sub(lambda match: match[0] if match[0] == match[1] else f"{match[1]}_…", text)
