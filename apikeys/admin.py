"""Issuing and revoking keys in the Django admin."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final

from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.db import IntegrityError, transaction
from django.db.models import Q, QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect, QueryDict
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils import timezone
from django.utils.html import format_html

from apikeys import keys
from apikeys.forms import ApiKeyForm, EditForm, IssueForm, RevokeForm
from apikeys.generation import GenerationNotRaised
from apikeys.models import ApiKey

if TYPE_CHECKING:
    ApiKeyModelAdmin = admin.ModelAdmin[ApiKey]
else:  # Django's own class cannot be subscripted.
    ApiKeyModelAdmin = admin.ModelAdmin

FIXED: Final = ("id", "status", "environment", "created_at", "created_by", "last_used_at")
REVOCATION: Final = ("revoked_at", "revoked_reason")
EDITABLE: Final = ("name", "owner", "rate", "networks", "expires_at")


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

    list_display = ["name", "status", "owner", "id", "environment", "rate", "last_used_at"]
    list_filter = [StatusFilter, "environment"]
    search_fields = ["name", "owner", "id"]
    search_help_text = "Name, owner or key id."
    actions = ["revoke_selected"]

    class Media:
        css = {"all": ["apikeys/admin.css"]}

    def has_delete_permission(self, request: HttpRequest, obj: ApiKey | None = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: ApiKey | None = None) -> bool:
        """A revoked key can only be looked at."""
        is_revoked = obj is not None and obj.revoked_at is not None
        return super().has_change_permission(request, obj) and not is_revoked

    def get_form(
        self, request: HttpRequest, obj: ApiKey | None = None, change: bool = False, **kwargs: Any
    ) -> type[ApiKeyForm]:
        form = IssueForm if obj is None else EditForm
        return super().get_form(request, obj, change, **{"form": form} | kwargs)

    def get_fields(self, request: HttpRequest, obj: ApiKey | None = None) -> Any:
        if obj is None:
            return ["name", "owner", "environment", "rate", "networks", "expires_at", "key_id"]
        return [*EDITABLE, *FIXED, *(REVOCATION if obj.revoked_at else ())]

    def get_readonly_fields(self, request: HttpRequest, obj: ApiKey | None = None) -> list[str]:
        return [] if obj is None else [*FIXED, *REVOCATION]

    @admin.display(description="status")
    def status(self, key: ApiKey) -> str:
        return format_html('<span class="key-{}">{}</span>', key.status.value, key.status.label)

    # Issuing and editing

    def get_changeform_initial_data(self, request: HttpRequest) -> dict[str, Any]:
        """A link may fill in the form, but not choose the key's id."""
        return {**super().get_changeform_initial_data(request), "key_id": keys.generate_id()}

    def changeform_view(
        self,
        request: HttpRequest,
        object_id: str | None = None,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        if "_saveasnew" in request.POST:
            raise PermissionDenied  # Django would issue a key, though nobody is offered this.
        context = {"show_save_and_add_another": False} | (extra_context or {})
        if object_id is None:
            context |= {"title": "Issue API key", "show_save_and_continue": False}
        try:
            return super().changeform_view(request, object_id, form_url, context)
        except IntegrityError:
            key = ApiKey.objects.filter(pk=request.POST.get("key_id")).first()
            if object_id is not None or key is None:
                raise
            return self._issued_page(request, key)
        except GenerationNotRaised as error:
            list(messages.get_messages(request))  # "Changed successfully" is half of the truth.
            self.message_user(request, str(error), messages.ERROR)
            return HttpResponseRedirect(request.path)

    def save_model(self, request: HttpRequest, obj: ApiKey, form: Any, change: bool) -> None:
        if change:
            # What this form did not change may have changed since it was read: by a revocation.
            obj.save(update_fields=form.changed_data)
            return
        obj.id = form.cleaned_data["key_id"]
        obj.created_by = request.user  # type: ignore[assignment]  # The admin's are users.
        obj.plaintext = obj.make_secret()
        obj.save(force_insert=True)

    def log_addition(self, request: HttpRequest, obj: ApiKey, message: Any) -> Any:
        return super().log_addition(request, obj, "Issued.")

    def response_add(
        self, request: HttpRequest, obj: ApiKey, post_url_continue: str | None = None
    ) -> HttpResponse:
        return self._issued_page(request, obj)

    def _issued_page(self, request: HttpRequest, key: ApiKey) -> HttpResponse:
        """The plaintext of a key just issued; of any other, that the form was sent again.

        As with every page of the admin, no cache may store it (`AdminSite.admin_view`).
        """
        context = self.admin_site.each_context(request) | {
            "title": "API key issued" if key.plaintext else "This key was issued already",
            "opts": self.opts,
            "media": self.media,
            "key": key,
            "has_view_permission": self.has_view_permission(request, key),
        }
        context["api_url"] = request.build_absolute_uri(context["site_url"] or "/")
        return TemplateResponse(request, "admin/apikeys/apikey/issued.html", context)

    # Revoking

    def get_urls(self) -> list[URLPattern]:
        revoke = self.admin_site.admin_view(self.revoke_view)
        return [path("revoke/", revoke, name="apikeys_apikey_revoke"), *super().get_urls()]

    @admin.action(description="Revoke selected API keys", permissions=["change"])
    def revoke_selected(self, request: HttpRequest, queryset: QuerySet[ApiKey]) -> HttpResponse:
        return self._revoke_page(request, queryset, RevokeForm())

    def revoke_view(self, request: HttpRequest) -> HttpResponse:
        """GET asks; POST revokes the keys that `id` names."""
        if not self.has_change_permission(request):
            raise PermissionDenied
        sent = request.POST if request.method == "POST" else request.GET
        chosen = ApiKey.objects.filter(pk__in=ids_in(sent))
        form = RevokeForm(request.POST if request.method == "POST" else None)
        if not (form.is_valid() and chosen.exists()):
            return self._revoke_page(request, chosen, form)
        try:
            sentence = self._revoke(request, chosen, form.cleaned_data["reason"])
        except GenerationNotRaised as error:
            self.message_user(request, str(error), messages.ERROR)
            return self._revoke_page(request, chosen, form)
        self.message_user(request, sentence)
        return HttpResponseRedirect(reverse("admin:apikeys_apikey_changelist"))

    def _revoke(self, request: HttpRequest, chosen: QuerySet[ApiKey], reason: str) -> str:
        """What has been done, for the operator. Raises GenerationNotRaised."""
        with transaction.atomic():
            found = list(chosen.select_for_update())
            active = [key for key in found if key.revoked_at is None]
            for key in found:  # Those revoked already too, so that the store hears of them.
                key.revoke(reason)
            for key in active:
                self.log_change(request, key, f"Revoked. {reason}".strip())
        if not active:
            return f"Revoked already: {counted(found)}. The store has been told again."
        return f"Revoked {counted(active)}: refused from the next request on."

    def _revoke_page(
        self, request: HttpRequest, chosen: Iterable[ApiKey], form: RevokeForm
    ) -> HttpResponse:
        found = list(chosen)
        context = self.admin_site.each_context(request) | {
            "title": f"Revoke {counted(found)}" if found else "Revoke API keys",
            "opts": self.opts,
            "media": self.media,
            "keys": found,
            "ids": " ".join(key.pk for key in found),
            "any_active": any(key.revoked_at is None for key in found),
            "form": form,
            "has_view_permission": self.has_view_permission(request),
        }
        return TemplateResponse(request, "admin/apikeys/apikey/revoke.html", context)


def ids_in(sent: QueryDict) -> list[str]:
    """Of `id`, given several times or with spaces: a form has at most a thousand fields."""
    return [text for text in " ".join(sent.getlist("id")).split() if keys.is_id(text)]


def counted(found: list[ApiKey]) -> str:
    return str(found[0]) if len(found) == 1 else f"{len(found)} API keys"
