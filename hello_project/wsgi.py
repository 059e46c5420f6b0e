import os
from collections.abc import Iterable
from wsgiref.types import StartResponse, WSGIEnvironment

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.core.wsgi import get_wsgi_application
from django.utils.http import parse_header_parameters

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "hello_project.settings")
try:
    settings.SECRET_KEY  # noqa: B018 - Django raises on an empty one, without saying what to do
except ImproperlyConfigured as error:
    raise ImproperlyConfigured(f"{error} Set SECRET_KEY or SECRET_KEY_FILE.") from error

_django = get_wsgi_application()


def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Django's, which a Content-Type that it cannot parse would crash before any view is asked."""
    try:
        if content_type := environ.get("CONTENT_TYPE"):
            parse_header_parameters(content_type)
    except ValueError:
        environ["CONTENT_TYPE"] = ""
    return _django(environ, start_response)
