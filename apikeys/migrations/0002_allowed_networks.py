from django.db import migrations

import apikeys.models


class Migration(migrations.Migration):
    dependencies = [
        ("apikeys", "0001_initial"),
    ]

    operations = [
        migrations.AddField(
            model_name="apikey",
            name="networks",
            field=apikeys.models.NetworksField(
                blank=True,
                db_default="",
                default="",
                help_text="Addresses and CIDRs that the key may be used from, such as"
                " 203.0.113.7, 2001:db8::/32. Blank: any.",
                verbose_name="allowed networks",
            ),
        ),
    ]
