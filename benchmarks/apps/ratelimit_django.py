"""django-ratelimit (a fixed window) on a Django view. It has no keys, so none are checked."""

import os

from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.http import JsonResponse
from django.urls import path
from django_ratelimit.decorators import ratelimit
from django_ratelimit.exceptions import Ratelimited
from startproject import REDIS_CACHE, SETTINGS

settings.configure(
    **SETTINGS,
    ROOT_URLCONF=__name__,
    CACHES=REDIS_CACHE,
    RATELIMIT_IP_META_KEY="HTTP_X_FORWARDED_FOR",
)
limit, _, period = os.environ["RATE_LIMIT"].partition("/")


@ratelimit(key="ip", rate=f"{limit}/{period[0]}")
def hello(request):
    return JsonResponse({"message": "Hello, World!"})


def handler403(request, exception=None):
    if isinstance(exception, Ratelimited):
        return JsonResponse({"message": "Too many requests."}, status=429)
    return JsonResponse({"message": "Forbidden."}, status=403)


urlpatterns = [path("", hello)]
application = get_wsgi_application()
