"""The admin's forms for keys."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from django import forms
from django.contrib.admin.widgets import AdminTextareaWidget, AdminTextInputWidget
from django.core.exceptions import ValidationError
from django.core.validators import RegexValidator
from django.utils import timezone
from django.utils.crypto import constant_time_compare

from apikeys import keys, pasted
from apikeys.durations import parse_duration
from apikeys.models import ApiKey
from apikeys.records import mark_of

if TYPE_CHECKING:
    ApiKeyForm = forms.ModelForm[ApiKey]
else:  # Django's own class cannot be subscripted.
    ApiKeyForm = forms.ModelForm

PRESETS: Final = {
    "30d": ("30 days", timedelta(days=30)),
    "90d": ("90 days", timedelta(days=90)),
    "365d": ("1 year", timedelta(days=365)),
}
NEVER: Final = "never"
OVERLAPS: Final = {
    "24h": ("24 hours", timedelta(hours=24)),
    "0": ("Now: the old secret stops at once", timedelta()),
    "1h": ("1 hour", timedelta(hours=1)),
    "7d": ("7 days", timedelta(days=7)),
}
OWN: Final = "own"


class Choices(forms.RadioSelect):
    """Radio buttons that are a group, by this label, for those who hear the page too."""

    template_name = "admin/apikeys/choices.html"

    def __init__(self, label: str) -> None:
        super().__init__()
        self.group_label = label

    def get_context(self, name: str, value: Any, attrs: dict[str, Any] | None) -> dict[str, Any]:
        return super().get_context(name, value, attrs) | {"group_label": self.group_label}


class OwnMoment(forms.SplitDateTimeWidget):
    """The browser's own fields, each with its label. Only the date has to be written."""

    template_name = "admin/apikeys/moment.html"

    def __init__(self, attrs: dict[str, Any] | None = None) -> None:
        super().__init__(
            attrs,
            date_format="%Y-%m-%d",
            time_format="%H:%M:%S",
            date_attrs={"type": "date", "aria-label": "Date"},
            time_attrs={"type": "time", "step": "1", "aria-label": "Time"},
        )

    def value_from_datadict(self, data: Any, files: Any, name: str) -> list[Any]:
        date, time = super().value_from_datadict(data, files, name)
        return [date, (time or "00:00:00") if date else ""]


def _how_to_write_it() -> str:
    return f"In {timezone.get_current_timezone_name()}; without a time, as that day begins."


class EditForm(ApiKeyForm):
    class Meta:
        widgets = {"networks": AdminTextareaWidget({"rows": 3}), "expires_at": OwnMoment}
        help_texts = {
            "name": "What it is for, such as the program that uses it.",
            "environment": "Part of the key: hk_live_… or hk_test_…. Both are treated alike.",
            "rate": "For this key alone, such as 100/1m (100 in any minute) or 1000/h. Blank: none."
            " The limit of each address holds besides.",
        }

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if "expires_at" in self.fields:
            self.fields["expires_at"].help_text = f"{_how_to_write_it()} No date: never."

    def clean_name(self) -> str:
        return pasted.without_secrets(self.cleaned_data["name"])

    def clean_owner(self) -> str:
        return pasted.without_secrets(self.cleaned_data["owner"])

    def clean_expires_at(self) -> datetime | None:
        """A key that has expired can still be renamed: only a new moment has to lie ahead."""
        expires_at: datetime | None = self.cleaned_data["expires_at"]
        if "expires_at" in self.changed_data and expires_at and expires_at <= timezone.now():
            raise ValidationError(
                "This moment is past: choose a later one, or no date for never."
                " To end a key now, revoke it."
            )
        return expires_at


class IssueForm(EditForm):
    """The new key's id travels in the form, so that sending it twice issues one key."""

    key_id = forms.CharField(
        widget=forms.HiddenInput, validators=[RegexValidator(f"^{keys.ID_PATTERN}\\Z")]
    )
    expires = forms.ChoiceField(
        required=False,
        initial=NEVER,
        widget=Choices("Expires"),
        choices=[
            *((value, f"After {label}") for value, (label, _) in PRESETS.items()),
            (NEVER, "Never"),
            (OWN, "On a date of your own"),
        ],
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["expires_at"].label = "Own date and time"
        self.fields["expires_at"].help_text = _how_to_write_it()

    def clean(self) -> dict[str, Any] | None:
        if "key_id" in self.errors:  # Nobody sees those of a hidden field.
            self.add_error(None, "This form lacks a good key id: open it anew.")
        cleaned = super().clean() or self.cleaned_data
        expires, own = cleaned.get("expires"), cleaned.get("expires_at")
        if expires in PRESETS:
            cleaned["expires_at"] = timezone.now() + PRESETS[expires][1]
        if own and expires in (*PRESETS, NEVER):
            sentence = "Choose “On a date of your own” to use it, or clear it."
            self.add_error("expires", sentence)
        if expires == OWN and not own and "expires_at" not in self.errors:
            self.add_error("expires_at", "Write a date.")
        return cleaned


class RevokeForm(forms.Form):
    reason = forms.CharField(
        required=False,
        max_length=200,
        widget=AdminTextInputWidget,
        help_text="Stays with the key and in its history.",
    )

    def clean_reason(self) -> str:
        return pasted.without_secrets(self.cleaned_data["reason"])


class RotateForm(forms.Form):
    """Names the secret that it replaces, so that sending it twice rotates once."""

    overlap = forms.ChoiceField(
        label="The old secret goes on working for",
        initial="24h",
        widget=Choices("The old secret goes on working for"),
        choices=[
            *((value, label) for value, (label, _) in OVERLAPS.items()),
            (OWN, "A time of your own"),
        ],
    )
    own_overlap = forms.CharField(
        label="Own time",
        required=False,
        max_length=10,
        widget=AdminTextInputWidget,
        help_text="A number and a unit, such as 30m, 12h or 3d.",
    )
    replaces = forms.CharField(widget=forms.HiddenInput)

    def clean(self) -> dict[str, Any] | None:
        cleaned = super().clean() or self.cleaned_data
        chosen, own = cleaned.get("overlap", ""), cleaned.get("own_overlap", "").strip()
        if chosen in OVERLAPS:
            cleaned["duration"] = OVERLAPS[chosen][1]
            if own:
                self.add_error("overlap", "Choose “A time of your own” to use it, or clear it.")
        elif chosen == OWN:
            try:
                cleaned["duration"] = parse_duration(own)
            except ValueError as error:
                self.add_error("own_overlap", str(error))
        return cleaned

    def is_for(self, key: ApiKey) -> bool:
        """Whether the key still has the secret that it had when the form was made."""
        return constant_time_compare(self.data.get("replaces", ""), mark_of(key.digest))
