"""The train stage with the FAST loss, from the artifacts of the stages before it."""

import importlib.util
import json
from pathlib import Path

import pytest

from components.dataset.stage import STAGE as DATASET
from components.dataset.stage import Config as DatasetConfig
from components.dataset.stage import Inputs as DatasetInputs
from components.dataset.versioning import version_dataset
from components.shared.artifacts import Artifact
from components.shared.errors import UserError
from components.statistics.stage import STAGE as STATISTICS
from components.statistics.stage import Config as StatisticsConfig
from components.statistics.stage import Inputs as StatisticsInputs
from components.train.stage import STAGE, Config, Inputs
from pi_behavior.statistics import Statistics

# DVC's dependencies deprecate what DVC still uses
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:dvc")

_writer_path = Path(__file__).parents[1] / "model" / "data" / "dataset_writer.py"
_spec = importlib.util.spec_from_file_location("dataset_writer", _writer_path)
writer = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(writer)

SHORT = Config(
    network=("fast=true", "depth=1"),
    steps=2,
    batch_size=4,
    flow_samples=1,
    augment=False,
    log_every=1,
    track=False,
)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> Artifact:
    folder = tmp_path_factory.mktemp("train")
    writer.write_dataset(folder / "repository" / "data", {0: [45, 40]}, size=56)
    version_dataset(folder / "repository", "data", folder / "remote", "Demonstrations")
    config = DatasetConfig(str(folder / "repository"))
    return DATASET.execute(config, DatasetInputs(), folder / "workspace")[0]


def statistics(dataset: Artifact, vocabulary: int) -> Artifact:
    config = StatisticsConfig(fast_vocabulary=vocabulary)
    return STATISTICS.execute(config, StatisticsInputs(dataset), dataset.workspace)[0]


def test_fast_is_trained_where_the_network_has_it(dataset) -> None:
    given = statistics(dataset, 1024)
    artifact, _, _ = STAGE.execute(SHORT, Inputs(dataset, given), dataset.workspace)
    lines = [json.loads(line) for line in (artifact.path / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2]
    assert all(line["fast_loss"] > 1.0 and line["fast_accuracy"] >= 0.0 for line in lines)
    kept = Statistics.load(artifact.path / "checkpoint" / "statistics").fast
    assert kept is not None
    assert kept == Statistics.load(given.path).fast


@pytest.mark.parametrize(
    ("vocabulary", "message"),
    [
        (0, "needs a tokenizer of at most 1024; the statistics hold none.*--config.fast-vocabulary 1024"),
        (2000, "the statistics hold one of 2000 tokens"),
    ],
)
def test_statistics_without_a_fitting_tokenizer_are_refused(dataset, vocabulary, message) -> None:
    with pytest.raises(UserError, match=message):
        STAGE.execute(SHORT, Inputs(dataset, statistics(dataset, vocabulary)), dataset.workspace)
