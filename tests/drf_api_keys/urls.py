"""The site's paths, with imported keys taken at the first of them, as site_settings has it."""

from __future__ import annotations

from django.urls import path

from drf_api_keys.authentication import ImportedKeyAuthentication
from hello_project import urls
from hello_project.urls import handler400, handler403, handler404, handler500
from hello_project.views import HelloView

__all__ = ["handler400", "handler403", "handler404", "handler500", "urlpatterns"]


class OldAndNewView(HelloView):
    authentication_classes = [ImportedKeyAuthentication]


urlpatterns = [path("", OldAndNewView.as_view()), *urls.urlpatterns]
