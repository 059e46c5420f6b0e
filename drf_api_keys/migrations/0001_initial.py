import django.db.models.deletion
from django.apps.registry import Apps
from django.db import migrations, models
from django.db.backends.base.schema import BaseDatabaseSchemaEditor
from django.utils import timezone

from apikeys.models import raise_generation_after_commit

NO_SECRET = "0" * 64


def revoke_what_cannot_be_used_any_more(
    apps: Apps, schema_editor: BaseDatabaseSchemaEditor
) -> None:
    """All imported keys but those that have a secret of this project's by now."""
    alias = schema_editor.connection.alias
    imported = apps.get_model("drf_api_keys", "ImportedKey").objects.using(alias).values("key")
    keys = apps.get_model("apikeys", "ApiKey").objects.using(alias)
    keys.filter(pk__in=imported, digest=NO_SECRET, revoked_at=None).update(
        revoked_at=timezone.now(),
        revoked_reason="Keys from djangorestframework-api-key are taken no longer.",
    )
    raise_generation_after_commit(must=False)


class Migration(migrations.Migration):
    initial = True

    dependencies = [
        ("apikeys", "0001_initial"),
    ]

    operations = [
        migrations.CreateModel(
            name="ImportedKey",
            fields=[
                (
                    "key",
                    models.OneToOneField(
                        editable=False,
                        on_delete=django.db.models.deletion.CASCADE,
                        primary_key=True,
                        related_name="+",
                        serialize=False,
                        to="apikeys.apikey",
                    ),
                ),
                ("prefix", models.CharField(editable=False, max_length=50, unique=True)),
                ("hashed_key", models.CharField(editable=False, max_length=255)),
                (
                    "table",
                    models.CharField(
                        editable=False,
                        help_text="The table that it was imported from.",
                        max_length=63,
                    ),
                ),
            ],
            options={
                "verbose_name": "key from djangorestframework-api-key",
                "verbose_name_plural": "keys from djangorestframework-api-key",
            },
        ),
        migrations.RunPython(
            migrations.RunPython.noop, revoke_what_cannot_be_used_any_more, elidable=False
        ),
    ]
