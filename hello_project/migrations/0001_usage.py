from django.db import migrations, models


class Migration(migrations.Migration):
    initial = True

    operations = [
        migrations.CreateModel(
            name="KeyUsage",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("key_id", models.CharField(max_length=12)),
                ("day", models.DateField()),
                ("admitted", models.BigIntegerField(default=0)),
                ("refused", models.BigIntegerField(default=0)),
                ("forbidden", models.BigIntegerField(default=0)),
                ("errors", models.BigIntegerField(default=0)),
            ],
            options={
                "default_permissions": ("view",),
                "constraints": [
                    models.UniqueConstraint(fields=("key_id", "day"), name="one_a_key_and_day")
                ],
            },
        ),
        migrations.CreateModel(
            name="UsageBatch",
            fields=[
                ("id", models.CharField(max_length=40, primary_key=True, serialize=False)),
                ("added_at", models.DateTimeField()),
            ],
            options={
                "default_permissions": (),
                "indexes": [models.Index(fields=["added_at"], name="usage_batch_added_at")],
            },
        ),
    ]
