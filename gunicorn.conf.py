"""Gunicorn's settings: `gunicorn hello_project.wsgi` finds this file by itself."""

import gc
import os
import sys

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

from hello_project import gunicorn_errors

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "hello_project.settings")
try:
    settings.SECRET_KEY  # noqa: B018 - read to find out
except ImproperlyConfigured as error:
    sys.exit(f"{error} README.md lists the settings.")

gunicorn_errors.install()

_host = f"[{settings.HOST}]" if ":" in settings.HOST else settings.HOST
bind = [f"{_host}:{settings.PORT}"]
workers = settings.WEB_CONCURRENCY
worker_class = "hello_project.gunicorn_worker.Worker"
keepalive = 75
timeout = 30
graceful_timeout = 3
# Its default is a socket in the home directory that nothing here uses.
control_socket_disable = True
# Whose X-Forwarded-Proto counts: the same proxies whose X-Forwarded-For does.
forwarded_allow_ips = ",".join(str(network) for network in settings.TRUSTED_PROXIES)
# An 8 KB credential is to be refused by us, as any other; twice that by gunicorn.
limit_request_field_size = 16_380
loglevel = "warning"
logconfig_dict = settings.LOGGING
logger_class = "hello_project.gunicorn_logger.Logger"


def post_worker_init(worker: object) -> None:
    """What the worker has loaded stays: the garbage collector need not look at it again and again.

    Full collections then come sooner and take less time, and less garbage waits for them.
    """
    gc.collect()
    gc.freeze()
