"""Django REST framework with djangorestframework-api-key's keys and DRF's own throttle.

Run as a script it makes its database and prints a fresh key.
"""

import os

import django
from django.conf import settings
from django.core.management import call_command
from django.core.wsgi import get_wsgi_application
from django.urls import path
from startproject import REDIS_CACHE, SETTINGS, SQLITE

settings.configure(
    **SETTINGS
    | {
        "ROOT_URLCONF": __name__,
        "INSTALLED_APPS": [
            *SETTINGS["INSTALLED_APPS"],
            "rest_framework",
            "rest_framework_api_key",
        ],
        "DATABASES": SQLITE,
        "CACHES": REDIS_CACHE,
        "REST_FRAMEWORK": {
            "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
            "DEFAULT_AUTHENTICATION_CLASSES": [],
            "DEFAULT_PERMISSION_CLASSES": ["rest_framework_api_key.permissions.HasAPIKey"],
            "DEFAULT_THROTTLE_CLASSES": ["drf_throttle.AddressThrottle"],
            "DEFAULT_THROTTLE_RATES": {"address": os.environ.get("RATE_LIMIT")},
            "NUM_PROXIES": 1,
        },
    }
)
django.setup()

from rest_framework.response import Response  # noqa: E402 - it reads the settings
from rest_framework.views import APIView  # noqa: E402 - so does it


class HelloView(APIView):
    def get(self, request):
        return Response({"message": "Hello, World!"})


urlpatterns = [path("", HelloView.as_view())]
application = get_wsgi_application()

if __name__ == "__main__":
    from rest_framework_api_key.models import APIKey

    call_command("migrate", verbosity=0)
    print(APIKey.objects.create_key(name="benchmark")[1])
