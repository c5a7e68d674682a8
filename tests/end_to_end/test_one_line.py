"""One line adds a parameter: it is in the help, the pipelines, the checks, the stage and the submission."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PLACES = {
    "plan": ("model/src/pi_behavior/policy/config.py", "    num_steps: int = 20\n", "plan.policy.patience"),
    "train": ("components/train/config.py", "    tasks: tuple[str, ...] = ()\n", "train.patience"),
}
LINE = '    patience: int = 7; "Calls to wait."\n'
PROGRAM = """
import sys
from pathlib import Path
from components.evaluation.serving import server_options
from pi_behavior.policy.config import PolicyConfig
print(*server_options("M", "H", 1, PolicyConfig(patience=9)))
"""


@pytest.fixture(params=PLACES)
def changed(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, str, dict[str, str]]:
    """A copy of the tree with one more line; returns the stage, the field's name, and the environment."""
    file, before, name = PLACES[request.param]
    for folder in ("components", "pipelines", "model/src", "simulator/src"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    path = tmp_path / file
    text = path.read_text()
    assert text.count(before) == 1
    path.write_text(text.replace(before, LINE + before))
    places = [str(tmp_path / folder) for folder in (".", "model/src", "simulator/src")]
    return request.param, name, {**os.environ, "PYTHONPATH": os.pathsep.join(places)}


def _run(environment: dict[str, str], *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-P", *words]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_one_line_is_enough(changed: tuple[str, str, dict[str, str]], tmp_path: Path) -> None:
    stage, name, environment = changed
    option = f"--config.{name.partition('.')[2]}"
    shown = _run(environment, "-m", "pipelines.cli", stage, "--help").stdout
    assert re.search(rf"{option} INT\W+Calls to wait. \(default: 7\)", shown)

    package = tmp_path / "pipeline.yaml"
    words = ("-m", "pipelines.cli", "pipeline", "compile", "--profile", "laptop", "--output", str(package))
    assert _run(environment, *words).returncode == 0
    assert f"{name} = 7: Calls to wait." in package.read_text().replace("\n", " ").replace("  ", "")

    words = ("-m", "pipelines.cli", "run", "--workspace", str(tmp_path / "w"), "--set", "repository=/r")
    refused = _run(environment, *words, "patience=long")
    assert refused.returncode == 2
    assert "patience is 'long'; expected a whole number" in refused.stderr

    if stage == "plan":
        assert "--policy.patience 9" in _run(environment, "-c", PROGRAM).stdout
