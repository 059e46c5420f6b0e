"""The admin's form for network rules."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, ClassVar, Final

from django import forms
from django.contrib.admin.widgets import AdminRadioSelect
from django.utils import timezone

from throttling.models import NetworkRule, locks_out

if TYPE_CHECKING:
    RuleForm = forms.ModelForm[NetworkRule]
else:  # Django's own class cannot be subscripted.
    RuleForm = forms.ModelForm

NEVER: Final = "never"
OWN: Final = "own"
PRESETS: Final = {
    "hour": ("in 1 hour", timedelta(hours=1)),
    "day": ("in 1 day", timedelta(days=1)),
    "month": ("in 30 days", timedelta(days=30)),
}
ENDS: Final = [
    (NEVER, "never"),
    *((name, label) for name, (label, _) in PRESETS.items()),
    (OWN, "at the moment below"),
]


class OwnMoment(forms.SplitDateTimeWidget):
    """The browser's own fields, each named for whoever has them read aloud."""

    def __init__(self, attrs: dict[str, Any] | None = None) -> None:
        super().__init__(
            attrs,
            date_format="%Y-%m-%d",
            time_format="%H:%M:%S",
            date_attrs={"type": "date", "aria-label": "Date"},
            time_attrs={"type": "time", "step": "1", "aria-label": "Time"},
        )


class NetworkRuleForm(RuleForm):
    """The end is chosen first; a moment of one's own counts only where that is the choice."""

    operator_address: ClassVar[str] = ""
    """Of whoever fills in the form; the admin sets it."""

    end = forms.ChoiceField(
        label="Ends", choices=ENDS, initial=NEVER, widget=AdminRadioSelect({"class": "radiolist"})
    )
    ends_at = forms.SplitDateTimeField(
        label="Moment", required=False, widget=OwnMoment, help_text="In UTC."
    )
    lock_out = forms.BooleanField(
        label="Block my own address all the same", required=False, widget=forms.HiddenInput
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.instance.ends_at:
            self.initial["end"] = OWN
        self.fields["ends_at"].help_text = f"In the time zone {timezone.get_current_timezone()}."

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean() or self.cleaned_data
        end, own = cleaned.get("end"), cleaned.get("ends_at")
        if end != OWN:
            self.errors.pop("ends_at", None)  # What stands there does not count.
        if end in PRESETS:
            cleaned["ends_at"] = timezone.now() + PRESETS[end][1]
        elif end == NEVER:
            cleaned["ends_at"] = None
        elif end == OWN and own is None and "ends_at" not in self.errors:
            self.add_error("ends_at", "Write the moment, or choose another end.")
        elif own and own <= timezone.now() and "ends_at" in self.changed_data:
            self.add_error("ends_at", "This moment is past: choose a later one.")
        return cleaned

    def _post_clean(self) -> None:
        """Django's, which fills in the instance; only then is there a rule to look at."""
        super()._post_clean()  # type: ignore[misc]
        if self.errors:
            return
        at = locks_out(self.operator_address, without=[self.instance.pk], put=self.instance)
        if at is None:
            return
        self.fields["lock_out"].widget = forms.CheckboxInput()
        if not self.cleaned_data["lock_out"]:
            self.add_error(
                "lock_out", f"{warning(self.operator_address, at)} Tick this to do it all the same."
            )


def warning(address: str, at: datetime) -> str:
    """What the operator is told before they lock themselves out."""
    now = timezone.now()
    local = timezone.localtime(at)
    since = "" if at <= now else f" from {local:%Y-%m-%d %H:%M} on"
    return (
        f"This would block your own address, {address},{since} from the whole site, this console"
        " included."
    )
