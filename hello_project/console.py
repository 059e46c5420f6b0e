"""The operators' console: Django's admin, as this site has it."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.contrib.admin import AdminSite
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.urls import URLPattern, URLResolver, path, reverse
from django.utils.decorators import method_decorator
from django.views.decorators.cache import never_cache

from hello_project import login, second_factor, second_factor_pages, traffic_page


class Console(AdminSite):
    site_header = "Keys and limits"
    site_title = "Keys and limits"
    index_title = "Administration"

    login_form = login.LoginForm

    def get_urls(self) -> list[URLResolver | URLPattern]:
        traffic = path("traffic/", self.admin_view(self.traffic_view), name="traffic")
        return [traffic, *second_factor_pages.urls(self), *super().get_urls()]

    def index(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> TemplateResponse:
        """The traffic, for who may see it; for others Django's own."""
        response = super().index(request, extra_context)
        if traffic_page.may_see(request) and response.context_data is not None:
            response.template_name = "hello_project/traffic.html"
            site_url = response.context_data["site_url"] or "/"
            response.context_data |= traffic_page.context(request) | {
                "title": "Traffic",
                "api_url": request.build_absolute_uri(site_url),
            }
        return response

    def traffic_view(self, request: HttpRequest) -> HttpResponse:
        """The parts of the first page that change, for the script that puts them in place.

        The chart of the last 30 days, which changes slowly and costs most, only when asked for.
        """
        if not traffic_page.may_see(request):
            raise PermissionDenied
        context = traffic_page.context(request, month="month" in request.GET)
        return TemplateResponse(request, "hello_project/traffic_parts.html", context)

    def each_context(self, request: HttpRequest) -> dict[str, Any]:
        is_off = settings.SECOND_FACTOR == "off"
        page = "" if is_off else reverse("admin:second_factor")
        return super().each_context(request) | {"second_factor_page": page}

    def has_permission(self, request: HttpRequest) -> bool:
        if not super().has_permission(request):
            return False
        return second_factor.is_passed(request) or request.path == reverse("admin:logout")

    @method_decorator(never_cache)
    def login(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        is_post = request.method == "POST"
        if not is_post and super().has_permission(request) and not self.has_permission(request):
            return second_factor_pages.where_to_go_on(request)
        response = super().login(request, extra_context)
        form = (getattr(response, "context_data", None) or {}).get("form")
        return login.with_refusal(response, form) if form else response
