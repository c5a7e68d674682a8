"""The train stage: the FAST loss, and the checkpoint that it starts from."""

import dataclasses
import importlib.util
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from flax import nnx

from components.dataset.stage import STAGE as DATASET
from components.dataset.stage import Config as DatasetConfig
from components.dataset.stage import Inputs as DatasetInputs
from components.dataset.versioning import version_dataset
from components.shared.artifacts import Artifact, hash_files, tree_digest
from components.shared.errors import UserError
from components.shared.lineage import chain, verify
from components.statistics.stage import STAGE as STATISTICS
from components.statistics.stage import Config as StatisticsConfig
from components.statistics.stage import Inputs as StatisticsInputs
from components.train.stage import STAGE, Config, Inputs
from pi_behavior import checkpoint
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


def test_training_starts_from_a_checkpoint_and_records_it(dataset, tmp_path) -> None:
    given = statistics(dataset, 0)
    network = ("depth=1",)
    config = dataclasses.replace(SHORT, network=network, steps=0, keep_initial=True)
    first, _, _ = STAGE.execute(dataclasses.replace(config, seed=5), Inputs(dataset, given), tmp_path / "a")
    start = tmp_path / "start"
    shutil.copytree(first.path / "checkpoint", start)
    shutil.rmtree(start / "statistics")  # as of an imported Pi0.5 base
    config = dataclasses.replace(config, initial_checkpoint=str(start))

    second, _, _ = STAGE.execute(config, Inputs(dataset, given), dataset.workspace)
    for folder in ("initial", "checkpoint"):
        assert _parameters(second, folder) == _parameters(first, "checkpoint")
    assert (second.path / "checkpoint" / "statistics").is_dir()
    (recorded,) = [d for d in next(chain(second)).dependencies if d["name"] == "initial_checkpoint"]
    assert recorded["uri"] == start.as_uri()
    assert recorded["digest"] == {"sha256": tree_digest(hash_files(start))}
    assert STAGE.execute(config, Inputs(dataset, given), dataset.workspace)[2]
    assert verify(second.path)[1] == []

    (start / "checkpoint.json").write_text((start / "checkpoint.json").read_text() + "\n")
    (problem,) = verify(second.path)[1]
    assert problem.path == start
    assert "is not the initial_checkpoint that" in problem.message
    assert not STAGE.execute(config, Inputs(dataset, given), dataset.workspace)[2]
    # a policy given as an artifact comes first
    after = Inputs(dataset, given, initial=first)
    assert STAGE.external(config, after) == ()
    shutil.rmtree(start)
    assert verify(second.path)[1] == []
    with pytest.raises(UserError, match="start is not a policy checkpoint"):
        STAGE.execute(config, Inputs(dataset, given), dataset.workspace)


def test_a_checkpoint_of_another_network_is_the_users_mistake(dataset, tmp_path) -> None:
    given = statistics(dataset, 0)
    config = dataclasses.replace(SHORT, network=("depth=1",), steps=0)
    first, _, _ = STAGE.execute(config, Inputs(dataset, given), tmp_path)
    other = dataclasses.replace(
        config,
        network=("depth=1", "expert_mlp=64", "stage_conditioning=false"),
        initial_checkpoint=str(first.path / "checkpoint"),
    )
    with pytest.raises(UserError) as error:
        STAGE.execute(other, Inputs(dataset, given), tmp_path)
    assert "unknown stage_fusion.gate_task.kernel" in str(error.value)
    assert "expert.layers.mlp.down has the shape (1, 256, 128), expected (1, 64, 128)" in str(error.value)


def _parameters(artifact: Artifact, folder: str) -> dict[str, bytes]:
    model = checkpoint.load(artifact.path / folder).model
    return {k: np.asarray(v).tobytes() for k, v in checkpoint.flat_parameters(nnx.state(model)).items()}
