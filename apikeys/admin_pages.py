"""What the admin's pages for keys have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from django.contrib import admin
from django.contrib.auth.models import User
from django.http import Http404, HttpRequest
from django.template.response import TemplateResponse

from apikeys.models import ApiKey

if TYPE_CHECKING:
    ApiKeyModelAdmin = admin.ModelAdmin[ApiKey]
else:  # Django's own class cannot be subscripted.
    ApiKeyModelAdmin = admin.ModelAdmin


class KeyPages(ApiKeyModelAdmin):
    class Media:
        css = {"all": ["apikeys/admin.css"]}

    def has_delete_permission(self, request: HttpRequest, obj: ApiKey | None = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: ApiKey | None = None) -> bool:
        """A revoked key can only be looked at."""
        is_revoked = obj is not None and obj.revoked_at is not None
        return super().has_change_permission(request, obj) and not is_revoked

    def has_rotate_permission(self, request: HttpRequest) -> bool:
        return self._may(request, "apikeys.rotate_apikey")

    def has_revoke_permission(self, request: HttpRequest) -> bool:
        return self._may(request, "apikeys.revoke_apikey")

    def _may(self, request: HttpRequest, permission: str) -> bool:
        """The pages that ask show the key, which takes a permission of its own."""
        may_look = self.has_view_or_change_permission(request)
        return may_look and user_of(request).has_perm(permission)

    def key_or_404(self, request: HttpRequest, key_id: str) -> ApiKey:
        key = self.get_object(request, key_id)
        if key is None:
            raise Http404
        return key

    def page(self, request: HttpRequest, name: str, title: str, **context: Any) -> TemplateResponse:
        """As with every page of the admin, no cache may store it (`AdminSite.admin_view`)."""
        context = {
            **self.admin_site.each_context(request),
            "title": title,
            "opts": self.opts,
            "media": self.media,
            "has_view_permission": self.has_view_permission(request),
            "has_add_permission": self.has_add_permission(request),
            **context,
        }
        return TemplateResponse(request, f"admin/apikeys/apikey/{name}.html", context)

    def page_with_key(
        self, request: HttpRequest, key: ApiKey, plaintext: str, title: str, **context: Any
    ) -> TemplateResponse:
        """The only page that shows a plaintext, and only in this one answer."""
        site_url = self.admin_site.each_context(request)["site_url"] or "/"
        shown = {"key": key, "plaintext": plaintext} | context
        shown["api_url"] = request.build_absolute_uri(site_url)
        return self.page(request, "shown_once", title, **shown)


def user_of(request: HttpRequest) -> User:
    """The admin's views are only for those who are logged in."""
    return cast(User, request.user)
