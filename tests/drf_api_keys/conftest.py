from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.core.management import CommandError, call_command
from pytest_django import Settings

from drf_api_keys import hashes
from drf_api_keys.slow_hashes import slow_hashes
from tests.apikeys.conftest import ask, no_store_for_generation
from tests.servers import shared_environment, unavailable

__all__ = ["ask", "no_store_for_generation"]

HERE = Path(__file__).parent
NEWEST, SLOW = "3.1", "2.3"

Package = Callable[[str], Path]


@dataclass(frozen=True)
class OldProject:
    """A database that djangorestframework-api-key itself has made, and what is done there."""

    url: str
    package: Package

    def does(self, *doings: tuple[Any, ...], version: str = NEWEST) -> list[Any]:
        """What each of these functions of old_project.py gives."""
        path = os.pathsep.join([str(settings.BASE_DIR), str(self.package(version))])
        command = [sys.executable, str(HERE / "old_project.py"), self.url, json.dumps(doings)]
        done = subprocess.run(
            command,
            env={**os.environ, "PYTHONPATH": path},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        answers: list[Any] = json.loads(done.stdout)
        return answers

    def makes(self, *, version: str = NEWEST, **options: Any) -> str:
        """The plaintext of a new key."""
        [key] = self.does(("make", options), version=version)
        return str(key)

    def run(self, *options: str) -> tuple[str, str]:
        """What the command says on stdout and on stderr of this project's keys."""
        is_here = self.url == shared_environment()["DATABASE_URL"]
        return run(*([] if is_here else ["--database-url", self.url]), *options)


@pytest.fixture(scope="session")
def package() -> Iterator[Package]:
    """The folder of a version of djangorestframework-api-key, installed when first asked for."""
    with tempfile.TemporaryDirectory(prefix="old-package-") as folder:

        @lru_cache
        def failure_of(version: str) -> str:
            return install(HERE / f"requirements-{version}.txt", Path(folder) / version)

        def installed(version: str) -> Path:
            if failure := failure_of(version):
                unavailable(f"djangorestframework-api-key cannot be installed: {failure}")
            return Path(folder) / version

        yield installed


def install(requirements: Path, target: Path) -> str:
    """Without its dependencies, which this environment has. What was wrong, or nothing."""
    uv = shutil.which("uv") or "uv"
    installer = [sys.executable, "-m", "pip"] if find_spec("pip") else [uv, "pip"]
    options = ["--quiet", "--no-deps", "--require-hashes", "--target", str(target)]
    command = [*installer, "install", *options, "-r", str(requirements)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        return str(error)
    return done.stderr.strip().splitlines()[-1] if done.returncode else ""


@pytest.fixture
def old_file(package: Package, tmp_path: Path) -> OldProject:
    """One with a SQLite file of its own."""
    return OldProject(f"sqlite:///{tmp_path / 'old.sqlite3'}", package)


@pytest.fixture
def old_here(package: Package, transactional_db: None) -> Iterator[OldProject]:
    """One in this project's own database."""
    project = OldProject(shared_environment()["DATABASE_URL"], package)
    yield project
    project.does(("zero",))


@pytest.fixture(params=["file", "here"])
def old(request: pytest.FixtureRequest, transactional_db: None) -> OldProject:
    project: OldProject = request.getfixturevalue(f"old_{request.param}")
    return project


@pytest.fixture(autouse=True)
def paths_and_hashers(settings: Settings) -> None:
    """Imported keys are taken, and hashed as in projects that have not chosen a hasher."""
    settings.ROOT_URLCONF = "tests.drf_api_keys.urls"
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.PBKDF2PasswordHasher"]
    slow_hashes.clear()


def run(*options: str) -> tuple[str, str]:
    """What the command says on stdout and on stderr."""
    stdout, stderr = StringIO(), StringIO()
    call_command("import_drf_api_keys", *options, stdout=stdout, stderr=stderr)
    return stdout.getvalue(), stderr.getvalue()


def failed_run(*options: str) -> tuple[str, str, str]:
    """The same, and the sentence that it fails with."""
    stdout, stderr = StringIO(), StringIO()
    with pytest.raises(CommandError) as failure:
        call_command("import_drf_api_keys", *options, stdout=stdout, stderr=stderr)
    return stdout.getvalue(), stderr.getvalue(), str(failure.value)


def header(key: str) -> dict[str, str]:
    """As clients of djangorestframework-api-key send it."""
    return {"Authorization": f"Api-Key {key}"}


def prefix_of(key: str) -> str:
    return hashes.prefix_of(key)
