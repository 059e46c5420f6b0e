"""What docs/from-drf-api-key.md says, done in a copy of this project with real old keys."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest
from django.conf import settings
from django.contrib.auth.models import User
from rest_framework.authentication import BaseAuthentication
from rest_framework.permissions import BasePermission
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.test import APIRequestFactory, force_authenticate
from rest_framework.views import APIView

from drf_api_keys.authentication import ImportedKeyAuthentication
from drf_api_keys.models import ImportedKey
from hello_project import children
from tests.drf_api_keys.conftest import SLOW, OldProject, Package, header, prefix_of
from tests.drf_api_keys.test_authentication import KEY, import_one
from tests.servers import free_port, need, wait_for

ROOT: Final = Path(__file__).parent.parent.parent
PAGE: Final = ROOT / "docs" / "from-drf-api-key.md"
COPIED: Final = ("apikeys", "drf_api_keys", "hello_project", "throttling")
OLD_URL: Final = "sqlite:////srv/old/db.sqlite3"
OLD_KEY: Final = "AbCdEfGh.0123456789abcdefghijklmnopqrstuv"
ARGON2: Final = "argon2$argon2id$v=19$m=102400,t=2,p=8$c2FsdA$aGFzaA"


@dataclass(frozen=True)
class Block:
    language: str
    text: str


def sections() -> dict[str, list[Block]]:
    """The blocks of each section, by its title."""
    found = {}
    for section in PAGE.read_text().split("\n## ")[1:]:
        blocks = re.findall(r"^( *)```(\w+)\n(.*?)^\1```$", section, re.MULTILINE | re.DOTALL)
        if blocks:
            title = section.partition("\n")[0]
            found[title] = [Block(language, text) for _, language, text in blocks]
    return found


SECTIONS: Final = sections()


@dataclass(frozen=True)
class Site:
    """A copy of this project, with a database of its own, and a shell in it."""

    folder: Path

    @property
    def environment(self) -> dict[str, str]:
        programs = Path(sys.executable).parent
        kept = {k: v for k, v in os.environ.items() if k != "DJANGO_SETTINGS_MODULE"}
        return kept | {
            "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
            "DATABASE_URL": f"sqlite:///{self.folder / 'site.sqlite3'}",
            "DATA_DIR": str(settings.DATA_DIR),
            "REDIS_URL": settings.REDIS_URL,
            "IP_RATE_LIMIT": "1000/1s",
            "WEB_CONCURRENCY": "1",
        }

    def run(self, command: str, code: int = 0, given: str = "") -> str:
        """What the shell's command prints, on stdout and on stderr."""
        done = subprocess.run(
            ["/bin/sh", "-ec", command],
            cwd=self.folder,
            env=self.environment,
            input=given,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        assert done.returncode == code, done.stdout
        return done.stdout

    def change_settings(self, diff: str, *, back: bool = False) -> None:
        path = self.folder / "hello_project" / "settings.py"
        lines = diff.splitlines(keepends=True)
        before = "".join(line[1:] for line in lines if line[0] in " -")
        after = "".join(line[1:] for line in lines if line[0] in " +")
        if back:
            before, after = after, before
        text = path.read_text()
        assert text.count(before) == 1
        path.write_text(text.replace(before, after))

    @contextmanager
    def served(self) -> Iterator[int]:
        """The port."""
        port, log = free_port(), self.folder / "gunicorn.log"
        with log.open("wb") as output:
            process = children.start(
                [sys.executable, "-m", "gunicorn", "hello_project.wsgi"],
                cwd=self.folder,
                env=self.environment | {"PORT": str(port), "HOST": "127.0.0.1"},
                stdout=output,
                stderr=output,
            )
            try:
                wait_for(lambda: process.poll() is not None or listens(port))
                assert process.poll() is None, log.read_text()
                yield port
            finally:
                children.stop(process, 10)


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture
def site(tmp_path: Path) -> Site:
    folder = tmp_path / "site"
    folder.mkdir()
    for name in COPIED:
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("manage.py", "gunicorn.conf.py"):
        shutil.copy(ROOT / name, folder)
    return Site(folder)


@dataclass(frozen=True)
class OldSide:
    url: str
    good: list[str]
    """The keys that are to go on."""
    skipped: str
    """The prefix of the one that cannot be imported yet."""


@pytest.fixture
def old_side(package: Package, tmp_path: Path) -> OldSide:
    old = OldProject(f"sqlite:///{tmp_path / 'old.sqlite3'}", package)
    slow = old.makes(name="slow", version=SLOW)
    fast, argon2, *_, own = old.does(
        ("make", {"name": "fast"}),
        ("make", {"name": "reports"}),
        ("make", {"name": "long"}),
        ("make", {"name": "revoked", "revoked": True}),
        ("make", {"name": "expired", "expires_in": -1}),
        ("make", {"name": "own", "model": "ShopKey", "shop": "Oslo"}),
    )
    old.does(("change", argon2, {"hashed_key": ARGON2}))
    return OldSide(old.url, [slow, fast, own], prefix_of(argon2))


def test_the_steps_there_and_back(site: Site, old_side: OldSide) -> None:
    need("curl", "curl")
    before = (site.folder / "hello_project" / "settings.py").read_text()
    site.run("python3 manage.py migrate")
    add, switch, migrate, dry_run, said, imports, call = SECTIONS["Steps"]
    (rotate, issue), back_to_zero = SECTIONS["Retire the old keys"], SECTIONS["Take the app out"]

    # Steps 1 to 3.
    for diff in (add, switch):
        site.change_settings(diff.text)
    site.run(migrate.text)
    shown = site.run(dry_run.text.replace(OLD_URL, old_side.url), code=1)
    assert sorted(shown.splitlines()) == sorted(
        re.sub(r"^\w+(?= \(reports\))", old_side.skipped, said.text).splitlines()
    )
    first, second = imports.text.replace(OLD_URL, old_side.url).splitlines()
    assert "\nImported: 5," in site.run(first, code=1)
    assert "\nImported: 1.\n" in site.run(second)

    # Steps 4 and 5, and the new keys.
    with site.served() as port:

        def called(key: str) -> str:
            command = call.text.replace(OLD_KEY, key).replace(":8000/", f":{port}/")
            return site.run(f"{command.strip()} -s -S")

        for key in old_side.good:
            assert called(key).startswith("HTTP/1.1 200 OK")
        issued, revoked = issue.text.splitlines()
        new = site.run(issued).splitlines()[-1]
        assert called(new).startswith("HTTP/1.1 200 OK")
        _, fast, own = old_side.good
        listed = site.run("python3 manage.py list_keys")
        ids = {line.split()[1]: line.split()[0] for line in listed.splitlines()}
        site.run(revoked.replace(" ID ", f" {ids['fast']} "))
        assert called(fast).startswith("HTTP/1.1 401 ")
        rotated = site.run(rotate.text.replace(" ID ", f" {ids['own']} ")).splitlines()[-1]
        for key in (own, rotated):
            assert called(key).startswith("HTTP/1.1 200 OK")

    # Out again.
    zero, stale = back_to_zero
    site.change_settings(switch.text, back=True)
    site.run(zero.text)
    site.change_settings(add.text, back=True)
    assert (site.folder / "hello_project" / "settings.py").read_text() == before
    shutil.rmtree(site.folder / "drf_api_keys")
    site.run(stale.text, given="yes\n")
    site.run("python3 manage.py check")
    listed = site.run("python3 manage.py list_keys")
    [overlapping] = [line for line in listed.splitlines() if " overlapping " in line]
    assert " own " in overlapping
    [active] = [line for line in listed.splitlines() if " active " in line]
    assert " billing, new " in active
    with site.served() as port:
        command = call.text.replace(":8000/", f":{port}/")
        for key, status in ((new, 200), (rotated, 200), (own, 401), (old_side.good[0], 401)):
            answer = site.run(f"{command.strip().replace(OLD_KEY, key)} -s -S")
            assert answer.startswith(f"HTTP/1.1 {status} ")


# In your views


def made(number: int) -> Any:
    """The class that a block of this section makes."""
    names: dict[str, Any] = {"__name__": "views"}
    exec(SECTIONS["In your views"][number].text, names)
    return next(each for each in names.values() if getattr(each, "__module__", "") == "views")


def answered(
    key: str | None,
    *,
    permission: type[BasePermission],
    authentication: type[BaseAuthentication] | None = None,
    user: User | None = None,
) -> int:
    class View(APIView):
        authentication_classes = [authentication] if authentication else []
        permission_classes = [permission]
        throttle_classes = []

        def get(self, request: Request) -> Response:
            return Response({})

    request = APIRequestFactory().get("/", headers={"X-API-Key": key} if key else {})
    if user:
        force_authenticate(request, user)
    return int(View.as_view()(request).status_code)


@pytest.mark.django_db(transaction=True)
def test_a_view_asks_which_table_a_key_came_from() -> None:
    has_shop_key = made(0)
    import_one()
    asked = {"permission": has_shop_key, "authentication": ImportedKeyAuthentication}
    assert answered(KEY, **asked) == 403
    ImportedKey.objects.update(table="shop_shopkey")
    assert answered(KEY, **asked) == 200
    assert answered(None, **asked) == 401


@pytest.mark.django_db(transaction=True)
def test_a_view_wants_a_user_and_a_key() -> None:
    has_key = made(1)
    import_one()
    ann = User.objects.create_user("ann")
    assert answered(KEY, permission=has_key, user=ann) == 200
    assert answered(None, permission=has_key, user=ann) == 403
    assert answered(f"{KEY[:-1]}x", permission=has_key, user=ann) == 403


@pytest.mark.django_db(transaction=True)
def test_keys_of_another_form_are_taken_by_a_class_that_knows_it() -> None:
    own_class = made(2)
    own = f"AbCd.{'s' * 64}"
    import_one(own)
    request = APIView().initialize_request(APIRequestFactory().get("/", headers=header(own)))
    assert own_class().authenticate(request) is not None


def test_every_block_of_the_page_is_followed() -> None:
    assert {title: len(blocks) for title, blocks in SECTIONS.items()} == {
        "Steps": 7,
        "In your views": 3,
        "Retire the old keys": 2,
        "Take the app out": 2,
    }
