"""The benchmarks' own environment, `benchmarks/.venv`: this project's packages and its peers'.

Uses nothing but the standard library.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

FOLDER: Final = Path(__file__).resolve().parent
VENV: Final = FOLDER / ".venv"
PYTHON: Final = VENV / "bin" / "python"
_REQUIREMENTS: Final = FOLDER / "requirements.txt"
_MARKER: Final = VENV / "requirements.installed"


def enter() -> None:
    """Go on in that environment, made anew first if requirements.txt has changed.

    Returns in it; elsewhere the process becomes the same command in it. Ends the process with a
    sentence when the environment cannot be made.
    """
    if Path(sys.prefix).resolve() == VENV:
        return
    if not _is_up_to_date():
        try:
            _make()
        except subprocess.CalledProcessError as error:
            sys.exit(f"Could not make benchmarks/.venv: pip ended with {error.returncode}.")
    os.execv(PYTHON, [str(PYTHON), *sys.argv])


def _digest() -> str:
    return hashlib.sha256(_REQUIREMENTS.read_bytes()).hexdigest()


def _is_up_to_date() -> bool:
    return PYTHON.exists() and _MARKER.is_file() and _MARKER.read_text() == _digest()


def _make() -> None:
    if importlib.util.find_spec("ensurepip") is None:
        sys.exit("This Python cannot make environments: apt-get install python3-venv")
    print("Installing benchmarks/requirements.txt into benchmarks/.venv.", file=sys.stderr)
    shutil.rmtree(VENV, ignore_errors=True)
    subprocess.run([sys.executable, "-m", "venv", str(VENV)], check=True)
    pip = [str(PYTHON), "-m", "pip", "install", "-q", "--disable-pip-version-check"]
    subprocess.run([*pip, "--require-hashes", "-r", str(_REQUIREMENTS)], check=True)
    _MARKER.write_text(_digest())
