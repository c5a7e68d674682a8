"""What code a stage runs: the digest of its source, and the commit and image that it came from."""

import hashlib
import importlib.util
import os
import subprocess
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from components.store.artifact import sha256_file
from components.store.lineage import Dependency

_SOURCE_SUFFIXES = {".py", ".json", ".jsonl", ".html", ".css", ".js", ".xml", ".yaml"}


def _package_files(name: str) -> list[Path]:
    spec = importlib.util.find_spec(name)
    if spec is None:
        raise ValueError(f"no package {name!r} to take the code digest of")
    if spec.submodule_search_locations:
        roots = [Path(place) for place in spec.submodule_search_locations]
        return sorted(p for root in roots for p in root.rglob("*") if p.suffix in _SOURCE_SUFFIXES)
    return [Path(str(spec.origin))]


def code_digest(packages: Sequence[str]) -> str:
    """Hex SHA-256 over the source of packages, so that changed code never reuses an old output."""
    total = hashlib.sha256()
    for name in sorted(set(packages)):
        for path in _package_files(name):
            if path.name != "component.py":  # the KFP wiring does not change what a stage makes
                total.update(f"{name}/{path.name} {sha256_file(path)}\n".encode())
    return total.hexdigest()


def software(packages: Sequence[str]) -> list[Dependency]:
    """The code, and where known the commit and the image that it came from."""
    found = [Dependency("source", f"pkg:pypi/b1k@{version('b1k')}", {"sha256": code_digest(packages)})]
    commit = os.environ.get("B1K_GIT_COMMIT") or git_commit()
    if commit:
        found.append(Dependency("commit", "git+file:.", {"gitCommit": commit}))
    image = os.environ.get("B1K_IMAGE_DIGEST")
    if image:
        found.append(Dependency("image", os.environ.get("B1K_IMAGE", "image"), {"sha256": image}))
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
