from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, ClassVar, Final

from django.conf import settings
from django.core.exceptions import ValidationError
from django.db import models, transaction
from django.utils import timezone

from throttling import network_rules
from throttling.addresses import Network
from throttling.networks import containing, parse_network
from throttling.validators import validate_rate_limit

if TYPE_CHECKING:
    CharField = models.CharField[str, str]
else:  # Django's own class cannot be subscripted.
    CharField = models.CharField


RULES_A_STATEMENT: Final = 500


class NetworkField(CharField):
    """A network in any notation that throttling.networks reads; kept in the canonical one."""

    def to_python(self, value: Any) -> Any:
        try:
            return str(parse_network(super().to_python(value) or ""))
        except ValueError as error:
            raise ValidationError(str(error), code="invalid_network") from error


def announce_after_commit(*, gone: Sequence[int] = ()) -> None:
    """A store that cannot be told makes the commit raise ChangeNotAnnounced."""
    transaction.on_commit(lambda: network_rules.announce(gone))


class NetworkRuleQuerySet(models.QuerySet["NetworkRule"]):
    """Every way to change rows announces it, as `NetworkRule.save` does."""

    def update(self, **values: Any) -> int:
        changed = super().update(**values)
        announce_after_commit()
        return changed

    def delete(self) -> tuple[int, dict[str, int]]:
        gone = list(self.values_list("pk", flat=True))
        deleted = super().delete()
        announce_after_commit(gone=gone)
        return deleted

    def bulk_create(
        self, objs: Iterable[NetworkRule], *args: Any, **kwargs: Any
    ) -> list[NetworkRule]:
        created = super().bulk_create(objs, *args, **kwargs)
        announce_after_commit()
        return created

    def in_force(self, at: datetime) -> NetworkRuleQuerySet:
        return self.filter(models.Q(ends_at=None) | models.Q(ends_at__gt=at))

    def containing(self, network: Network) -> NetworkRuleQuerySet:
        """Those whose network contains this one, the one that decides first."""
        candidates = containing(network)
        nearest_first = models.Case(
            *(
                models.When(network=candidate, then=models.Value(distance))
                for distance, candidate in enumerate(candidates)
            ),
            output_field=models.IntegerField(),
        )
        return self.filter(network__in=candidates).order_by(nearest_first)


# mypy takes no base class that a call returns.
class NetworkRuleManager(models.Manager.from_queryset(NetworkRuleQuerySet)):  # type: ignore[misc]
    def put(
        self, rules: Sequence[NetworkRule], saved: Callable[[int], None] = lambda count: None
    ) -> None:
        """Save checked rules, each in place of the one that its network has, if any; all or none.

        `saved` is told again and again how many are.
        """
        with transaction.atomic():
            for start in range(0, len(rules), RULES_A_STATEMENT):
                models.QuerySet.bulk_create(
                    self.get_queryset(),
                    rules[start : start + RULES_A_STATEMENT],
                    update_conflicts=True,
                    unique_fields=["network"],
                    update_fields=["action", "rate", "note", "ends_at"],
                )
                saved(start)
            announce_after_commit()


class NetworkRule(models.Model):
    """What an operator decided about a network. Of several that contain an address, the one with
    the longest prefix decides."""

    class Action(models.TextChoices):
        BLOCK = "block", "block"
        EXEMPT = "exempt", "exempt"
        RATE = "rate", "rate of its own"

    network = NetworkField(
        max_length=43,
        unique=True,
        error_messages={"unique": "There is a rule for this network already: change that one."},
        help_text="An address or a CIDR, such as 203.0.113.7, 203.0.113.0/24 or 2001:db8::/32."
        " Where several contain an address, the longest prefix decides.",
    )
    action = models.CharField(
        max_length=6,
        choices=Action.choices,
        help_text="Block: nothing of this site is answered. Exempt: no limit by address; a key's"
        " own still holds. Rate of its own: each client address inside gets this rate in place of"
        " the site's.",
    )
    rate = models.CharField(
        "own rate",
        max_length=30,
        blank=True,
        validators=[validate_rate_limit],
        help_text="Such as 100/1m or 1000/h, for each client address; of IPv6, for each /64.",
    )
    note = models.CharField(max_length=200, blank=True, help_text="Why, for whoever comes next.")
    ends_at = models.DateTimeField("ends", null=True, blank=True, help_text="Blank: never.")
    created_by = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        null=True,
        blank=True,
        editable=False,
        on_delete=models.SET_NULL,
        related_name="+",
    )
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    objects: ClassVar[NetworkRuleManager] = NetworkRuleManager()

    class Meta:
        ordering = ["-created_at", "-pk"]
        constraints = [
            models.CheckConstraint(
                name="throttling_rate_if_rate_of_its_own",
                condition=models.Q(action="rate") & ~models.Q(rate="")
                | ~models.Q(action="rate") & models.Q(rate=""),
                violation_error_message="A rate of its own needs a rate, and nothing else has one.",
            )
        ]

    def __str__(self) -> str:
        return self.network

    def save(self, *args: Any, **kwargs: Any) -> None:
        super().save(*args, **kwargs)
        announce_after_commit()

    def delete(self, *args: Any, **kwargs: Any) -> tuple[int, dict[str, int]]:
        gone = [self.pk]
        deleted = super().delete(*args, **kwargs)
        announce_after_commit(gone=gone)
        return deleted

    def clean(self) -> None:
        if self.action == self.Action.RATE and not self.rate:
            raise ValidationError({"rate": "Write the rate, such as 100/1m."})
        if self.action and self.action != self.Action.RATE and self.rate:
            label = self.Action.RATE.label
            raise ValidationError({"rate": f"Leave this blank, or choose “{label}” as the action."})

    @property
    def prefix_length(self) -> int:
        return int(self.network.partition("/")[2])

    def has_ended(self, at: datetime) -> bool:
        return self.ends_at is not None and self.ends_at <= at


def locks_out(
    address: str, *, without: Iterable[int] = (), put: NetworkRule | None = None
) -> datetime | None:
    """From when on the address would be blocked by such a change, if it were not blocked anyway.

    `without` are the numbers of rules that go, or are replaced by `put`. Later than now it is where
    the end of another rule uncovers the block.
    """
    try:
        network = parse_network(address)
    except ValueError:
        return None  # Of a peer without an address.
    before: list[NetworkRule] = list(NetworkRule.objects.containing(network))
    gone = set(without)
    after = [rule for rule in before if rule.pk not in gone]
    if put is not None and put.network in containing(network):
        after.append(put)
    now = timezone.now()
    ends = {rule.ends_at for rule in (*before, *after) if rule.ends_at}
    moments: list[datetime] = [now, *sorted(end for end in ends if end > now)]
    for moment in moments:
        if _blocks(after, moment) and not _blocks(before, moment):
            return moment
    return None


def _blocks(rules: Iterable[NetworkRule], at: datetime) -> bool:
    """Of rules that all contain one address."""
    in_force = [rule for rule in rules if not rule.has_ended(at)]
    deciding = max(in_force, key=lambda rule: rule.prefix_length, default=None)
    return deciding is not None and deciding.action == NetworkRule.Action.BLOCK
