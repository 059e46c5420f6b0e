"""The console's pages for the second factor: asking for a code, setting it up, changing it."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, cast
from urllib.parse import urlencode

from django.conf import settings
from django.contrib.admin import AdminSite
from django.contrib.auth import REDIRECT_FIELD_NAME
from django.contrib.auth.models import User
from django.contrib.auth.views import redirect_to_login
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import redirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils.http import url_has_allowed_host_and_scheme
from django.views.decorators.cache import never_cache
from django.views.decorators.csrf import csrf_protect
from django.views.decorators.debug import sensitive_post_parameters

from hello_project import login, second_factor

Page = Callable[[AdminSite, HttpRequest], HttpResponse]


def urls(console: AdminSite) -> list[URLPattern]:
    return [
        path("second-factor/", _for_password_holders(console, own_page), name="second_factor"),
        path(
            "second-factor/code/",
            _for_password_holders(console, code_page),
            name="second_factor_code",
        ),
    ]


def where_to_go_on(request: HttpRequest) -> HttpResponseRedirect:
    """For who has logged in by password and has not given a code: to give one, or to set it up."""
    device = second_factor.device_of(cast(User, request.user))
    page = reverse("admin:second_factor_code" if device else "admin:second_factor")
    return redirect(f"{page}?{urlencode({REDIRECT_FIELD_NAME: _next(request)})}")


def _for_password_holders(console: AdminSite, page: Page) -> Callable[[HttpRequest], HttpResponse]:
    """What AdminSite.admin_view does, but before the second factor is passed."""

    @wraps(page)
    def view(request: HttpRequest) -> HttpResponse:
        if settings.SECOND_FACTOR == "off":
            raise Http404
        if not AdminSite.has_permission(console, request):
            return redirect_to_login(request.get_full_path(), reverse("admin:login"))
        return page(console, request)

    return never_cache(csrf_protect(sensitive_post_parameters()(view)))


def code_page(console: AdminSite, request: HttpRequest) -> HttpResponse:
    user = cast(User, request.user)
    device = second_factor.device_of(user)
    if device is None or second_factor.is_passed(request):
        return redirect(_next(request))
    form = second_factor.CodeForm(request)
    form.fields["code"].widget.attrs["autofocus"] = True
    if form.is_valid():
        second_factor.pass_on(request, device)
        return redirect(_next(request))
    answer = _render(console, request, "code", title="Second factor", form=form)
    return login.with_refusal(answer, form)


def own_page(console: AdminSite, request: HttpRequest) -> HttpResponse:
    if second_factor.device_of(cast(User, request.user)) is None:
        return _enrolment(console, request)
    if not second_factor.is_passed(request):
        return where_to_go_on(request)
    return _changing(console, request)


def _enrolment(console: AdminSite, request: HttpRequest) -> HttpResponse:
    form = second_factor.EnrolmentForm(request)
    if form.is_valid():
        if form.enrolled is None:  # Sent twice; the other answer shows the recovery codes.
            return redirect("admin:second_factor")
        device, codes = form.enrolled
        second_factor.pass_on(request, device)
        return _show_codes(console, request, codes)
    answer = _render(
        console,
        request,
        "enrolment",
        title="Set up a second factor",
        form=form,
        sealed=form.initial.get("sealed") or form["sealed"].value(),
        secret=" ".join(form.secret[at : at + 4] for at in range(0, len(form.secret), 4)),
        qr_code=second_factor.drawn(
            second_factor.address_of(form.secret, form.user, request.get_host())
        ),
    )
    return login.with_refusal(answer, form)


def _changing(console: AdminSite, request: HttpRequest) -> HttpResponse:
    user = cast(User, request.user)
    form = second_factor.PasswordAndCodeForm(request)
    if form.is_valid():
        if "remove" in request.POST:
            second_factor.remove(user)
            return redirect("admin:second_factor")
        return _show_codes(console, request, second_factor.renew_recovery_codes(user))
    answer = _render(
        console,
        request,
        "own",
        title="Second factor",
        form=form,
        device=second_factor.device_of(user),
        codes_left=second_factor.recovery_codes_left(user),
    )
    return login.with_refusal(answer, form)


def _show_codes(console: AdminSite, request: HttpRequest, codes: list[str]) -> HttpResponse:
    return _render(console, request, "codes", title="Recovery codes", codes=codes)


def _render(
    console: AdminSite, request: HttpRequest, page: str, **context: Any
) -> TemplateResponse:
    request.current_app = console.name
    return TemplateResponse(
        request,
        f"hello_project/second_factor_{page}.html",
        {
            **console.each_context(request),
            "is_required": settings.SECOND_FACTOR == "required",
            REDIRECT_FIELD_NAME: _next(request),
            **context,
        },
    )


def _next(request: HttpRequest) -> str:
    """Where the user was going; never to another site."""
    wanted = request.POST.get(REDIRECT_FIELD_NAME) or request.GET.get(REDIRECT_FIELD_NAME, "")
    here = {request.get_host()}
    if url_has_allowed_host_and_scheme(wanted, here, require_https=request.is_secure()):
        return wanted
    return reverse("admin:index")
