from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
STRANGERS = {
    "apikeys": {"throttling", "hello_project"},
    "throttling": {"apikeys", "hello_project"},
}


@pytest.mark.parametrize("package", STRANGERS)
def test_each_app_can_be_lifted_into_another_project_alone(package: str) -> None:
    sources = list((ROOT / package).rglob("*.py"))
    assert len(sources) > 5
    for source in sources:
        imported = {name.split(".")[0] for name in imports(source)}
        assert not imported & STRANGERS[package], source


def imports(source: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(source.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(node.module or "")
    return found
