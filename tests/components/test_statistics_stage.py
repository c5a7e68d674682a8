"""The statistics stage, from the dataset stage's artifact."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest

from components.dataset.stage import STAGE as DATASET
from components.dataset.stage import Config as DatasetConfig
from components.dataset.stage import Inputs as DatasetInputs
from components.dataset.versioning import version_dataset
from components.shared.artifacts import Artifact
from components.shared.errors import UserError
from components.statistics.stage import STAGE, Config, Inputs
from pi_behavior.statistics import Statistics

# DVC's dependencies deprecate what DVC still uses
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:dvc")

_writer_path = Path(__file__).parents[1] / "model" / "data" / "dataset_writer.py"
_spec = importlib.util.spec_from_file_location("dataset_writer", _writer_path)
writer = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(writer)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> Artifact:
    folder = tmp_path_factory.mktemp("statistics")
    writer.write_dataset(folder / "repository" / "data", {0: [60, 45], 1: [50, 20]})
    version_dataset(folder / "repository", "data", folder / "remote", "Demonstrations")
    config = DatasetConfig(str(folder / "repository"))
    return DATASET.execute(config, DatasetInputs(), folder / "workspace")[0]


@pytest.fixture(scope="module")
def artifact(dataset) -> Artifact:
    return STAGE.execute(Config(), Inputs(dataset), dataset.workspace)[0]


def test_statistics_cover_all_whole_chunks(artifact) -> None:
    statistics = Statistics.load(artifact.path)
    assert statistics.num_frames == 175
    assert statistics.num_chunks == 31 + 16 + 21
    assert statistics.per_step_exclude
    assert set(statistics.human) == {"turning_on_radio", "picking_up_trash"}
    assert statistics.human["turning_on_radio"]["length"] == 52.5
    # the writer's right gripper closes in the middle of every episode, the left one never
    assert [stage[1] for stage in statistics.closure["0"]] == [False, False, True, True, True]
    assert not any(stage[0] for stage in statistics.closure["0"])


def test_files_have_the_published_layout_and_the_page_shows_them(artifact) -> None:
    document = json.loads((artifact.path / "norm_stats.json").read_text())
    assert set(document["norm_stats"]) == {"state", "actions"}
    assert np.shape(document["norm_stats"]["actions"]["action_correlation_cholesky"]) == (690, 690)
    page = (artifact.path / "summary.html").read_text()
    assert "turning_on_radio" in page
    assert "data:image/png;base64,iVBORw0KGgo" in page


def test_tasks_and_per_step_statistics_are_choices(dataset) -> None:
    config = Config(tasks=("picking_up_trash",), per_step_exclude=False)
    artifact, _, _ = STAGE.execute(config, Inputs(dataset), dataset.workspace)
    statistics = Statistics.load(artifact.path)
    assert statistics.num_frames == 70
    assert not statistics.per_step_exclude
    assert list(statistics.closure) == ["1"]
    assert STAGE.execute(config, Inputs(dataset), dataset.workspace)[2]


@pytest.mark.parametrize(
    ("task", "message"),
    [("turning_of_radio", "did you mean 'turning_on_radio'"), ("cook_bacon", "no demonstrations of task")],
)
def test_wrong_tasks_are_named(dataset, task, message) -> None:
    with pytest.raises(UserError, match=message):
        STAGE.execute(Config(tasks=(task,)), Inputs(dataset), dataset.workspace)
