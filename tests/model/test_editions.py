"""Editions of the challenge as data: one file adds one."""

import json
import os
import subprocess
import sys
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from pi_behavior.challenge import EDITIONS, read_editions

FOLDER = Path(str(files("pi_behavior").joinpath("editions")))
KNOWN = sorted(FOLDER.glob("*.json"))


def invented() -> dict[str, Any]:
    """An edition of 2027: two more tasks, a robot that also says its battery's charge, other rules."""
    values = {"battery": [0, 1]}
    for name, part in EDITIONS["2026"].proprioception.values.items():
        values[name] = [part.start + 1, part.stop + 1]
    return {
        "year": 2027,
        "extends": "2026",
        "evaluator": "2026",
        "instances": 20,
        "rollouts": 1,
        "time_limit": 1.25,
        "denominators": {"rules": 20, "repository": 20},
        "dataset_gigabytes": 2000.0,
        "proprioception": {"length": 62, "base_velocity": "robot", "values": values},
        "instructions": {"turning_on_radio": "Switch the radio on."},
        "tasks": [
            {
                "id": name,
                "index": index,
                "stages": stages,
                "mean_duration_s": 300,
                "scene": "house_single_floor",
                "instruction": f"Do {name}.",
            }
            for name, index, stages in (("watering_the_cactus", 100, 10), ("feeding_the_cat", 101, 5))
        ],
    }


def test_a_new_edition_is_one_file(tmp_path: Path) -> None:
    """All that reads the table knows the edition: states, networks, plans, estimates, the command line."""
    (tmp_path / "2027.json").write_text(json.dumps(invented()))
    script = """
import json, numpy as np
from pi_behavior.challenge import EDITIONS, TASKS_BY_INDEX, task
from pi_behavior.layout import state_from_proprioception
from pi_behavior.policy.observation_message import ObservationMessage
from components.plan.config import Config
from components.evaluation.evaluators import find_evaluator
from pipelines.tools.estimate import Estimate, estimate
edition = EDITIONS["2027"]
message = {"r::proprio": np.arange(62.0)[None], "task_id": np.array([[101]])}
read = ObservationMessage.read(message)
print(json.dumps({
    "tasks": edition.tasks, "stages": sum(edition.stage_counts), "limit": edition.time_limit,
    "first": TASKS_BY_INDEX[100].name, "sentences": [edition.instructions[n] for n in
        ("turning_on_radio", "picking_up_trash", "feeding_the_cat")],
    "old": EDITIONS["2026"].instructions["turning_on_radio"],
    "state": state_from_proprioception(np.arange(62.0))[:4].tolist(), "task": read.tasks,
    "frame": read.base_velocity, "plan": Config(edition="2027", tasks=("feeding_the_cat",)).edition,
    "same": find_evaluator("omnigibson", "2027") is find_evaluator("omnigibson", "2026")}))
"""
    environment = {**os.environ, "B1K_EDITIONS": str(tmp_path)}

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *words], env=environment, capture_output=True, text=True, check=True
        )

    assert json.loads(run("-c", script).stdout) == {
        "tasks": 102,
        "stages": 1135,
        "limit": 1.25,
        "first": "watering_the_cactus",
        "sentences": [
            "Switch the radio on.",
            EDITIONS["2026"].instructions["picking_up_trash"],
            "Do feeding_the_cat.",
        ],
        "old": EDITIONS["2026"].instructions["turning_on_radio"],
        "state": [1, 2, 3, 54],
        "task": [101],
        "frame": "robot",
        "plan": "2027",
        "same": True,
    }
    b1k = "from pipelines.cli import main; import sys; sys.argv[0] = 'b1k'; sys.exit(main())"
    shapes = json.loads(run("-c", b1k, "checkpoint", "names", "--size", "small", "--edition", "2027").stdout)
    assert shapes["task_embeddings/embedding"][0] == 102
    estimate = run("-c", b1k, "estimate", "--profile", "h200x8", "--set", "edition=2027").stdout
    assert "2000" in estimate


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"time_limit": 0}, "time_limit is 0"),
        ({"extends": "2024"}, "it extends '2024'; expected an earlier edition: 2025, 2026"),
        ({"instructions": {"x": "y"}}, "there is an instruction for x"),
        ({"tasks": [invented()["tasks"][1]]}, "its tasks are not numbered from 100"),
        ({"tasks": [invented()["tasks"][0] | {"id": "can_meat"}]}, "the task can_meat is in another edition"),
        ({"tasks": [invented()["tasks"][0] | {"stages": 16}]}, "16 stages"),
        ({"proprioception": invented()["proprioception"] | {"length": 61}}, "of 61 values"),
        (
            {"proprioception": {"length": 61, "base_velocity": "robot", "values": {}}},
            "base_qvel has 0",
        ),
        ({"denominators": {"rules": 0}}, "the denominator rules is 0"),
        ({"surprise": 1}, "unknown field"),
    ],
)
def test_a_malformed_edition_is_refused_in_words(tmp_path: Path, change: dict[str, Any], text: str) -> None:
    file = tmp_path / "2027.json"
    file.write_text(json.dumps(invented() | change))
    with pytest.raises(ValueError, match="2027") as error:
        read_editions([*KNOWN, file])
    assert text in str(error.value)


def test_a_length_tells_one_layout(tmp_path: Path) -> None:
    layout = json.loads((FOLDER / "2026.json").read_text())["proprioception"]
    file = tmp_path / "2027.json"
    file.write_text(json.dumps(invented() | {"proprioception": layout | {"base_velocity": "world"}}))
    with pytest.raises(ValueError, match="another layout of 61 values"):
        read_editions([*KNOWN, file])
