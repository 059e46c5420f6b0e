"""The second factor of the console's login: codes of an authenticator app (TOTP, RFC 6238).

A user has at most one device, and recovery codes for when it is lost. Who has logged in by password
alone is let into these pages and no others. docs/decisions/0016-console-login.md has the reasons.
"""

from __future__ import annotations

import hashlib
import logging
import secrets
import time
from base64 import b32decode, b32encode
from typing import Any, Final, cast
from urllib.parse import quote

import django_otp
from django import forms
from django.conf import settings
from django.contrib.auth.models import User
from django.core import signing
from django.core.exceptions import ValidationError
from django.db import transaction
from django.http import HttpRequest
from django.utils.safestring import SafeString, mark_safe
from django.views.decorators.debug import sensitive_variables
from django_otp.oath import TOTP
from django_otp.plugins.otp_static.models import StaticDevice
from django_otp.plugins.otp_totp.models import TOTPDevice

from hello_project import login

logger = logging.getLogger(__name__)

SESSION_KEY: Final = "second_factor"
"""In the session: the id of the device whose code, or in whose place a recovery code, was given."""

PASSED: Final = "second_factor.passed"
"""The META entry that keeps the answer of `is_passed` for the rest of the request."""

RECOVERY_CODES: Final = 8
ENROLMENT_SECONDS: Final = 3600
DIGITS: Final = 6


def is_passed(request: HttpRequest) -> bool:
    """Whether this session needs no code, or none any more. At most one query a request."""
    if settings.SECOND_FACTOR == "off":
        return True
    if PASSED not in request.META:
        device = device_of(cast(User, request.user))
        if device is None:
            request.META[PASSED] = settings.SECOND_FACTOR == "optional"
        else:
            request.META[PASSED] = request.session.get(SESSION_KEY) == device.pk
    return bool(request.META[PASSED])


def device_of(user: User) -> Any:
    """The user's TOTPDevice, or None."""
    return TOTPDevice.objects.filter(user=user, confirmed=True).order_by("pk").first()


def pass_on(request: HttpRequest, device: Any) -> None:
    """From here on this session needs no code. Its key changes, as after a login."""
    request.session.cycle_key()
    request.session[SESSION_KEY] = device.pk
    request.META.pop(PASSED, None)


@sensitive_variables()
def check(user: User, text: str) -> None:
    """A code of the user's device, or a recovery code; either works once.

    Raises ValidationError; after too many wrong ones login.TooManyFailures, from any address:
    whoever fails here knows the password.
    """
    with login.guess(login.FAILURES, of_codes(user), f"{user.get_username()!a} by code"):
        if not _is_right(user, "".join(text.split()).replace("-", "").lower()):
            raise ValidationError("That code is not right, or was used before.")


def of_codes(user: User) -> str:
    return f"login:code:{user.pk}"


def _is_right(user: User, code: str) -> bool:
    if code.isdecimal():
        device, token = device_of(user), code if len(code) == DIGITS else ""
    else:
        device, token = StaticDevice.objects.filter(user=user).first(), _digest(code)
    if device is None or not token:
        return False
    # Locks the device's row, so that a code that is sent twice at once is right once.
    return django_otp.verify_token(user, device.persistent_id, token) is not None


# Setting it up


@sensitive_variables()
def sealed_secret(user: User) -> tuple[str, str]:
    """A new secret, signed for the form, which alone holds it until it is used, and bare."""
    secret = b32encode(secrets.token_bytes(20)).decode()
    return signing.dumps([user.pk, secret], salt=__name__), secret


@sensitive_variables()
def secret_in(sealed: str, user: User) -> str | None:
    try:
        owner, secret = signing.loads(sealed, salt=__name__, max_age=ENROLMENT_SECONDS)
    except (signing.BadSignature, ValueError, TypeError):
        return None
    return str(secret) if owner == user.pk else None


def address_of(secret: str, user: User, issuer: str) -> str:
    """What the QR code says: github.com/google/google-authenticator/wiki/Key-Uri-Format."""
    label = quote(f"{issuer}:{user.get_username()}", safe="")
    return f"otpauth://totp/{label}?secret={secret}&issuer={quote(issuer, safe='')}"


def drawn(address: str) -> SafeString:
    """As an SVG element, dark on light in any colour scheme, since cameras want it so."""
    import segno  # 3 MB that nobody needs but whoever sets up a device.

    return mark_safe(  # noqa: S308 - drawn here, of numbers
        segno.make_qr(address).svg_inline(
            border=4, dark="#000", light="#fff", omitsize=True, svgclass="qr-code", lineclass=None
        )
    )


@sensitive_variables()
def enrol(user: User, secret: str, code: str) -> tuple[Any, list[str]] | None:
    """The new device and its recovery codes; None when the user has one already.

    Raises ValidationError for a wrong code.
    """
    key = b32decode(secret)
    with login.guess(login.FAILURES, of_codes(user), f"{user.get_username()!a} by code"):
        moment = TOTP(key)
        moment.time = time.time()
        digits = "".join(code.split())
        right = len(digits) == DIGITS and digits.isdecimal()
        if not right or not moment.verify(int(digits), tolerance=1):
            raise ValidationError("That code is not right. Look at your phone's clock, too.")
    with transaction.atomic():
        # One after the other, should the form be sent twice at once.
        User.objects.select_for_update().get(pk=user.pk)
        if device_of(user) is not None:
            return None
        device = TOTPDevice.objects.create(
            user=user,
            name="authenticator app",
            key=key.hex(),
            drift=moment.drift,
            last_t=moment.t(),
        )
        codes = renew_recovery_codes(user)
    logger.info("The second factor of %a was set up.", user.get_username())
    return device, codes


@sensitive_variables()
def renew_recovery_codes(user: User) -> list[str]:
    """New ones in place of all before. Stored are digests: 80 random bits need no slow hash."""
    codes = [b32encode(secrets.token_bytes(10)).decode().lower() for _ in range(RECOVERY_CODES)]
    with transaction.atomic():
        StaticDevice.objects.filter(user=user).delete()
        device = StaticDevice.objects.create(user=user, name="recovery codes")
        for code in codes:
            device.token_set.create(token=_digest(code))
    return ["-".join(code[at : at + 4] for at in range(0, len(code), 4)) for code in codes]


def recovery_codes_left(user: User) -> int:
    return sum(device.token_set.count() for device in StaticDevice.objects.filter(user=user))


def remove(user: User) -> bool:
    """Device and recovery codes; whether there was a device."""
    with transaction.atomic():
        StaticDevice.objects.filter(user=user).delete()
        removed, _ = TOTPDevice.objects.filter(user=user).delete()
    return bool(removed)


def _digest(code: str) -> str:
    """As long as django-otp's column is."""
    return b32encode(hashlib.sha256(code.encode()).digest()).decode()[:16]


# Forms


class CodeInput(forms.PasswordInput):
    """Shows what is typed, but not again what was sent: a code works once."""

    input_type = "text"


class CodeForm(forms.Form):
    """Asks for a code; valid when it was right, which uses it up."""

    code = forms.CharField(
        max_length=40,
        help_text="From your authenticator app, or one of your recovery codes.",
        widget=CodeInput(
            attrs={"autocomplete": "one-time-code", "autocapitalize": "none", "spellcheck": "false"}
        ),
    )

    def __init__(self, request: HttpRequest) -> None:
        super().__init__(request.POST if request.method == "POST" else None)
        self.request = request
        self.user = cast(User, request.user)

    @sensitive_variables()
    def clean(self) -> dict[str, Any]:
        if not self.errors:
            self.check()
        return self.cleaned_data

    def check(self) -> None:
        check(self.user, self.cleaned_data["code"])


class PasswordAndCodeForm(CodeForm):
    password = forms.CharField(
        strip=False, widget=forms.PasswordInput(attrs={"autocomplete": "current-password"})
    )
    field_order = ["password", "code"]

    def __init__(self, request: HttpRequest) -> None:
        super().__init__(request)
        self.fields["code"].help_text += " Each works once: wait for the next, if need be."

    @sensitive_variables()
    def check(self) -> None:
        with login.password_guess(self.request, self.user.get_username()):
            if not self.user.check_password(self.cleaned_data["password"]):
                raise ValidationError("That is not your password.")
        super().check()


class EnrolmentForm(CodeForm):
    """Its `sealed` holds the secret until a code shows that the app has it."""

    sealed = forms.CharField(max_length=300, widget=forms.HiddenInput)
    enrolled: tuple[Any, list[str]] | None = None

    def __init__(self, request: HttpRequest) -> None:
        super().__init__(request)
        self.fields["code"].widget.attrs["inputmode"] = "numeric"
        self.fields["code"].help_text = f"{DIGITS} digits."
        sent = secret_in(request.POST.get("sealed", ""), self.user)
        self.is_too_old = self.is_bound and sent is None
        if sent is None:
            self.initial["sealed"], sent = sealed_secret(self.user)
        self.secret = sent

    @sensitive_variables()
    def check(self) -> None:
        if self.is_too_old:
            raise ValidationError("That page was too old. Begin again.")
        self.enrolled = enrol(self.user, self.secret, self.cleaned_data["code"])
