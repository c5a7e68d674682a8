"""Demonstrations of the household simulator, collected and versioned by the real stage."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from components.collect.config import Config, Inputs
from components.collect.stage import STAGE
from components.errors import UserError
from components.runtime.stage import Made

# DVC's dependencies deprecate what DVC still uses
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:dvc")


def _collect(folder: Path, **values: object) -> Made[Config]:
    config = Config(
        str(folder / "demonstrations"), ("turning_on_radio",), **{"episodes": 1, "image_size": 16, **values}
    )
    return STAGE.execute(config, Inputs(), folder / "workspace")


def _log(repository: Path) -> list[str]:
    command = ["git", "-C", str(repository), "log", "--format=%H %s"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()


def test_it_collects_once_adds_what_is_missing_and_begins_again_after_a_removal(tmp_path: Path) -> None:
    first = _collect(tmp_path)
    commit = first.result.parameters["commit"]
    repository = tmp_path / "demonstrations"
    assert _log(repository)[0] == f"{commit} 1 episodes per task"
    found = json.loads((first.artifact.path / "demonstrations.json").read_text())
    assert (found["tasks"], found["episodes"], found["commit"]) == (1, 1, commit)
    open_to_all = [one for one in tmp_path.rglob("*") if not one.is_symlink() and one.stat().st_mode & 0o002]
    assert open_to_all == []
    again = _collect(tmp_path)
    assert (again.cached, again.result.parameters["commit"]) == (True, commit)

    more = _collect(tmp_path, episodes=2)
    assert more.result.metrics["episodes"] == 2
    assert [line.partition(" ")[2] for line in _log(repository)] == [
        "2 episodes per task",
        "1 episodes per task",
        "Begin",
    ]
    shutil.rmtree(repository)
    anew = _collect(tmp_path, episodes=2)
    assert not anew.cached
    assert anew.result.parameters["commit"] in _log(repository)[0]


def test_mistakes_are_the_users(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="expected a folder to collect"):
        STAGE.execute(Config(), Inputs(), tmp_path)
    with pytest.raises(UserError, match="expected a folder to collect"):
        STAGE.execute(Config("https://git.example.org/r.git"), Inputs(), tmp_path)
    with pytest.raises(ValueError, match="episodes is 0"):
        Config(episodes=0)
    with pytest.raises(UserError, match=r"(?s)cannot be collected.*image-size is 17"):
        _collect(tmp_path, image_size=17)


def test_as_a_task_of_kubeflow_it_hands_on_the_commit(tmp_path: Path) -> None:
    outputs = {
        "outputFile": str(tmp_path / "out.json"),
        "parameters": {"commit": {"outputFile": str(tmp_path / "commit")}},
    }
    parameters = {
        "repository": str(tmp_path / "demonstrations"),
        "tasks": "turning_on_radio",
        "episodes": 1,
        "seed": 0,
        "profile": {"collect": {"image_size": 16}},
        "settings": {},
        "sections": "collect",
    }
    task = {"inputs": {"parameterValues": parameters}, "outputs": outputs}
    command = [sys.executable, "-m", "components.collect", "--executor-input", json.dumps(task)]
    command += ["--workspace", str(tmp_path / "workspace")]
    subprocess.run(command, check=True, env={**os.environ, "MUJOCO_GL": "egl"})
    assert (tmp_path / "commit").read_text() in _log(tmp_path / "demonstrations")[0]
