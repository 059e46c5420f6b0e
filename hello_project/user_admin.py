"""The console's pages for users and groups: Django's, with what everybody can operate."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from django.contrib import admin
from django.contrib.auth import admin as auth
from django.contrib.auth.models import Group, User
from django.db.models import ManyToManyField
from django.forms import CheckboxSelectMultiple

if TYPE_CHECKING:
    UserAdmin = auth.UserAdmin[User]
else:  # Django's own class cannot be subscripted.
    UserAdmin = auth.UserAdmin

CHECKBOXES: Final[dict[Any, Any]] = {ManyToManyField: {"widget": CheckboxSelectMultiple}}
"""In place of two lists to move things between, of which a screen reader is told too little."""

admin.site.unregister([User, Group])


@admin.register(User)
class ConsoleUserAdmin(UserAdmin):
    """When somebody joined and last logged in is not for anybody to write."""

    filter_horizontal = ()
    formfield_overrides = CHECKBOXES
    readonly_fields = ("last_login", "date_joined")


@admin.register(Group)
class ConsoleGroupAdmin(auth.GroupAdmin):
    filter_horizontal = ()
    formfield_overrides = CHECKBOXES
