from __future__ import annotations

from gunicorn import glogging


class Logger(glogging.Logger):
    """Gunicorn's, which puts an access line together for every request when it is given LOGGING."""

    access_log_enabled = False
