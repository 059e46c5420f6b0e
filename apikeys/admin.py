"""Issuing, editing, rotating and revoking keys in the Django admin."""

from __future__ import annotations

from typing import Any, Final

from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.db import IntegrityError
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect

from apikeys import keys
from apikeys.admin_list import Listing
from apikeys.admin_pages import user_of
from apikeys.admin_revoking import Revoking
from apikeys.admin_rotating import Rotating
from apikeys.forms import ApiKeyForm, EditForm, IssueForm
from apikeys.generation import GenerationNotRaised
from apikeys.models import ApiKey

EVENTS_SHOWN: Final = 20


@admin.register(ApiKey)
class ApiKeyAdmin(Listing, Rotating, Revoking):
    """Keys are issued, edited, rotated and revoked; never deleted. A plaintext is shown once."""

    def get_form(
        self, request: HttpRequest, obj: ApiKey | None = None, change: bool = False, **kwargs: Any
    ) -> type[ApiKeyForm]:
        form = IssueForm if obj is None else EditForm
        return super().get_form(request, obj, change, **{"form": form} | kwargs)

    def get_fieldsets(self, request: HttpRequest, obj: ApiKey | None = None) -> Any:
        expiry = ["expires_at"] if obj else ["expires", "expires_at"]
        who = ["name", "owner"] if obj else ["name", "owner", "environment", "key_id"]
        return [
            ("Whose key it is", {"fields": who}),
            ("What it may do", {"fields": ["rate", "networks"]}),
            ("How long it is good", {"fields": expiry}),
        ]

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

    def render_change_form(
        self, request: HttpRequest, context: dict[str, Any], *args: Any, **kwargs: Any
    ) -> HttpResponse:
        key: ApiKey | None = context["original"]
        if key is not None:
            events = list(key.events.all()[: EVENTS_SHOWN + 1])
            context |= {
                "title": "API key",
                "may_rotate": self.has_rotate_permission(request),
                "may_revoke": self.has_revoke_permission(request),
                "events": events[:EVENTS_SHOWN],
                "has_older_events": len(events) > EVENTS_SHOWN,
            }
        return super().render_change_form(request, context, *args, **kwargs)

    def save_model(self, request: HttpRequest, obj: ApiKey, form: Any, change: bool) -> None:
        if change:
            # What this form did not change may have changed since it was read: by a revocation.
            obj.save(update_fields=form.changed_data)
            obj.record_edit(user_of(request), form.changed_data)
            return
        obj.id = form.cleaned_data["key_id"]
        obj.created_by = user_of(request)
        obj.plaintext = obj.make_secret()
        obj.save(force_insert=True)

    def log_addition(self, request: HttpRequest, obj: ApiKey, message: Any) -> Any:
        return super().log_addition(request, obj, "Issued.")

    def response_add(
        self, request: HttpRequest, obj: ApiKey, post_url_continue: str | None = None
    ) -> HttpResponse:
        return self._issued_page(request, obj)

    def _issued_page(self, request: HttpRequest, key: ApiKey) -> HttpResponse:
        """The plaintext of a key just issued; of any other, that the form was sent again."""
        title = "API key issued" if key.plaintext else "This key was issued already"
        return self.page_with_key(request, key, key.plaintext or "", title)

    def history_view(
        self, request: HttpRequest, object_id: str, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        if not self.has_view_or_change_permission(request):
            raise PermissionDenied
        key = self.key_or_404(request, object_id)
        paginator = self.get_paginator(request, key.events.all(), 100)
        page = paginator.get_page(request.GET.get("p", 1))
        context = {
            "object": key,
            "events": page,
            "page_range": paginator.get_elided_page_range(page.number),
        }
        return self.page(request, "object_history", f"History of {key}", **context)
