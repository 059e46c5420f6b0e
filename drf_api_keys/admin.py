"""Finding an imported key by its prefix, and seeing which are still in use."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from django.contrib import admin
from django.http import HttpRequest
from django.urls import reverse
from django.utils.html import format_html

from drf_api_keys.models import ImportedKey

if TYPE_CHECKING:
    ImportedKeyModelAdmin = admin.ModelAdmin[ImportedKey]
else:  # Django's own class cannot be subscripted.
    ImportedKeyModelAdmin = admin.ModelAdmin


@admin.register(ImportedKey)
class ImportedKeyAdmin(ImportedKeyModelAdmin):
    """A list to look at. Each line leads to the ApiKey, where everything is changed."""

    list_display = ["prefix", "api_key", "status", "last_used_at", "is_fast", "table"]
    list_display_links = None
    list_select_related = ["key"]
    list_filter = ["table"]
    search_fields = ["prefix", "key__name", "key__id"]
    search_help_text = "Prefix, name or key id."
    ordering = ["-key__created_at"]

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: ImportedKey | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: ImportedKey | None = None) -> bool:
        return False

    @admin.display(description="API key", ordering="key__name")
    def api_key(self, imported: ImportedKey) -> str:
        url = reverse("admin:apikeys_apikey_change", args=[imported.pk])
        return format_html('<a href="{}">{}</a>', url, imported.key)

    @admin.display(description="status")
    def status(self, imported: ImportedKey) -> str:
        return imported.key.status.label

    @admin.display(description="last used at", ordering="key__last_used_at")
    def last_used_at(self, imported: ImportedKey) -> datetime | None:
        return imported.key.last_used_at

    @admin.display(description="fast hash", boolean=True)
    def is_fast(self, imported: ImportedKey) -> bool:
        return imported.is_fast
