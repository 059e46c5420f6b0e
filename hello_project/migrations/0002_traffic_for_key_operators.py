"""Who looks after keys may see the traffic and set network rules."""

from typing import Any

from django.contrib.auth.management import create_permissions
from django.db import migrations
from django.db.models import Q

GROUP = "key operators"
ADDED = Q(content_type__app_label="hello_project", codename="view_keyusage") | Q(
    content_type__app_label="throttling",
    codename__in=[f"{action}_networkrule" for action in ("view", "add", "change", "delete")],
)


def give(apps: Any, schema_editor: Any) -> None:
    using = schema_editor.connection.alias
    for label in ("hello_project", "throttling"):
        config = apps.get_app_config(label)
        # Django makes them after all migrations. It passes by an app without a models module,
        # which a historical one has not.
        config.models_module = True
        create_permissions(config, apps=apps, using=using, verbosity=0)
        config.models_module = None
    permissions = apps.get_model("auth", "Permission").objects.using(using).filter(ADDED)
    group, _ = apps.get_model("auth", "Group").objects.using(using).get_or_create(name=GROUP)
    group.permissions.add(*permissions)


def take(apps: Any, schema_editor: Any) -> None:
    using = schema_editor.connection.alias
    permissions = apps.get_model("auth", "Permission").objects.using(using).filter(ADDED)
    for group in apps.get_model("auth", "Group").objects.using(using).filter(name=GROUP):
        group.permissions.remove(*permissions)


class Migration(migrations.Migration):
    dependencies = [
        ("hello_project", "0001_usage"),
        ("apikeys", "0006_key_operators"),
        ("throttling", "0001_network_rules"),
    ]

    operations = [migrations.RunPython(give, take)]
