"""Retraining at the smallest size, everything real: on no news nothing happens, on news a warm start."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from components.demonstrations.repository import version_dataset
from components.evaluation.champion import challenger_of
from components.evaluation.plan import Plan
from components.store.artifact import Artifact
from pipelines.local.records import load_runs

ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
TASK = "turning_on_radio"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    # DVC's dependencies deprecate what DVC still uses
    pytest.mark.filterwarnings("ignore::DeprecationWarning:dvc"),
]


class Place:
    """A workspace and a repository of demonstrations."""

    def __init__(self, folder: Path) -> None:
        self.workspace = folder / "workspace"
        self.repository = folder / "demonstrations"
        self.output = ""

    def collect(self, episodes: int) -> str:
        """Bring the dataset to a number of demonstrations; returns the commit of the version."""
        command = [sys.executable, "-m", "household.collect", "--output", str(self.repository / "data")]
        command += ["--tasks", TASK, "--episodes", str(episodes), "--workers", "1", "--image-size", "56"]
        subprocess.run(command, check=True, env=ENVIRONMENT, capture_output=True)
        return version_dataset(
            self.repository, "data", self.repository.with_name("remote"), f"{episodes} episodes"
        )

    def retrain(self) -> tuple[float, set[str]]:
        """Run the pipeline; returns seconds and the stages that worked."""
        command = [
            sys.executable,
            "-m",
            "pipelines.cli",
            "run",
            "--pipeline",
            "retrain",
            "--profile",
            "smoke",
        ]
        command += ["--workspace", str(self.workspace), "--set", f"repository={self.repository}"]
        command += [f"tasks={TASK}", "group.minimum=1", "reported_instances=1"]
        began = time.monotonic()
        answer = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, check=False)
        self.output = answer.stdout
        assert answer.returncode == 0, answer.stdout + answer.stderr
        run = load_runs(self.workspace)[-1]
        assert run.status == "succeeded"
        return time.monotonic() - began, {place.split("/")[1] for place in run.outputs.values()}

    def trained(self) -> list[dict[str, Any]]:
        """Lineage of all common policies, oldest first."""
        paths = sorted(self.workspace.glob("artifacts/train/*/lineage.json"), key=lambda p: p.stat().st_mtime)
        builds = [json.loads(path.read_text())["predicate"]["buildDefinition"] for path in paths]
        return [build for build in builds if build["externalParameters"]["name"] == "common"]

    def news(self) -> str:
        """What the news stage said last."""
        return (load_runs(self.workspace)[-1].folder(self.workspace) / "logs" / "news.log").read_text()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """Everything that one test leaves is what the next begins with."""
    return Place(tmp_path_factory.mktemp("retrain"))


def test_the_first_time_everything_is_new_and_training_starts_from_nothing(place: Place) -> None:
    place.collect(2)
    _, stages = place.retrain()
    assert {"news", "dataset", "statistics", "train", "leaderboard", "promote"} <= stages
    assert "no champion in" in place.news()
    assert "training would start from random values" in place.news()
    (build,) = place.trained()
    assert build["externalParameters"]["initial_checkpoint"] == ""


def test_without_news_it_is_green_at_once_and_nothing_is_trained(place: Place) -> None:
    before = set(place.workspace.glob("artifacts/*/*"))
    seconds, stages = place.retrain()
    assert stages == {"settings", "news"}
    assert seconds < 60
    assert "news: no news" in place.output
    made = {path.parent.name for path in set(place.workspace.glob("artifacts/*/*")) - before}
    assert made <= {"settings", "news"}


def test_new_demonstrations_are_trained_on_from_the_champion(place: Place) -> None:
    # two episodes of a policy that learned nothing win no promotion: we make it the champion
    (run,) = [run for run in load_runs(place.workspace) if "promote" in run.outputs]
    board, plan = (Artifact.load(place.workspace / run.outputs[name]) for name in ("leaderboard", "plan-2"))
    folder = place.workspace / "champion"
    champion = challenger_of(board, Plan.load(plan.path), folder, place.workspace)
    champion.replace(None, folder)
    first = place.workspace / champion.checkpoints["common"].uri / "checkpoint"
    assert place.retrain()[1] == {"settings", "news"}

    commit = place.collect(3)
    _, stages = place.retrain()
    assert {"dataset", "statistics", "train", "evaluate", "leaderboard", "promote"} <= stages
    assert f"champion: {first}" in place.news()
    build = place.trained()[-1]
    assert build["externalParameters"]["initial_checkpoint"] == str(first)
    started = [one for one in build["resolvedDependencies"] if one["name"] == "initial_checkpoint"]
    assert started[0]["uri"] == champion.checkpoints["common"].uri, (
        "the lineage goes on to its demonstrations"
    )
    versions = [
        json.loads(path.read_text()) for path in place.workspace.glob("artifacts/dataset/*/version.json")
    ]
    assert {version["rev"]: version["episodes"] for version in versions}[commit] == 3
    decisions = [
        json.loads(path.read_text()) for path in place.workspace.glob("artifacts/promote/*/decision.json")
    ]
    assert any(decision["compared_with"] == board.uri for decision in decisions)


def test_a_challenger_that_lost_is_not_trained_again(place: Place) -> None:
    assert place.retrain()[1] == {"settings", "news"}
