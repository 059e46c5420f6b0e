"""The project's settings for the tests: nothing of the developer's environment leaks in.

TEST_DATABASE_URL and TEST_REDIS_URL choose other servers than SQLite and the embedded Valkey. The
store's contents are deleted between tests.
"""

import os
import secrets
import tempfile
from pathlib import Path

DATA_DIR = Path(tempfile.mkdtemp(prefix="hello-tests-"))
SQLITE = DATA_DIR / "tests.sqlite3"

_OURS = (
    "SECRET_KEY_FILE DEBUG ALLOWED_HOSTS HOST PORT IP_RATE_LIMIT TRUSTED_PROXIES"
    " STORE_FAILURE CSRF_TRUSTED_ORIGINS LOG_FORMAT HTTPS DATABASE_URL_FILE REDIS_URL_FILE"
    " TOKEN_SECRETS TOKEN_SECRETS_FILE METRICS_TOKEN METRICS_TOKEN_FILE METRICS_NETWORKS"
    " REQUEST_LOG SECOND_FACTOR"
)
# Set to nothing, which counts as not set, so that no .env fills them in.
os.environ.update(dict.fromkeys(_OURS.split(), ""))
os.environ.update(
    SECRET_KEY=secrets.token_urlsafe(50),
    DATA_DIR=str(DATA_DIR),
    DATABASE_URL=os.environ.get("TEST_DATABASE_URL") or f"sqlite:///{SQLITE}",
    REDIS_URL=os.environ.get("TEST_REDIS_URL", ""),
    HTTPS="off",
    WEB_CONCURRENCY=str(os.cpu_count() or 1),  # Gunicorn cannot be imported beside an empty one.
)

from hello_project.settings import *  # noqa: E402, F403 - the environment comes first
from hello_project.settings import ALLOWED_HOSTS, DATABASES, INSTALLED_APPS  # noqa: E402

ALLOWED_HOSTS += ["testserver"]
INSTALLED_APPS += ["drf_api_keys"]
# A file, because the servers that tests start use the same database.
if DATABASES["default"]["ENGINE"].endswith("sqlite3"):
    DATABASES["default"]["TEST"] = {"NAME": str(SQLITE)}
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
