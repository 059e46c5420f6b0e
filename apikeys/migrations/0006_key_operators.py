"""The group of those who look after keys, with every permission there is on them."""

from typing import Any

from django.contrib.auth.management import create_permissions
from django.db import migrations

GROUP = "key operators"
CODENAMES = ["view_apikey", "add_apikey", "change_apikey", "rotate_apikey", "revoke_apikey"]


def make_group(apps: Any, schema_editor: Any) -> None:
    using = schema_editor.connection.alias
    config = apps.get_app_config("apikeys")
    # Django makes them after all migrations. It passes by an app without a models module, which a
    # historical one has not.
    config.models_module = True
    create_permissions(config, apps=apps, using=using, verbosity=0)
    config.models_module = None
    group, _ = apps.get_model("auth", "Group").objects.using(using).get_or_create(name=GROUP)
    permissions = apps.get_model("auth", "Permission").objects.using(using)
    group.permissions.add(
        *permissions.filter(content_type__app_label="apikeys", codename__in=CODENAMES)
    )


def remove_group(apps: Any, schema_editor: Any) -> None:
    groups = apps.get_model("auth", "Group").objects.using(schema_editor.connection.alias)
    groups.filter(name=GROUP).delete()


class Migration(migrations.Migration):
    dependencies = [
        ("apikeys", "0005_permissions"),
        ("auth", "0012_alter_user_first_name_max_length"),
        ("contenttypes", "0002_remove_content_type_name"),
    ]

    operations = [migrations.RunPython(make_group, remove_group)]
