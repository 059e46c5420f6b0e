import os

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "hello_project.settings")
try:
    settings.SECRET_KEY  # noqa: B018 - Django raises on an empty one, without saying what to do
except ImproperlyConfigured as error:
    raise ImproperlyConfigured(f"{error} Set SECRET_KEY or SECRET_KEY_FILE.") from error

application = get_wsgi_application()
