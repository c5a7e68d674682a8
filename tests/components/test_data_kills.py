"""Data stages that are killed at any moment and started again come to the same results."""

import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from components.demonstrations.repository import version_dataset

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:dvc")

_spec = importlib.util.spec_from_file_location("dataset_writer", ROOT / "tests/model/data/dataset_writer.py")
writer = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(writer)

KILLS = 20
STAGES = """
import json, sys
from pathlib import Path
from components.dataset.config import Config, Inputs
from components.dataset.stage import STAGE
from components.prepare.config import Config as PrepareConfig, Inputs as PrepareInputs
from components.prepare.stage import STAGE as PREPARE
from components.statistics.config import Config as StatisticsConfig, Inputs as StatisticsInputs
from components.statistics.stage import STAGE as STATISTICS

if __name__ == "__main__":
    print("begun", flush=True)
    repository, workspace = sys.argv[1], Path(sys.argv[2])
    made = [STAGE.execute(Config(repository, processes=2), Inputs(), workspace).artifact]
    config = PrepareConfig(image_size=64, processes=2)
    made.append(PREPARE.execute(config, PrepareInputs(made[0]), workspace).artifact)
    config = StatisticsConfig(fast_vocabulary=0, processes=2)
    made.append(STATISTICS.execute(config, StatisticsInputs(made[0]), workspace).artifact)
    (workspace / "made.json").write_text(json.dumps([one.digest for one in made]))
"""


def start(script: Path, repository: Path, workspace: Path) -> subprocess.Popen:
    process = subprocess.Popen(
        [sys.executable, script, repository, workspace],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    while process.stdout.readline() != b"begun\n":
        assert process.poll() is None
    return process


@pytest.mark.slow
def test_killed_twenty_times_the_results_are_the_same(tmp_path) -> None:
    repository, script = tmp_path / "repository", tmp_path / "stages.py"
    script.write_text(STAGES)
    # more frames than are checked without processes
    writer.write_dataset(repository / "data", {0: [800, 700], 1: [900, 750]}, size=64)
    version_dataset(repository, "data", tmp_path / "remote", "Demonstrations")
    shutil.rmtree(repository / ".dvc" / "cache")
    begun = time.monotonic()
    whole = start(script, repository, tmp_path / "whole")
    whole.communicate()
    assert whole.returncode == 0
    duration = time.monotonic() - begun
    expected = json.loads((tmp_path / "whole/made.json").read_text())
    rng, kills, number, stages = np.random.default_rng(0), 0, 0, set()
    while kills < KILLS:
        number += 1
        workspace = tmp_path / f"killed{number}"
        while not (workspace / "made.json").exists():
            process = start(script, repository, workspace)
            try:
                process.communicate(timeout=duration * rng.uniform(0.05, 0.5))
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.communicate()
                kills += 1
                stages |= {p.parent.name for p in workspace.glob("artifacts/*/*.partial")}
            else:
                assert process.returncode == 0
        assert json.loads((workspace / "made.json").read_text()) == expected
    print(f"{kills} kills over {number} runs, in {sorted(stages)}")
    assert {"dataset", "prepare"} <= stages
