"""throttled-py (its sliding window, which estimates) on a Django view."""

import os

from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.http import JsonResponse
from django.urls import path
from key_table import owner_of
from startproject import SETTINGS
from throttled import RateLimiterType, Throttled, store

settings.configure(**SETTINGS, ROOT_URLCONF=__name__)
limit, _, period = os.environ["RATE_LIMIT"].partition("/")
throttle = Throttled(
    using=RateLimiterType.SLIDING_WINDOW.value,
    quota=f"{limit}/{period[0]}",
    store=store.RedisStore(server=os.environ["REDIS_URL"]),
)


def hello(request):
    if owner_of(request.headers.get("X-API-Key", "")) is None:
        return JsonResponse({"message": "Unauthorized."}, status=401)
    if throttle.limit(request.headers["X-Forwarded-For"]).limited:
        return JsonResponse({"message": "Too many requests."}, status=429)
    return JsonResponse({"message": "Hello, World!"})


urlpatterns = [path("", hello)]
application = get_wsgi_application()
