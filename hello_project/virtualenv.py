"""The project's own environment, `.venv`: made on first use, entered by every command.

Uses nothing but the standard library, and no syntax that an old Python could not read.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent
VENV = PROJECT / ".venv"
PYTHON = VENV / "bin" / "python"
RUNTIME = "requirements.txt"
DEVELOPMENT = "requirements-dev.txt"  # RUNTIME's packages and those of the tests
LOWEST_PYTHON = (3, 11)


def enter(arguments: list[str]) -> None:
    """Go on in an environment that has what the command needs.

    Returns when this one has it; otherwise the process becomes the same command in `.venv`, which
    is made or brought up to date first. Ends the process with a sentence when that cannot be done.
    """
    if sys.version_info < LOWEST_PYTHON:
        sys.exit(f"Python 3.11 or newer is needed; this is {sys.version.split()[0]}.")
    for_tests = arguments[1:2] == ["test"]
    requirements = DEVELOPMENT if for_tests else RUNTIME
    inside = Path(sys.prefix).resolve() == VENV.resolve()
    is_active = sys.prefix != sys.base_prefix
    if not inside and (is_active or _is_importable("django")):
        _check_active_environment(requirements, "pytest" if for_tests else "django")
        return
    try:
        _bring_up_to_date(requirements)
    except subprocess.CalledProcessError as error:
        sys.exit(f"Could not make {VENV}: the command above ended with {error.returncode}.")
    except OSError as error:
        sys.exit(f"Could not make {VENV}: {error}.")
    except KeyboardInterrupt:
        sys.exit(f"Interrupted. {VENV} is finished the next time.")
    if not inside:
        os.execv(PYTHON, [str(PYTHON), *arguments])  # noqa: S606 - a fixed path of our own


def _is_importable(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def _check_active_environment(requirements: str, module: str) -> None:
    if not _is_importable(module):
        sys.exit(
            f"This Python environment ({sys.prefix}) has no {module}:"
            f" run `pip install -r {requirements}` in it, or leave it."
        )


def _bring_up_to_date(requirements: str) -> None:
    if _is_up_to_date(requirements):
        return
    lock = os.open(PROJECT, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not _is_up_to_date(requirements):
            _install(requirements)
    finally:
        os.close(lock)


def _is_up_to_date(requirements: str) -> bool:
    return PYTHON.exists() and any(
        _marker(name).is_file() and _marker(name).read_text() == _digest(name)
        for name in {requirements, DEVELOPMENT}
    )


def _marker(requirements: str) -> Path:
    return VENV / f"{requirements}.installed"


def _digest(requirements: str) -> str:
    return hashlib.sha256((PROJECT / requirements).read_bytes()).hexdigest()


def _install(requirements: str) -> None:
    python = str(PYTHON)
    if _is_importable("ensurepip"):
        check: tuple[str, ...] = ("-m", "pip", "--version")
        make: tuple[str, ...] = (sys.executable, "-m", "venv", str(VENV))
        install: tuple[str, ...] = (python, "-m", "pip", "install", "--disable-pip-version-check")
    elif uv := shutil.which("uv"):
        check = ("-c", "")
        make = (uv, "venv", "--python", sys.executable, str(VENV))
        install = (uv, "pip", "install", "--python", python)
    else:
        sys.exit(
            "This Python cannot make environments:"
            " install python3-venv (`apt-get install python3-venv`) or uv, and run this again."
        )
    print(f"Installing {requirements} into {VENV} (this is done once).", file=sys.stderr)
    if not _works(*check):  # Its making was interrupted, or its Python has gone.
        shutil.rmtree(VENV, ignore_errors=True)
        _run(*make)
    _run(*install, "--require-hashes", "-r", str(PROJECT / requirements))
    _marker(requirements).write_text(_digest(requirements))


def _works(*arguments: str) -> bool:
    """Whether the environment's Python runs with these arguments."""
    if not PYTHON.exists():
        return False
    result = subprocess.run([str(PYTHON), *arguments], check=False, capture_output=True)
    return result.returncode == 0


def _run(*command: str) -> None:
    print(f"$ {' '.join(command)}", file=sys.stderr)
    # On stderr, so that a command's own stdout stays its own.
    subprocess.run(command, check=True, stdout=sys.stderr.fileno())
