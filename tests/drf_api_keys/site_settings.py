"""The site's settings with the two lines of docs/from-drf-api-key.md, for servers and commands."""

from hello_project.settings import *  # noqa: F403
from hello_project.settings import INSTALLED_APPS, REST_FRAMEWORK

INSTALLED_APPS += ["drf_api_keys"]
REST_FRAMEWORK["DEFAULT_AUTHENTICATION_CLASSES"] = [
    "drf_api_keys.authentication.ImportedKeyAuthentication"
]
