"""Network rules in the Django admin."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, cast

from django.contrib import admin, messages
from django.contrib.admin import actions
from django.contrib.admin.views.main import ChangeList
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect, QueryDict
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils import timezone
from django.utils.html import format_html
from django.utils.timesince import timesince, timeuntil
from redis.exceptions import RedisError

from throttling import matches
from throttling.clients import client_address
from throttling.forms import NetworkRuleForm, warning
from throttling.matches import Matches
from throttling.models import NetworkRule, NetworkRuleQuerySet, locks_out
from throttling.network_rules import ChangeNotAnnounced, store
from throttling.networks import parse_network

if TYPE_CHECKING:
    NetworkRuleModelAdmin = admin.ModelAdmin[NetworkRule]
else:  # Django's own class cannot be subscripted.
    NetworkRuleModelAdmin = admin.ModelAdmin


FILLED_IN: Final = ("lock_out", "network", "action", "rate", "note", "end", "ends_at")
LOOKED_AT: Final = ("network", "action", "rate", "note", "end", "ends_at")
SHOWN_BEFORE_DELETION: Final = 50


class InForceFilter(admin.SimpleListFilter):
    title = "end"
    parameter_name = "in_force"

    def lookups(
        self, request: HttpRequest, model_admin: admin.ModelAdmin[Any]
    ) -> list[tuple[str, str]]:
        return [("yes", "in force"), ("no", "ended")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[NetworkRule]) -> Any:
        match self.value():
            case "yes":
                return NetworkRuleQuerySet.in_force(queryset, timezone.now())  # type: ignore[arg-type]
            case "no":
                return queryset.filter(ends_at__lte=timezone.now())
        return queryset


class RulesWithMatches(ChangeList):
    """The page's rules, with what the store says of how often each matched: one round trip."""

    def get_results(self, request: HttpRequest) -> None:
        super().get_results(request)
        rules = list(self.result_list)
        try:
            found = matches.read(store(), [rule.pk for rule in rules])
        except RedisError:
            found = {}
            messages.warning(request, "The store does not answer: matches are not known now.")
        for rule in rules:
            rule.matched = found.get(rule.pk)
        self.result_list = rules  # Django goes through it, no more.


@admin.register(NetworkRule)
class NetworkRuleAdmin(NetworkRuleModelAdmin):
    form = NetworkRuleForm
    list_display = ["network", "action_badge", "end", "match_count", "written_note"]
    list_filter = ["action", InForceFilter]
    search_fields = ["network", "note"]
    search_help_text = "An address finds the rules that contain it, the one that decides first."
    readonly_fields = ["created_by", "created_at"]
    radio_fields = {"action": admin.VERTICAL}
    actions = ["delete_selected"]
    delete_confirmation_template = "admin/throttling/networkrule/delete_confirmation.html"
    delete_selected_confirmation_template = "admin/throttling/networkrule/delete_selected.html"

    class Media:
        css = {"all": ["throttling/admin.css"]}

    # The list

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        return RulesWithMatches

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[NetworkRule], search_term: str
    ) -> tuple[QuerySet[NetworkRule], bool]:
        try:
            network = parse_network(search_term)
        except ValueError:
            return super().get_search_results(request, queryset, search_term)
        return NetworkRuleQuerySet.containing(queryset, network), False  # type: ignore[arg-type]

    @admin.display(description="action", ordering="action")
    def action_badge(self, rule: NetworkRule) -> str:
        text = f"rate {rule.rate}" if rule.rate else rule.get_action_display()
        return format_html('<span class="rule-{}">{}</span>', rule.action, text)

    @admin.display(description="note", ordering="note", empty_value="")
    def written_note(self, rule: NetworkRule) -> str | None:
        return rule.note or None

    @admin.display(description="ends", ordering="ends_at")
    def end(self, rule: NetworkRule) -> str:
        if rule.ends_at is None:
            return "never"
        now = timezone.now()
        if rule.has_ended(now):
            return _moment("ended {} ago", timesince(rule.ends_at, now, depth=1), rule.ends_at)
        return _moment("in {}", timeuntil(rule.ends_at, now, depth=1), rule.ends_at)

    @admin.display(description="matches")
    def match_count(self, rule: NetworkRule) -> str:
        matched: Matches | None = getattr(rule, "matched", None)
        if matched is None:
            return "?"
        if matched.last_at is None:
            return "0"
        is_new = timezone.now() - matched.last_at < timedelta(minutes=1)
        last = (
            _moment("{}", "just now", matched.last_at)
            if is_new
            else _moment("{} ago", timesince(matched.last_at, depth=1), matched.last_at)
        )
        return format_html("{}<br>{}", f"{matched.count:,}", last)

    # The form

    def get_fields(self, request: HttpRequest, obj: NetworkRule | None = None) -> Any:
        if obj is None:
            return list(FILLED_IN)
        can_change = self.has_change_permission(request, obj)
        return [*(FILLED_IN if can_change else LOOKED_AT), "created_by", "created_at"]

    def get_form(
        self, request: HttpRequest, obj: NetworkRule | None = None, change: bool = False, **kw: Any
    ) -> type[NetworkRuleForm]:
        form = cast("type[NetworkRuleForm]", super().get_form(request, obj, change, **kw))
        address = client_address(request.META)
        form.operator_address = address
        if network := form.base_fields.get("network"):
            network.help_text = f"{network.help_text} Your own address is {address}."
        return form

    def save_model(self, request: HttpRequest, obj: NetworkRule, form: Any, change: bool) -> None:
        if not change:
            obj.created_by = request.user  # type: ignore[assignment]  # The admin's are users.
        super().save_model(request, obj, form, change)

    # What is saved, but not everywhere known

    def changeform_view(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        try:
            return super().changeform_view(request, *args, **kwargs)
        except ChangeNotAnnounced as error:
            return self._not_announced(request, error)

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        context = {"title": "Network rules"} | (extra_context or {})
        try:
            return super().changelist_view(request, context)
        except ChangeNotAnnounced as error:
            return self._not_announced(request, error)

    def _not_announced(self, request: HttpRequest, error: ChangeNotAnnounced) -> HttpResponse:
        list(messages.get_messages(request))  # "Changed successfully" is half of the truth.
        self.message_user(request, str(error), messages.WARNING)
        return HttpResponseRedirect(reverse("admin:throttling_networkrule_changelist"))

    # Deleting: a rule may be what shields the operator from a wider one

    def delete_view(
        self, request: HttpRequest, object_id: str, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        rule = self.get_object(request, object_id)
        warned = _warning(request, [rule.pk] if rule else [])
        if warned and "lock_out" not in request.POST:
            request.POST = QueryDict()  # Not yet: it asks again.
        context = {"lock_out": warned} | (extra_context or {})
        try:
            return super().delete_view(request, object_id, context)
        except ChangeNotAnnounced as error:
            return self._not_announced(request, error)

    @admin.action(description="Delete selected network rules", permissions=["delete"])
    def delete_selected(
        self, request: HttpRequest, queryset: QuerySet[NetworkRule]
    ) -> HttpResponse | None:
        warned = _warning(request, queryset.values_list("pk", flat=True))
        if warned and "lock_out" not in request.POST:
            asked = request.POST.copy()
            asked.pop("post", None)
            request.POST = asked  # type: ignore[assignment]
        response = actions.delete_selected(self, request, queryset)
        if isinstance(response, TemplateResponse) and response.context_data is not None:
            response.context_data |= {
                "lock_out": warned,
                "all_of_them": request.POST.get("select_across") == "1",
                "shown": queryset[:SHOWN_BEFORE_DELETION],
                "count": queryset.count(),
            }
        return response


def _warning(request: HttpRequest, gone: Iterable[int]) -> str:
    """Empty where there is nothing to warn of."""
    address = client_address(request.META)
    at = locks_out(address, without=gone)
    return "" if at is None else warning(address, at)


def _moment(sentence: str, relative: str, at: datetime) -> str:
    local = timezone.localtime(at)
    return format_html(
        '<time datetime="{}" title="{}">{}</time>',
        local.isoformat(timespec="seconds"),
        f"{local:%Y-%m-%d %H:%M %Z}",
        sentence.format(relative),
    )
