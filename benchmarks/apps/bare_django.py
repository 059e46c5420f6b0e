"""A Django view: no keys, no limit."""

from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.http import JsonResponse
from django.urls import path
from startproject import SETTINGS

settings.configure(**SETTINGS, ROOT_URLCONF=__name__)


def hello(request):
    return JsonResponse({"message": "Hello, World!"})


urlpatterns = [path("", hello)]
application = get_wsgi_application()
