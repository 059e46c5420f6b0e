"""Rotating a key in the admin: a new secret, and the old one for as long as was chosen."""

from __future__ import annotations

from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.db import transaction
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import URLPattern, path, reverse

from apikeys.admin_pages import KeyPages, user_of
from apikeys.forms import RotateForm
from apikeys.generation import GenerationNotRaised
from apikeys.models import ROTATION_NOT_TOLD, ApiKey
from apikeys.records import mark_of


class Rotating(KeyPages):
    def get_urls(self) -> list[URLPattern]:
        rotate = self.admin_site.admin_view(self.rotate_view)
        end_overlap = self.admin_site.admin_view(self.end_overlap_view)
        return [
            path("<str:key_id>/rotate/", rotate, name="apikeys_apikey_rotate"),
            path("<str:key_id>/end-overlap/", end_overlap, name="apikeys_apikey_end_overlap"),
            *super().get_urls(),
        ]

    def rotate_view(self, request: HttpRequest, key_id: str) -> HttpResponse:
        """GET asks; POST rotates, and its answer shows the new key."""
        if not self.has_rotate_permission(request):
            raise PermissionDenied
        key = self.key_or_404(request, key_id)
        if request.method != "POST":
            form = RotateForm(initial={"replaces": mark_of(key.digest)})
            return self._rotate_page(request, key, form)
        form = RotateForm(request.POST)
        if not form.is_for(key):
            return self._shown_already(request, key)
        if not (form.is_valid() and key.is_usable):
            return self._rotate_page(request, key, form)
        return self._rotate(request, key, form)

    def _rotate(self, request: HttpRequest, key: ApiKey, form: RotateForm) -> HttpResponse:
        plaintext = ""
        try:
            with transaction.atomic():
                key = ApiKey.objects.select_for_update().get(pk=key.pk)
                if form.is_for(key) and key.is_usable:
                    plaintext = key.rotate(form.cleaned_data["duration"], by=user_of(request))
                    self.log_change(request, key, "Rotated.")
        except GenerationNotRaised:  # The new key is saved, and is in no other answer.
            messages.error(request, ROTATION_NOT_TOLD)
        if not plaintext:
            return self._shown_already(request, key)
        return self.page_with_key(request, key, plaintext, "API key rotated", is_rotated=True)

    def _rotate_page(self, request: HttpRequest, key: ApiKey, form: RotateForm) -> HttpResponse:
        return self.page(request, "rotate", f"Rotate {key}", key=key, form=form)

    def _shown_already(self, request: HttpRequest, key: ApiKey) -> HttpResponse:
        title = "This key was rotated already"
        return self.page_with_key(request, key, "", title, is_rotated=True)

    def end_overlap_view(self, request: HttpRequest, key_id: str) -> HttpResponse:
        """GET asks; POST ends what the previous secret of the key is good for."""
        if not self.has_rotate_permission(request):
            raise PermissionDenied
        key = self.key_or_404(request, key_id)
        if request.method != "POST":
            return self.page(request, "end_overlap", f"End the overlap of {key}", key=key)
        try:
            with transaction.atomic():
                if key.end_overlap(by=user_of(request)):
                    self.log_change(request, key, "Overlap ended.")
        except GenerationNotRaised as error:
            messages.error(request, str(error))
        else:
            messages.success(
                request, f"The old secret of {key} is refused from the next request on."
            )
        return HttpResponseRedirect(reverse("admin:apikeys_apikey_change", args=[key.pk]))
