"""Imports go one way: pipelines, components, model; and only wiring imports kfp."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FORBIDDEN = {
    "components": {"pipelines", "benchmarks", "kubernetes"},
    "model/src/pi_behavior": {
        "pipelines",
        "components",
        "benchmarks",
        "household",
        "kfp",
        "kubernetes",
    },
    "simulator/src/household": {
        "pipelines",
        "components",
        "benchmarks",
        "pi_behavior",
        "kfp",
        "kubernetes",
    },
}
FILES = [(path, folder) for folder in FORBIDDEN for path in sorted((ROOT / folder).rglob("*.py"))]


def _imported(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.partition(".")[0])
    return found


@pytest.mark.parametrize("folder", FORBIDDEN)
def test_imports_go_one_way(folder: str) -> None:
    wrong = {
        str(path.relative_to(ROOT)): found
        for path, parent in FILES
        if parent == folder and (found := _imported(path) & FORBIDDEN[folder])
    }
    assert not wrong


def test_only_component_files_import_kfp() -> None:
    files = sorted((ROOT / "components").rglob("*.py"))
    assert {path.name for path in files if "kfp" in _imported(path)} == {"component.py"}
