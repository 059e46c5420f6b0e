from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [
        ("apikeys", "0004_key_events"),
    ]

    operations = [
        migrations.AlterModelOptions(
            name="apikey",
            options={
                "default_permissions": ("view", "add", "change"),
                "ordering": ["-created_at"],
                "permissions": [
                    ("rotate_apikey", "Can rotate API key"),
                    ("revoke_apikey", "Can revoke API key"),
                ],
                "verbose_name": "API key",
            },
        ),
    ]
