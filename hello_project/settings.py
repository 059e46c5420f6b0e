"""Django's settings. README.md lists the environment variables they come from."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from pythonjsonlogger.core import RESERVED_ATTRS

from hello_project import environment, store
from throttling.addresses import parse_networks
from throttling.rates import RateLimit

BASE_DIR = Path(__file__).resolve().parent.parent
environment.read_dotenv(BASE_DIR / ".env")

# What this installation is

DATA_DIR = BASE_DIR / environment.text("DATA_DIR", "var")
HOST = environment.text("HOST", "127.0.0.1")
PORT = environment.whole_number("PORT", 8000, 1, 65535)
WEB_CONCURRENCY = environment.whole_number("WEB_CONCURRENCY", os.cpu_count() or 1, 1, 1024)
DEBUG = environment.switch("DEBUG", default=False)
HTTPS = environment.switch("HTTPS", default=True)
ENQUIRIES_PER_REQUEST = 10
IP_RATE_LIMIT = environment.parsed("IP_RATE_LIMIT", "3/10s", RateLimit.parse)
TRUSTED_PROXIES = environment.parsed("TRUSTED_PROXIES", "", parse_networks)
STORE_FAILURE = environment.choice("STORE_FAILURE", ["local", "deny", "allow"])
METRICS_NETWORKS = environment.parsed("METRICS_NETWORKS", "", parse_networks)
METRICS_TOKEN = environment.long_secret("METRICS_TOKEN", shortest=32)
REQUEST_LOG = environment.switch("REQUEST_LOG", default=True)
SECOND_FACTOR = environment.choice("SECOND_FACTOR", ["off", "optional", "required"])
LOG_FORMAT = environment.choice("LOG_FORMAT", ["text", "json"])

# Empty when there is neither: what needs it then stops with a sentence (hello_project.wsgi).
SECRET_KEY_PATH = DATA_DIR / "secret_key"
SECRET_KEY = environment.secret("SECRET_KEY")
SECRET_KEY_IS_SET = bool(SECRET_KEY)
if not SECRET_KEY_IS_SET:
    SECRET_KEY = environment.content_of(SECRET_KEY_PATH, "DATA_DIR", missing_ok=True)

_here = ["localhost", "127.0.0.1", "[::1]"]
ALLOWED_HOSTS = environment.words("ALLOWED_HOSTS", _here)
CSRF_TRUSTED_ORIGINS = environment.origins("CSRF_TRUSTED_ORIGINS")

ROOT_URLCONF = "hello_project.urls"
WSGI_APPLICATION = "hello_project.wsgi.application"

INSTALLED_APPS = [
    "hello_project.apps.ConsoleConfig",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "rest_framework",
    "drf_spectacular_sidecar",
    "django_otp.plugins.otp_totp",
    "django_otp.plugins.otp_static",
    "apikeys",
    "throttling",
    "hello_project.apps.HelloProjectConfig",
]

MIDDLEWARE = [
    "hello_project.request_log.RequestLogMiddleware",
    "hello_project.middleware.ContentSecurityPolicyMiddleware",
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "hello_project.middleware.CommonMiddleware",
    "hello_project.middleware.BlockedNetworksMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "hello_project.middleware.AuthenticationMiddleware",
    "hello_project.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "hello_project" / "templates"],  # Before the admin's own.
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    },
]

# Database and store

DATABASES: dict[str, dict[str, Any]] = {
    "default": environment.database("DATABASE_URL", f"sqlite:///{DATA_DIR / 'db.sqlite3'}")
}
if DATABASES["default"]["ENGINE"] == "django.db.backends.sqlite3":
    DATABASES["default"]["OPTIONS"] = {
        "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL",
        "transaction_mode": "IMMEDIATE",
        "timeout": 5,
    }
else:
    DATABASES["default"] |= {"CONN_MAX_AGE": 60, "CONN_HEALTH_CHECKS": True}
    DATABASES["default"].setdefault("OPTIONS", {}).setdefault("connect_timeout", 1)
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

_embedded_url = store.embedded_url(DATA_DIR)
REDIS_URL = environment.store_url("REDIS_URL", _embedded_url)
STORE_IS_EMBEDDED = _embedded_url == REDIS_URL
CACHES = {
    "default": {
        "BACKEND": "django_redis.cache.RedisCache",
        # A list, because django-redis splits a string at its commas.
        "LOCATION": [REDIS_URL],
        "OPTIONS": store.CLIENT_OPTIONS,
    }
}

# The API

REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": ["apikeys.authentication.KeyOrTokenAuthentication"],
    "DEFAULT_PERMISSION_CLASSES": ["rest_framework.permissions.IsAuthenticated"],
    "DEFAULT_THROTTLE_CLASSES": [
        "hello_project.throttles.AddressThrottle",
        "throttling.throttles.KeyThrottle",
    ],
    "DEFAULT_THROTTLE_RATES": {
        "ip": str(IP_RATE_LIMIT),
        "rate-limit": str(IP_RATE_LIMIT.times(ENQUIRIES_PER_REQUEST)),
    },
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "DEFAULT_CONTENT_NEGOTIATION_CLASS": "hello_project.negotiation.JSONNegotiation",
    "DEFAULT_PARSER_CLASSES": ["hello_project.parsers.StrictJSONParser"],
    "DEFAULT_METADATA_CLASS": None,
    "DEFAULT_SCHEMA_CLASS": "hello_project.openapi.Description",
    # `?format=` is no parameter of ours.
    "URL_FORMAT_OVERRIDE": None,
    "EXCEPTION_HANDLER": "hello_project.problems.exception_handler",
}
DATA_UPLOAD_MAX_MEMORY_SIZE = 1_048_576
API_KEY_RATE_VALIDATORS = ["throttling.validators.validate_rate_limit"]
API_KEY_TOKEN_SECRETS = environment.secrets("TOKEN_SECRETS", shortest=32)
API_KEY_CLIENT_ADDRESS = "throttling.clients.client_address"

# The admin, and what a browser gets

AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.UserAttributeSimilarityValidator"},
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator"},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
]
# Codes are limited by hello_project.second_factor, as everything is.
OTP_TOTP_THROTTLE_FACTOR = OTP_STATIC_THROTTLE_FACTOR = 0
STATIC_URL = "static/"
# Served from where the packages keep them: no collectstatic, no folder to ship.
WHITENOISE_USE_FINDERS = True
CSRF_FAILURE_VIEW = "hello_project.problems.csrf_failure"
X_FRAME_OPTIONS = "DENY"
SESSION_COOKIE_SECURE = HTTPS
CSRF_COOKIE_SECURE = HTTPS
SECURE_SSL_REDIRECT = HTTPS
# Only the pages are redirected: a client that sends its key in the clear should notice.
SECURE_REDIRECT_EXEMPT = [r"^(?!(admin|docs)(/|$))"]
SECURE_HSTS_SECONDS = 31_536_000 if HTTPS else 0
SECURE_HSTS_INCLUDE_SUBDOMAINS = HTTPS
SECURE_HSTS_PRELOAD = HTTPS

LANGUAGE_CODE = "en-us"
TIME_ZONE = "UTC"
USE_I18N = False
FORMAT_MODULE_PATH = ["hello_project.formats"]

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {
        "text": {
            "format": "{asctime} {levelname} {name} [{request_id}] {message}",
            "style": "{",
        },
        "json": {
            "()": "pythonjsonlogger.json.JsonFormatter",
            "fmt": "{asctime}{levelname}{name}{request_id}{message}",
            "style": "{",
            # Django attaches the request, whose repr has the query string: a key may be in it.
            "reserved_attrs": [*RESERVED_ATTRS, "request"],
        },
    },
    "filters": {"request_id": {"()": "hello_project.request_id.Filter"}},
    "handlers": {
        "stderr": {
            "class": "logging.StreamHandler",
            "formatter": LOG_FORMAT,
            "filters": ["request_id"],
        }
    },
    "root": {"handlers": ["stderr"], "level": "INFO"},
    "loggers": {
        # A refusal is an answer, not an event: without this, every 401 and 429 is a line.
        "django.request": {"level": "ERROR"},
        "django": {"handlers": [], "level": "INFO"},
        # Whoever scans the internet sends names at random; the answer says what is wrong.
        "django.security.DisallowedHost": {"level": "CRITICAL"},
        "hello_project.request_log": {"level": "INFO" if REQUEST_LOG else "WARNING"},
        # In our format instead of gunicorn's own.
        "gunicorn.error": {"handlers": ["stderr"], "propagate": False},
        # Without this, every HEAD is a line.
        "gunicorn.http.wsgi": {"level": "ERROR"},
    },
}
