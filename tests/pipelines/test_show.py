"""`b1k dataset show`: the page about demonstrations."""

import importlib.util
import re
from base64 import b64decode
from pathlib import Path

import pytest

from components.dataset.config import Config, Inputs
from components.dataset.stage import STAGE
from components.demonstrations.repository import version_dataset
from components.errors import UserError
from components.statistics.config import Config as StatisticsConfig
from components.statistics.config import Inputs as StatisticsInputs
from components.statistics.stage import STAGE as STATISTICS
from pi_behavior.data.lerobot import LeRobotDataset
from pi_behavior.data.video import decode
from pipelines.tools.show import Options, run

# DVC's dependencies deprecate what DVC still uses
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:dvc")

ROOT = Path(__file__).parents[2]
_spec = importlib.util.spec_from_file_location("dataset_writer", ROOT / "tests/model/data/dataset_writer.py")
writer = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(writer)


def test_the_page_shows_tasks_pictures_statistics_and_what_is_new(tmp_path) -> None:
    repository, workspace = tmp_path / "repository", tmp_path / "workspace"
    writer.write_dataset(repository / "data", {0: [45]})
    first = version_dataset(repository, "data", tmp_path / "remote", "One task")
    writer.write_dataset(repository / "data", {0: [45], 1: [90, 40]})
    LeRobotDataset(repository / "data").data_path(LeRobotDataset(repository / "data").episodes[2]).unlink()
    version_dataset(repository, "data", tmp_path / "remote", "Two tasks")
    data = STAGE.execute(Config(str(repository), quarantine=True), Inputs(), workspace).artifact
    given = StatisticsConfig(fast_vocabulary=0)
    statistics = STATISTICS.execute(given, StatisticsInputs(data), workspace).artifact
    output = tmp_path / "page.html"
    assert run(Options(data.path, statistics.path, first, seconds=1.0, output=output)) == 0
    text = output.read_text()
    for expected in ("picking_up_trash", "Left out", "10020", "correlation matrix", "Closed grippers"):
        assert expected in text
    assert "<td>picking_up_trash</td><td>1</td><td>0</td><td>0</td>" in text  # a new table
    assert "standard deviation by step" in text
    assert len(re.findall("data:image/jpeg", text)) == 2 * 3 * 3
    clip = tmp_path / "clip.mp4"
    clip.write_bytes(b64decode(re.search(r'data:video/mp4;base64,([^"]+)', text)[1]))
    assert decode(clip).shape == (10, 160, 160, 3)
    with pytest.raises(UserError, match="of the stage statistics; expected one of dataset"):
        run(Options(statistics.path))
