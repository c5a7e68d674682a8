"""Imports go one way: pipelines, components, model; no stage imports another; nothing goes in circles."""

import ast
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = {
    "components": ROOT,
    "pipelines": ROOT,
    "pi_behavior": ROOT / "model" / "src",
    "household": ROOT / "simulator" / "src",
}
FORBIDDEN = {
    "components": {"pipelines", "benchmarks", "kubernetes", "kfp"},
    "pi_behavior": {"pipelines", "components", "benchmarks", "household", "kfp", "kubernetes"},
    "household": {"pipelines", "components", "benchmarks", "pi_behavior", "kfp", "kubernetes"},
    "pipelines": {"benchmarks"},
}
STAGES = {path.parent.name for path in (ROOT / "components").glob("*/config.py")}


def _module(path: Path, root: Path) -> str:
    return ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__")


MODULES = {
    _module(path, root): path
    for name, root in FOLDERS.items()
    for path in sorted((root / name).rglob("*.py"))
}


def _imports(tree: ast.AST, *, lazy: bool) -> Iterator[str]:
    """Names of imported modules; without `lazy` those alone that importing the module imports."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test) and not lazy:
            continue
        elif lazy or not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield from _imports(node, lazy=lazy)


def _imported(module: str, *, lazy: bool = True) -> set[str]:
    return set(_imports(ast.parse(MODULES[module].read_text()), lazy=lazy))


def _room(module: str) -> str:
    """The package of a module below its top one, such as `components.train`."""
    return ".".join(module.split(".")[:2])


def _users(package: str) -> set[str]:
    """The modules that import a package of others."""
    return {one for one in MODULES if any(name.partition(".")[0] == package for name in _imported(one))}


@pytest.mark.parametrize("folder", FORBIDDEN)
def test_imports_go_one_way(folder: str) -> None:
    for module in MODULES:
        if module.partition(".")[0] == folder:
            wrong = {name.partition(".")[0] for name in _imported(module)} & FORBIDDEN[folder]
            assert not wrong, module


def test_no_stage_imports_another_but_settings_all_declarations() -> None:
    stages = {f"components.{name}" for name in STAGES}
    for module in MODULES:
        if not module.startswith("components."):
            continue
        others = {name for name in _imported(module) if _room(name) in stages - {_room(module)}}
        if _room(module) == "components.results":  # no stage: it shows what stages made, by their own rules
            continue
        assert not any(_room(name) == "components.results" for name in _imported(module)), module
        if _room(module) == "components.settings":
            others = {name for name in others if ".".join(name.split(".")[2:3]) != "config"}
        assert not others, module


def test_kfp_is_imported_by_definitions_and_the_local_engine_alone() -> None:
    assert {_room(module) for module in _users("kfp")} == {"pipelines.definitions", "pipelines.local"}


QUICK = [
    "pipelines.cluster.commands",
    "pipelines.local.containers",
    "pipelines.tools.doctor",
    "pipelines.tools.estimate",
    "pipelines.tools.garbage",
    *(module for module in MODULES if module.startswith("pipelines.definitions.profiles")),
]
"""Modules of commands that compile nothing, and what they read."""


def _reached(module: str) -> set[str]:
    """All that importing a module imports of modules here, and the packages of others."""
    found, left = set[str](), [module]
    while left:
        name = left.pop()
        if name in found:
            continue
        found.add(name)
        if name in MODULES:
            left += [*_imported(name, lazy=False), name.rpartition(".")[0]]
    return {name if name in MODULES else name.partition(".")[0] for name in found}


@pytest.mark.parametrize("module", QUICK)
def test_what_compiles_nothing_does_not_import_kfp(module: str) -> None:
    assert "kfp" not in _reached(module)


def test_the_garbage_collection_does_not_import_kubernetes() -> None:
    assert "kubernetes" not in _reached("pipelines.tools.garbage")
    assert "kubernetes" in _reached("pipelines.cluster.commands"), "it would be found"


def test_kubernetes_is_imported_by_the_cluster_and_the_doctor_alone() -> None:
    others = {module for module in _users("kubernetes") if _room(module) != "pipelines.cluster"}
    assert others <= {"pipelines.tools.doctor"}


def test_nothing_goes_in_circles() -> None:
    graph = {
        module: {name for name in _imported(module, lazy=False) if name in MODULES and name != module}
        for module in MODULES
    }
    TopologicalSorter(graph).prepare()
    rooms: dict[str, set[str]] = {}
    for module in MODULES:
        if module.startswith(("components.", "pipelines.")) and module.count(".") > 1:
            used = {_room(name) for name in graph[module] if name.count(".") > 1}
            rooms.setdefault(_room(module), set()).update(used - {_room(module)})
    TopologicalSorter(rooms).prepare()
