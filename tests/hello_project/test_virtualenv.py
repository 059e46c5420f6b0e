"""How a command finds or makes its environment. `.ci/run` makes one for real, on a clean clone."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from django.conf import settings

BASE_PYTHON = str(Path(sys.base_prefix) / "bin" / "python3")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """The files that the start needs, without an environment."""
    (tmp_path / "hello_project").mkdir()
    for name in ("manage.py", "requirements.txt", "requirements-dev.txt"):
        shutil.copy(settings.BASE_DIR / name, tmp_path)
    for name in ("__init__.py", "virtualenv.py"):
        shutil.copy(settings.BASE_DIR / "hello_project" / name, tmp_path / "hello_project")
    return tmp_path


def start(checkout: Path, prelude: str, command: str = "up", **env: str) -> tuple[int, str]:
    """Run the start under a Python without packages, changed by `prelude`."""
    code = (
        f"import sys; sys.path.insert(0, {str(checkout)!r})\n"
        "from hello_project import virtualenv\n"
        f"{prelude}\n"
        f"virtualenv.enter(['manage.py', {command!r}])\n"
        "print('went on')"
    )
    result = subprocess.run(
        [BASE_PYTHON, "-S", "-c", code],
        env={"PATH": "/nonexistent", **env},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    return result.returncode, result.stdout


def test_without_ensurepip_and_uv_one_sentence_says_what_to_install(checkout: Path) -> None:
    code, said = start(checkout, "sys.modules['ensurepip'] = None")
    assert code == 1
    assert "apt-get install python3-venv" in said.splitlines()[-1]
    assert "Traceback" not in said


def test_without_ensurepip_uv_is_used(checkout: Path, tmp_path: Path) -> None:
    uv = tmp_path / "bin" / "uv"
    uv.parent.mkdir()
    uv.write_text('#!/bin/sh\necho "uv was asked: $*"\nexit 7\n')
    uv.chmod(0o755)
    code, said = start(checkout, "sys.modules['ensurepip'] = None", PATH=f"{uv.parent}:/bin")
    assert code == 1
    assert f"uv was asked: venv --python {BASE_PYTHON}" in said.replace(
        str(Path(sys.base_prefix) / "bin" / "python3.11"), BASE_PYTHON
    )
    assert "Could not make" in said


def test_an_old_python_is_a_sentence(checkout: Path) -> None:
    code, said = start(checkout, "sys.version_info = (3, 10, 0)")
    assert code == 1
    assert said.startswith("Python 3.11 or newer is needed")


def test_where_django_is_there_already_nothing_is_made(checkout: Path) -> None:
    (checkout / "django.py").touch()
    assert start(checkout, "") == (0, "went on\n")
    assert not (checkout / ".venv").exists()


def test_in_an_active_environment_without_django_nothing_is_made(checkout: Path) -> None:
    code, said = start(checkout, "sys.prefix = '/somebodys/environment'")
    assert code == 1
    assert "pip install -r requirements.txt" in said
    assert not (checkout / ".venv").exists()


def test_tests_in_an_environment_without_pytest_say_what_to_install(checkout: Path) -> None:
    (checkout / "django.py").touch()
    code, said = start(checkout, "", command="test")
    assert code == 1
    assert "pip install -r requirements-dev.txt" in said


def test_a_made_environment_is_entered_without_a_detour(checkout: Path) -> None:
    """`.venv` is replaced by a program that tells what it was started as."""
    python = checkout / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text('#!/bin/sh\necho "inside: $*"\n')
    python.chmod(0o755)
    prelude = (
        "v = virtualenv; v._marker('requirements-dev.txt').write_text("
        "v._digest('requirements-dev.txt'))"
    )
    assert start(checkout, prelude) == (0, "inside: manage.py up\n")
    assert start(checkout, prelude, command="test") == (0, "inside: manage.py test\n")


def test_an_environment_that_was_left_half_made_is_made_anew(checkout: Path) -> None:
    python = checkout / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text("#!/bin/sh\nexit 1\n")
    python.chmod(0o755)
    (checkout / "requirements.txt").write_text("")
    _, said = start(checkout, "virtualenv._run = lambda *command: print(*command) or sys.exit()")
    assert f"-m venv {checkout / '.venv'}" in said


def test_an_interrupted_making_is_a_sentence(checkout: Path) -> None:
    prelude = "def interrupt(*command): raise KeyboardInterrupt\nvirtualenv._run = interrupt"
    code, said = start(checkout, prelude)
    assert code == 1
    assert said.splitlines()[-1].startswith("Interrupted.")
    assert "Traceback" not in said


def test_changed_requirements_are_installed_again(checkout: Path) -> None:
    python = checkout / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text('#!/bin/sh\necho "inside: $*"\n')
    python.chmod(0o755)
    _, said = start(checkout, "", command="list_keys")
    assert "-m pip install" in said
    assert said.endswith("inside: manage.py list_keys\n")
    _, said = start(checkout, "", command="list_keys")
    assert said == "inside: manage.py list_keys\n"
    (checkout / "requirements.txt").write_text("# changed\n")
    _, said = start(checkout, "", command="list_keys")
    assert "-m pip install" in said
