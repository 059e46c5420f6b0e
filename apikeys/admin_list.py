"""The list of keys in the admin, and how one is found in it."""

from __future__ import annotations

from typing import Any, Final

from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect, QueryDict
from django.urls import URLPattern, path, reverse
from django.utils.decorators import method_decorator
from django.utils.html import format_html
from django.views.decorators.debug import sensitive_post_parameters

from apikeys import pasted
from apikeys.admin_filters import EnvironmentFilter, StatusFilter, UseFilter
from apikeys.admin_pages import KeyPages
from apikeys.models import ApiKey
from apikeys.templatetags.api_keys import relative, statuses

LONGEST_QUERY: Final = 200
NO_ID_IN_IT: Final = (
    "What was searched for may be a credential, and no key id can be read in it. It was not kept."
)


class Listing(KeyPages):
    list_display = ["name", "status", "key_id", "owner", "own_rate", "last_used"]
    list_filter = [StatusFilter, ("environment", EnvironmentFilter), UseFilter]
    search_fields = ["name", "owner", "id"]
    search_help_text = "Name, owner or key id; or paste a whole key: only its id is kept."
    list_per_page = 50
    show_full_result_count = False
    show_facets = admin.ShowFacets.NEVER

    @admin.display(description="key id", ordering="id")
    def key_id(self, key: ApiKey) -> str:
        return format_html(
            '<code class="key-id">{}</code> <span class="key-environment-{}">{}</span>',
            key.pk,
            key.environment,
            key.environment,
        )

    @admin.display(description="status")
    def status(self, key: ApiKey) -> str:
        return statuses(key)

    @admin.display(description="own rate", ordering="rate", empty_value="none")
    def own_rate(self, key: ApiKey) -> str | None:
        return key.rate or None

    @admin.display(description="last used", ordering="last_used_at")
    def last_used(self, key: ApiKey) -> str:
        return relative(key.last_used_at)

    # Finding a key

    def get_urls(self) -> list[URLPattern]:
        find = self.admin_site.admin_view(self.find_view)
        return [path("find/", find, name="apikeys_apikey_find"), *super().get_urls()]

    @method_decorator(sensitive_post_parameters("q"))
    def find_view(self, request: HttpRequest) -> HttpResponse:
        """The list, searched for what was POSTed: by then a key has become its id.

        By POST, so that a key that is pasted in gets into no URL, log or history.
        """
        if not self.has_view_or_change_permission(request):
            raise PermissionDenied
        query = QueryDict(request.POST.get("filters", ""), mutable=True)
        return self._list_with(request, query, request.POST.get("q", ""))

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        text = request.GET.get("q", "")
        if self.has_view_or_change_permission(request) and _has_secret(text):
            return self._list_with(request, request.GET.copy(), text)
        context = {"title": "API keys"} | (extra_context or {})
        return super().changelist_view(request, context)

    def _list_with(self, request: HttpRequest, query: QueryDict, text: str) -> HttpResponse:
        for name in ("q", "p", "e"):
            query.pop(name, None)
        words = pasted.key_id_in(text) or text.strip()[:LONGEST_QUERY]
        if pasted.holds_secret(words):
            messages.warning(
                request,
                "That may be a credential, and no key id can be read in it: search by name.",
            )
        elif words:
            query["q"] = words
        url = reverse("admin:apikeys_apikey_changelist")
        return HttpResponseRedirect(f"{url}?{query.urlencode()}" if query else url)


def _has_secret(text: str) -> bool:
    return pasted.without_secrets(text) != text or pasted.holds_secret(text)
