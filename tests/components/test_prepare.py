"""The prepare stage: a training copy of a checked dataset, and training on it."""

import dataclasses
import importlib.util
import re
from pathlib import Path

import numpy as np
import pytest

from components.dataset.config import Config as DatasetConfig
from components.dataset.config import Inputs as DatasetInputs
from components.dataset.stage import STAGE as DATASET
from components.demonstrations.repository import version_dataset
from components.errors import UserError
from components.prepare.config import Config, Inputs
from components.prepare.stage import STAGE
from components.statistics.config import Config as StatisticsConfig
from components.statistics.config import Inputs as StatisticsInputs
from components.statistics.stage import STAGE as STATISTICS
from components.store.artifact import Artifact
from components.store.lineage import verify
from components.train.config import Config as TrainConfig
from components.train.config import Inputs as TrainInputs
from components.train.stage import STAGE as TRAIN
from pi_behavior.config import ModelConfig
from pi_behavior.data.training_copy import TrainingCopy

# DVC's dependencies deprecate what DVC still uses
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:dvc")

_writer_path = Path(__file__).parents[1] / "model" / "data" / "dataset_writer.py"
_spec = importlib.util.spec_from_file_location("dataset_writer", _writer_path)
writer = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(writer)

RAW = Config(image_size=56, compress=False)


def dataset(folder: Path, lengths: dict[int, list[int]]) -> Artifact:
    writer.write_dataset(folder / "repository" / "data", lengths, size=56)
    version_dataset(folder / "repository", "data", folder / "remote", "Demonstrations")
    config = DatasetConfig(str(folder / "repository"))
    return DATASET.execute(config, DatasetInputs(), folder / "workspace").artifact


@pytest.fixture(scope="module")
def demonstrations(tmp_path_factory) -> Artifact:
    return dataset(tmp_path_factory.mktemp("prepare"), {0: [45, 40]})


def prepare(config: Config, data: Artifact):
    return STAGE.execute(config, Inputs(data), data.workspace)


def test_training_reads_the_copy_as_it_reads_the_originals(demonstrations) -> None:
    prepared = prepare(RAW, demonstrations).artifact
    assert verify(prepared.path, prepared.workspace)[1] == []
    given = StatisticsConfig(fast_vocabulary=0)
    statistics = STATISTICS.execute(
        given, StatisticsInputs(demonstrations), demonstrations.workspace
    ).artifact
    config = TrainConfig(
        model=dataclasses.replace(ModelConfig.presets["tiny"], depth=1),
        steps=3,
        batch_size=4,
        flow_samples=1,
        log_every=1,
        track=False,
        task_weights=("turning_on_radio=2",),
    )
    lines = []
    for inputs in (TrainInputs(demonstrations, statistics), None):
        inputs = inputs or TrainInputs(demonstrations, statistics, prepared=prepared)
        artifact = TRAIN.execute(config, inputs, demonstrations.workspace).artifact
        lines.append((artifact.path / "metrics.jsonl").read_text())
    assert lines[0] == lines[1]
    assert "input_wait" not in lines[0]
    other = prepare(Config(image_size=32), demonstrations).artifact
    with pytest.raises(UserError, match=r"holds 32-pixel pictures; the network reads 56 pixels"):
        TRAIN.execute(
            config, TrainInputs(demonstrations, statistics, prepared=other), demonstrations.workspace
        )


def test_a_new_revision_links_what_is_known(tmp_path, capsys) -> None:
    first = prepare(RAW, dataset(tmp_path, {0: [40, 35]}))
    assert f"{first.result.metrics['bytes']:,.0f} bytes are new, 0 are linked" in capsys.readouterr().out
    second = prepare(RAW, dataset(tmp_path, {0: [40, 35, 33]}))
    assert second.result.metrics["episodes"] == 3
    new, linked = (
        int(n.replace(",", "")) for n in re.findall(r"[\d,]+(?= (?:bytes )?are)", capsys.readouterr().out)
    )
    assert linked > 2 * new > 0
    copies = [TrainingCopy(one.artifact.path) for one in (first, second)]
    for copy in copies:
        pack, row = copy.locate(copy.episodes[:1])
        np.testing.assert_array_equal(
            copy.array(int(pack[0]), "head")[row[0] : row[0] + 40], copies[0].array(0, "head")[:40]
        )
    assert prepare(RAW, dataset(tmp_path, {0: [40, 35, 33]})).cached


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"task_weights": ("turning_on_radio=0",)}, "a number above 0"),
        ({"task_weights": ("nothing=1",)}, "nothing"),
        ({"together": 3}, "together is 3"),
        ({"held_out": 1.0}, "held_out is 1.0"),
    ],
)
def test_wrong_values_of_training_are_named(values, message) -> None:
    with pytest.raises(ValueError, match=message):
        TrainConfig(**values)
