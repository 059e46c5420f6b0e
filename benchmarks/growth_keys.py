"""Makes the database that the environment names, with as many keys, and prints the keys.

DATABASE_URL=… python benchmarks/growth_keys.py COUNT
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Final

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

AT_A_TIME: Final = 5_000


def main() -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "hello_project.settings")
    import django
    from django.core.management import call_command

    django.setup()
    from apikeys.models import ApiKey

    call_command("migrate", verbosity=0)
    rows = [ApiKey(name=f"Key {number}") for number in range(int(sys.argv[1]))]
    plaintexts = [row.make_secret() for row in rows]
    ApiKey.objects.bulk_create(rows, batch_size=AT_A_TIME)
    print("\n".join(plaintexts))


if __name__ == "__main__":
    main()
