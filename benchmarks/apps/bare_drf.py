"""A Django REST framework view: no keys, no limit."""

import django
from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.urls import path
from startproject import SETTINGS

settings.configure(
    **SETTINGS
    | {
        "ROOT_URLCONF": __name__,
        "INSTALLED_APPS": [*SETTINGS["INSTALLED_APPS"], "rest_framework"],
        "REST_FRAMEWORK": {
            "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
            "DEFAULT_AUTHENTICATION_CLASSES": [],
            "DEFAULT_PERMISSION_CLASSES": [],
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
