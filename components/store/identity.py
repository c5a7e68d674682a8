"""What an output depends on: the configuration, the inputs, and the code that runs."""

import ast
import dataclasses
import hashlib
import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from components.store.artifact import Artifact
from components.store.lineage import FINGERPRINT, FOLDER, Dependency
from components.store.sums import sha256_file

_OURS = ("components", "pi_behavior", "household")
_KEEPERS = ("components.runtime.", "components.store.")
_DATA = {".json", ".jsonl", ".html", ".css", ".js", ".xml", ".yaml"}


def relevant(value: Any) -> Any:
    """A configuration as plain values, at no depth with fields that are marked as operational."""
    if dataclasses.is_dataclass(value):
        fields = (f for f in dataclasses.fields(value) if not f.metadata.get("operational"))
        return {f.name: relevant(getattr(value, f.name)) for f in fields}
    if isinstance(value, Mapping):
        return {key: relevant(one) for key, one in value.items()}
    return [relevant(one) for one in value] if isinstance(value, list | tuple) else value


def fingerprint(
    stage: str,
    config: Any,
    inputs: Mapping[str, Sequence[Artifact]],
    external: Sequence[Dependency],
    code: str,
) -> str:
    """Key of a stage's output, 16 hex digits; `external` is what the stage reads that is no input."""
    key = {
        "stage": stage,
        "config": relevant(config),
        "inputs": {name: [artifact.identity for artifact in group] for name, group in inputs.items()},
        "external": {
            one.name: [one.digest, one.annotations.get(FINGERPRINT), one.annotations.get(FOLDER)]
            for one in external
        },
        "code": code,
    }
    return hashlib.sha256(json.dumps(key, sort_keys=True, default=str).encode()).hexdigest()[:16]


@cache
def code_digest(roots: tuple[str, ...]) -> str:
    """Hex SHA-256 over the code that runs.

    That is the syntax trees (without comments and docstrings) of the modules `roots` and of all that they
    import anywhere from our packages and from their own, and the data files beside them. `components.runtime`
    and `components.store` do not count: they run and keep stages, and do not change the result. Nothing is
    imported to find out. Another version of Python may give another digest. ValueError for unknown roots.
    """
    tops = {*_OURS, *(root.partition(".")[0] for root in roots)}
    digests: dict[str, str] = {}
    waiting = list(roots)
    while waiting:
        name = waiting.pop()
        is_keeper = f"{name}.".startswith(_KEEPERS)
        if name in digests or name.partition(".")[0] not in tops or is_keeper:
            continue
        path = _file(name)
        if path is None:
            if name in roots:
                raise ValueError(f"there is no module {name!r} to take the code digest of")
            continue  # a name in a module, which an import statement may also name
        tree = _Running().visit(ast.parse(path.read_bytes()))
        digests[name] = hashlib.sha256(ast.dump(tree).encode()).hexdigest()
        package = name if path.name == "__init__.py" else name.rpartition(".")[0]
        data = [one for one in path.parent.iterdir() if one.suffix in _DATA]
        digests |= {f"{package}/{one.name}": sha256_file(one) for one in data}
        waiting += _imported(tree, package)
        if "." in name:  # the packages that it lies in run too
            waiting.append(name.rpartition(".")[0])
    return hashlib.sha256(json.dumps(digests, sort_keys=True).encode()).hexdigest()


def _file(name: str) -> Path | None:
    """The source of a module or package; None where there is none of this name."""
    loaded = getattr(sys.modules.get(name), "__file__", None)
    if loaded is not None:
        return Path(loaded)
    top, *rest = name.split(".")
    spec = None
    with suppress(ValueError):  # loaded without a specification: a folder of tests
        spec = importlib.util.find_spec(top)  # of a module in a package, it would import the package
    if spec is None or not rest:
        return None if spec is None or spec.origin is None else Path(spec.origin)
    places = [Path(place, *rest) for place in spec.submodule_search_locations or ()]
    files = [file for place in places for file in (place / "__init__.py", place.with_suffix(".py"))]
    return next((file for file in files if file.is_file()), None)


class _Running(ast.NodeTransformer):
    """Removes from a syntax tree what does not run: docstrings, and imports for type checkers."""

    def visit_Expr(self, node: ast.Expr) -> ast.Expr | None:
        is_text = isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        return None if is_text else node

    def visit_If(self, node: ast.If) -> Any:
        self.generic_visit(node)
        name = getattr(node.test, "id", getattr(node.test, "attr", ""))
        return node.orelse if name == "TYPE_CHECKING" else node


def _imported(tree: ast.AST, package: str) -> Iterator[str]:
    """Names that may be modules, of all import statements of a module in a package."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = importlib.util.resolve_name("." * node.level + (node.module or ""), package)
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)


def software(roots: tuple[str, ...]) -> list[Dependency]:
    """The code, and where known the commit, and the image that it came from with its list of packages."""
    found = [Dependency("source", f"pkg:pypi/b1k@{version('b1k')}", {"sha256": code_digest(roots)})]
    commit = os.environ.get("B1K_GIT_COMMIT") or git_commit()
    if commit:
        found.append(Dependency("commit", "git+file:.", {"gitCommit": commit}))
    image = os.environ.get("B1K_IMAGE_DIGEST")
    if image:
        found.append(Dependency("image", os.environ.get("B1K_IMAGE", "image"), {"sha256": image}))
    packages = os.environ.get("B1K_SBOM")
    if packages:
        found.append(Dependency("sbom", f"image:{packages}", {"sha256": sha256_file(Path(packages))}))
    return found


def git_commit() -> str | None:
    """The commit of the checkout that the code runs from; None where it is no checkout."""
    root = Path(__file__).parents[2]
    if not (root / ".git").exists():
        return None
    answer = subprocess.run(
        ["git", "-C", str(root), "rev-parse", "HEAD"], capture_output=True, text=True, check=False
    )
    return answer.stdout.strip() or None
