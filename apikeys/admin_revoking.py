"""Revoking keys in the admin: one, several, or all that a search or a filter found."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from django.contrib import admin, messages
from django.contrib.admin.models import CHANGE, LogEntry
from django.core.exceptions import PermissionDenied
from django.db import transaction
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect, QueryDict
from django.urls import URLPattern, path, reverse

from apikeys import keys
from apikeys.admin_pages import KeyPages, user_of
from apikeys.forms import RevokeForm
from apikeys.generation import GenerationNotRaised
from apikeys.models import ApiKey

MOST_AT_ONCE: Final = 20_000
"""Done in 4 s in one request (on PostgreSQL), where gunicorn gives up after 30 s."""
MOST_SHOWN: Final = 100
IN_ONE_QUERY: Final = 10_000


class Revoking(KeyPages):
    actions = ["revoke_selected"]

    def get_urls(self) -> list[URLPattern]:
        revoke = self.admin_site.admin_view(self.revoke_view)
        return [path("revoke/", revoke, name="apikeys_apikey_revoke"), *super().get_urls()]

    @admin.action(description="Revoke selected API keys", permissions=["revoke"])
    def revoke_selected(self, request: HttpRequest, queryset: QuerySet[ApiKey]) -> HttpResponse:
        return self._revoke_page(request, list(queryset.values_list("pk", flat=True)), RevokeForm())

    def revoke_view(self, request: HttpRequest) -> HttpResponse:
        """GET asks; POST revokes the keys that `id` names."""
        if not self.has_revoke_permission(request):
            raise PermissionDenied
        sent = request.POST if request.method == "POST" else request.GET
        ids = ids_in(sent)
        form = RevokeForm(request.POST if request.method == "POST" else None)
        if not ids or len(ids) > MOST_AT_ONCE or not form.is_valid():
            return self._revoke_page(request, ids, form)
        try:
            sentence = self._revoke(request, ids, form.cleaned_data["reason"])
        except GenerationNotRaised as error:
            self.message_user(request, str(error), messages.ERROR)
            return self._revoke_page(request, ids, form)
        self.message_user(request, sentence)
        return HttpResponseRedirect(reverse("admin:apikeys_apikey_changelist"))

    def _revoke(self, request: HttpRequest, ids: list[str], reason: str) -> str:
        """What has been done, for the operator. Raises GenerationNotRaised."""
        with transaction.atomic():
            revoked = ApiKey.objects.revoke(ids, reason, by=user_of(request))
            sentence = f"Revoked. {reason}".strip()
            for part in parts_of(revoked):
                named = part.only("name")
                LogEntry.objects.log_actions(user_of(request).pk, named, CHANGE, sentence)
        if not revoked:
            return f"Revoked already: {counted(ids)}. The store has been told again."
        return f"Revoked {counted(revoked)}: refused from the next request on."

    def _revoke_page(self, request: HttpRequest, ids: list[str], form: RevokeForm) -> HttpResponse:
        shown = ApiKey.objects.filter(pk__in=ids[:MOST_SHOWN])
        return self.page(
            request,
            "revoke",
            f"Revoke {counted(ids)}" if ids else "Revoke API keys",
            keys=shown,
            counted=counted(ids),
            more=f"{len(ids) - MOST_SHOWN:,}" if len(ids) > MOST_SHOWN else "",
            ids=" ".join(ids),
            most_at_once=f"{MOST_AT_ONCE:,}",
            are_too_many=len(ids) > MOST_AT_ONCE,
            active=sum(part.filter(revoked_at=None).count() for part in parts_of(ids)),
            form=form,
        )


def ids_in(sent: QueryDict) -> list[str]:
    """Of keys that exist; from `id`, given several times or with spaces: a form has at most a
    thousand fields."""
    ids = [text for text in " ".join(sent.getlist("id")).split() if keys.is_id(text)]
    return [key_id for part in parts_of(ids) for key_id in part.values_list("pk", flat=True)]


def parts_of(ids: list[str]) -> Iterator[QuerySet[ApiKey]]:
    """The keys, so many at a time that each database takes their ids in one query."""
    for first in range(0, len(ids), IN_ONE_QUERY):
        yield ApiKey.objects.filter(pk__in=ids[first : first + IN_ONE_QUERY])


def counted(ids: list[str]) -> str:
    """The key by its name, or how many."""
    return str(ApiKey.objects.get(pk=ids[0])) if len(ids) == 1 else f"{len(ids):,} API keys"
