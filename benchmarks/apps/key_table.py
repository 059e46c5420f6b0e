"""The least that a check of API keys can be, for libraries that bring none: a look in a dict."""

import hashlib
import os

OWNERS = {os.environ["KEY_DIGEST"]: "benchmark"}


def owner_of(key):
    """Whose key it is; None when it is nobody's."""
    return OWNERS.get(hashlib.sha256(key.encode()).hexdigest())
