"""`dvc repro` runs the data stages in a clone whose workspace has demonstrations."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from components.demonstrations.repository import version_dataset

ROOT = Path(__file__).parents[2]
# DVC's dependencies deprecate what DVC still uses
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:dvc")

_spec = importlib.util.spec_from_file_location("dataset_writer", ROOT / "tests/model/data/dataset_writer.py")
writer = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(writer)


def repro(clone: Path) -> dict[str, Path]:
    """Run it; returns the folders of the artifacts by stage."""
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "DVC_SITE_CACHE_DIR": str(clone / ".dvc" / "tmp"),
    }
    done = subprocess.run(
        ["dvc", "repro"], cwd=clone, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    records = {path.parent.name: path for path in clone.glob("workspace/records/*/artifact.json")}
    return {stage: Path(json.loads(path.read_text())["uri"]) for stage, path in records.items()}


def test_dvc_repro_makes_the_artifacts_of_the_present_version(tmp_path) -> None:
    clone, remote = tmp_path / "clone", tmp_path / "remote"
    shutil.copytree(ROOT / ".dvc", clone / ".dvc", ignore=shutil.ignore_patterns("tmp", "cache"))
    for name in ("dvc.yaml", "params.yaml", ".gitignore"):
        shutil.copy(ROOT / name, clone)
    subprocess.run(["git", "init", "--quiet", clone], check=True)
    demonstrations = clone / "workspace" / "demonstrations"
    writer.write_dataset(demonstrations / "data", {0: [45, 40]})
    version_dataset(demonstrations, "data", remote, "Two episodes")
    first = repro(clone)
    assert set(first) == {"dataset", "prepare", "statistics"}
    assert (first["statistics"] / "norm_stats.json").is_file()
    assert repro(clone) == first

    (demonstrations / "data" / "notes.txt").write_text("new")
    version_dataset(demonstrations, "data", remote, "Notes")
    second = repro(clone)
    assert not set(first.values()) & set(second.values())
    untracked = ["git", "-C", clone, "ls-files", "--others", "--exclude-standard", "workspace"]
    assert subprocess.run(untracked, capture_output=True, text=True, check=True).stdout == ""
