"""The site's paths, and some that it has not: a view that reads a body, views that crash."""

from __future__ import annotations

from typing import Any

from django.urls import path
from rest_framework.request import Request
from rest_framework.response import Response

from hello_project import urls
from hello_project.throttles import AddressThrottle
from hello_project.urls import handler400, handler403, handler404, handler500
from hello_project.views import ApiView

__all__ = ["handler400", "handler403", "handler404", "handler500", "urlpatterns"]


class EchoView(ApiView):
    def get(self, request: Request) -> Response:
        return Response({"received": request.query_params})

    def post(self, request: Request) -> Response:
        return Response({"received": request.data})


class ThrottleByServerName(AddressThrottle):
    """Looks at what a server cannot know ahead."""

    def get_identifier(self, request: Request, view: Any) -> str:
        return f"{request.META['SERVER_NAME']} {super().get_identifier(request, view)}"


class UnaskableView(ApiView):
    throttle_classes = [ThrottleByServerName]

    def get(self, request: Request) -> Response:
        return Response({"path": request.path})


class CrashView(ApiView):
    def get(self, request: Request) -> Response:
        credential = request.META.get("HTTP_X_API_KEY")
        raise RuntimeError(f"crashed on purpose, {bool(credential)}")


urlpatterns = [
    path("echo", EchoView.as_view()),
    path("unaskable", UnaskableView.as_view()),
    path("crash", CrashView.as_view()),
    path("admin/crash", CrashView.as_view()),
    *urls.urlpatterns,
]
