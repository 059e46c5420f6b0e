"""The admin's forms for keys."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

from django import forms
from django.contrib.admin.widgets import AdminTextareaWidget, AdminTextInputWidget
from django.core.exceptions import ValidationError
from django.core.validators import RegexValidator
from django.utils import timezone

from apikeys import keys
from apikeys.models import ApiKey

if TYPE_CHECKING:
    ApiKeyForm = forms.ModelForm[ApiKey]
else:  # Django's own class cannot be subscripted.
    ApiKeyForm = forms.ModelForm


class EditForm(ApiKeyForm):
    class Meta:
        widgets = {"networks": AdminTextareaWidget({"rows": 3})}

    def clean_expires_at(self) -> datetime | None:
        """A key that has expired can still be renamed: only a new moment has to lie ahead."""
        expires_at: datetime | None = self.cleaned_data["expires_at"]
        if "expires_at" in self.changed_data and expires_at and expires_at <= timezone.now():
            raise ValidationError(
                "This moment is past: choose a later one, or leave both blank for never."
                " To end a key now, revoke it."
            )
        return expires_at


class IssueForm(EditForm):
    """The new key's id travels in the form, so that sending it twice issues one key."""

    key_id = forms.CharField(
        widget=forms.HiddenInput, validators=[RegexValidator(f"^{keys.ID_PATTERN}\\Z")]
    )

    def clean(self) -> dict[str, Any] | None:
        if "key_id" in self.errors:  # Nobody sees those of a hidden field.
            self.add_error(None, "This form lacks a good key id: open it anew.")
        return super().clean()


class RevokeForm(forms.Form):
    reason = forms.CharField(
        required=False,
        max_length=200,
        widget=AdminTextInputWidget,
        help_text="Stays with the key and in its history.",
    )
