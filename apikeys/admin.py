"""Issuing and revoking keys in the Django admin."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from django import forms
from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.core.validators import RegexValidator
from django.db import transaction
from django.db.models import Q, QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils import timezone
from django.utils.html import format_html

from apikeys import keys
from apikeys.generation import GenerationNotRaised
from apikeys.models import ApiKey

if TYPE_CHECKING:
    ApiKeyForm = forms.ModelForm[ApiKey]
    ApiKeyModelAdmin = admin.ModelAdmin[ApiKey]
else:  # Django's own classes cannot be subscripted.
    ApiKeyForm = forms.ModelForm
    ApiKeyModelAdmin = admin.ModelAdmin

FIXED: Final = ("id", "status", "environment", "created_at", "created_by")
REVOCATION: Final = ("revoked_at", "revoked_reason")
EDITABLE: Final = ("name", "owner", "rate", "expires_at")


class IssueForm(ApiKeyForm):
    """The new key's id travels in the form, so that sending it twice issues one key."""

    key_id = forms.CharField(
        widget=forms.HiddenInput,
        initial=keys.generate_id,
        validators=[RegexValidator(f"^{keys.ID_PATTERN}$")],
    )

    class Meta:
        model = ApiKey
        fields = ["name", "owner", "environment", "rate", "expires_at"]


class StatusFilter(admin.SimpleListFilter):
    title = "status"
    parameter_name = "status"

    def lookups(
        self, request: HttpRequest, model_admin: admin.ModelAdmin[Any]
    ) -> list[tuple[str, str]]:
        return [(status.value, status.label) for status in ApiKey.Status]

    def queryset(self, request: HttpRequest, queryset: QuerySet[ApiKey]) -> QuerySet[ApiKey]:
        expired = Q(revoked_at=None, expires_at__lte=timezone.now())
        match self.value():
            case ApiKey.Status.REVOKED:
                return queryset.exclude(revoked_at=None)
            case ApiKey.Status.EXPIRED:
                return queryset.filter(expired)
            case ApiKey.Status.ACTIVE:
                return queryset.filter(revoked_at=None).exclude(expired)
        return queryset


@admin.register(ApiKey)
class ApiKeyAdmin(ApiKeyModelAdmin):
    """Keys are issued, edited and revoked; never deleted. The plaintext is shown once."""

    list_display = ["name", "owner", "id", "environment", "status", "rate", "last_used_at"]
    list_filter = [StatusFilter, "environment"]
    search_fields = ["name", "owner", "id"]
    actions = ["revoke_selected"]

    def get_form(
        self, request: HttpRequest, obj: ApiKey | None = None, change: bool = False, **kwargs: Any
    ) -> type[ApiKeyForm]:
        return super().get_form(request, obj, change, **({} if obj else {"form": IssueForm}))

    def get_fields(self, request: HttpRequest, obj: ApiKey | None = None) -> Any:
        if obj is None:
            return ["name", "owner", "environment", "rate", "expires_at", "key_id"]
        revocation = REVOCATION if obj.revoked_at else ()
        return [*EDITABLE, *FIXED, "last_used_at", *revocation]

    def get_readonly_fields(self, request: HttpRequest, obj: ApiKey | None = None) -> list[str]:
        if obj is None:
            return []
        return [*FIXED, "last_used_at", *REVOCATION, *(EDITABLE if obj.revoked_at else ())]

    def has_delete_permission(self, request: HttpRequest, obj: ApiKey | None = None) -> bool:
        return False

    def changeform_view(
        self, request: HttpRequest, object_id: str | None = None, *args: Any, **kwargs: Any
    ) -> HttpResponse:
        if request.method == "POST" and object_id is None and self._was_issued(request):
            return self._issued_page(request, None)
        try:
            return super().changeform_view(request, object_id, *args, **kwargs)
        except GenerationNotRaised as error:
            self.message_user(request, str(error), messages.ERROR)
            return self._to_list()

    def save_model(self, request: HttpRequest, obj: ApiKey, form: Any, change: bool) -> None:
        if not change:
            obj.id = form.cleaned_data["key_id"]
            obj.created_by = request.user  # type: ignore[assignment]  # The admin's are users.
            obj.plaintext = obj.make_secret()
        super().save_model(request, obj, form, change)

    def response_add(
        self, request: HttpRequest, obj: ApiKey, post_url_continue: str | None = None
    ) -> HttpResponse:
        return self._issued_page(request, obj)

    def _was_issued(self, request: HttpRequest) -> bool:
        key_id = request.POST.get("key_id", "")
        return bool(ApiKey.objects.filter(pk=key_id).exists())

    def _issued_page(self, request: HttpRequest, key: ApiKey | None) -> HttpResponse:
        """The plaintext, or, on a repeated POST, that it cannot be shown again."""
        if not self.has_add_permission(request):
            raise PermissionDenied
        context = self.admin_site.each_context(request) | {
            "title": "Key issued" if key else "This key was issued already",
            "opts": self.opts,
            "key": key,
            "url": request.build_absolute_uri("/"),
        }
        page = TemplateResponse(request, "admin/apikeys/apikey/issued.html", context)
        page["Cache-Control"] = "no-store"
        return page

    # Revoking

    def get_urls(self) -> list[URLPattern]:
        revoke = self.admin_site.admin_view(self.revoke_view)
        return [path("revoke/", revoke, name="apikeys_apikey_revoke"), *super().get_urls()]

    @admin.action(description="Revoke selected API keys", permissions=["change"])
    def revoke_selected(self, request: HttpRequest, queryset: QuerySet[ApiKey]) -> HttpResponse:
        ids = "&".join(f"id={key_id}" for key_id in queryset.values_list("pk", flat=True))
        return HttpResponseRedirect(f"{reverse('admin:apikeys_apikey_revoke')}?{ids}")

    def revoke_view(self, request: HttpRequest) -> HttpResponse:
        """GET asks; POST revokes the keys that `id` names."""
        if not self.has_change_permission(request):
            raise PermissionDenied
        source = request.POST if request.method == "POST" else request.GET
        chosen = ApiKey.objects.filter(pk__in=source.getlist("id"), revoked_at=None)
        if request.method == "POST":
            self._revoke(request, list(chosen), request.POST.get("reason", "")[:200])
            return self._to_list()
        context = self.admin_site.each_context(request) | {
            "title": "Revoke API keys",
            "opts": self.opts,
            "keys": chosen,
        }
        return TemplateResponse(request, "admin/apikeys/apikey/revoke.html", context)

    def _revoke(self, request: HttpRequest, chosen: list[ApiKey], reason: str) -> None:
        try:
            with transaction.atomic():
                for key in chosen:
                    key.revoke(reason)
                    self.log_change(request, key, f"Revoked. {reason}".strip())
        except GenerationNotRaised as error:
            self.message_user(request, str(error), messages.ERROR)
        else:
            names = ", ".join(str(key) for key in chosen) or "no key"
            self.message_user(request, f"Revoked, from the next request on: {names}.")

    def _to_list(self) -> HttpResponseRedirect:
        return HttpResponseRedirect(reverse("admin:apikeys_apikey_changelist"))

    @admin.display(description="status")
    def status(self, key: ApiKey) -> str:
        return format_html('<span class="key-{}">{}</span>', key.status.value, key.status.label)
