"""What the documents say is there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
from django.core.management import get_commands

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
DOCUMENTS = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]


def settings_read() -> set[str]:
    """The names that hello_project/settings.py asks its environment for."""
    tree = ast.parse((ROOT / "hello_project" / "settings.py").read_text())
    return {
        node.args[0].value
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and isinstance(node.func.value, ast.Name)
        and node.func.value.id == "environment"
        and isinstance(node.args[0], ast.Constant)
        and isinstance(node.args[0].value, str)
    }


def test_the_readme_lists_every_setting_and_no_other() -> None:
    table = README.partition("## Settings")[2].partition("\n## ")[0]
    first_cells = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    listed = set(re.findall(r"`([A-Z_]+)`", " ".join(first_cells)))
    assert listed == settings_read()


def test_the_tests_take_no_setting_from_the_developers_environment() -> None:
    ours = (ROOT / "tests" / "settings.py").read_text()
    assert {name for name in settings_read() if not re.search(rf"\b{name}\b", ours)} == set()


def test_the_readmes_commands_exist() -> None:
    named = set(re.findall(r"manage\.py ([a-z_]+)", README))
    assert len(named) > 5
    assert named <= set(get_commands())


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_link_within_the_project_leads_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", document.read_text()):
        assert (document.parent / target).exists(), target


def test_every_program_that_the_readme_names_is_there() -> None:
    named = set(re.findall(r"(?:python|bash) ([a-z./_]+)", README))
    assert ".ci/run" in named
    assert "benchmarks/script_cost.py" in named
    for name in named:
        assert (ROOT / name).is_file(), name
