"""The statistics stage, from the dataset stage's artifact."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest

from components.dataset.config import Config as DatasetConfig
from components.dataset.config import Inputs as DatasetInputs
from components.dataset.stage import STAGE as DATASET
from components.demonstrations.repository import version_dataset
from components.errors import UserError
from components.statistics.config import Config, Inputs
from components.statistics.stage import STAGE
from components.statistics.tokenizer import ChunkSample, measure
from components.store.artifact import Artifact
from pi_behavior.accumulators import delta_chunks
from pi_behavior.data.lerobot import LeRobotDataset
from pi_behavior.fast import FastTokenizer
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
    return DATASET.execute(config, DatasetInputs(), folder / "workspace").artifact


@pytest.fixture(scope="module")
def artifact(dataset) -> Artifact:
    return STAGE.execute(Config(), Inputs(dataset), dataset.workspace).artifact


def test_statistics_cover_all_whole_chunks(artifact) -> None:
    statistics = Statistics.load(artifact.path)
    assert statistics.num_frames == 175
    assert statistics.num_chunks == 31 + 16 + 21
    assert statistics.normalisation == "report"
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
    config = Config(tasks=("picking_up_trash",), normalisation="per_step")
    artifact = STAGE.execute(config, Inputs(dataset), dataset.workspace).artifact
    statistics = Statistics.load(artifact.path)
    assert statistics.num_frames == 70
    assert statistics.normalisation == "per_step"
    assert list(statistics.closure) == ["1"]
    assert STAGE.execute(config, Inputs(dataset), dataset.workspace).cached


def chunks_of(dataset: Artifact) -> list[np.ndarray]:
    """All whole chunks of the dataset, one array per episode."""
    data = LeRobotDataset(dataset.path / "data")
    return [
        delta_chunks(*data.state_and_actions(e)).reshape(-1, 30, 23).astype(np.float32) for e in data.episodes
    ]


def test_the_tokenizer_is_trained_and_measured_on_held_out_episodes(dataset, artifact) -> None:
    statistics = Statistics.load(artifact.path)
    assert statistics.fast is not None
    assert statistics.fast.vocab_size == 1024
    # of the episodes with whole chunks the first is held out, and so is every tenth after it
    held_out, *training = [statistics.normalise_quantiles(c) for c in chunks_of(dataset) if len(c)]
    assert FastTokenizer.train(np.concatenate(training)) == statistics.fast
    found = measure(statistics.fast, held_out)
    metrics = json.loads((artifact.path / "result.json").read_text())["metrics"]
    assert metrics["fast_chunks"] == found.chunks == 31
    assert metrics["fast_tokens_mean"] == found.tokens_mean < metrics["fast_tokens_p99"]
    assert metrics["fast_compression"] == pytest.approx(660 / found.tokens_mean)
    assert metrics["fast_error"] == found.error
    assert 0.0 <= metrics["fast_truncated"] <= 1.0
    # on what it was trained on, nothing but rounding is lost
    assert 0.0 < measure(statistics.fast, training[0]).error <= 0.05
    page = (artifact.path / "summary.html").read_text()
    assert "FAST tokenizer" in page
    assert f"{found.compression:.1f}" in page


def test_a_sample_is_drawn_evenly_and_the_same_every_time(dataset) -> None:
    data = LeRobotDataset(dataset.path / "data")
    lengths = [e.length for e in data.episodes]
    whole = np.concatenate(chunks_of(dataset))

    def drawn(count: int) -> ChunkSample:
        sample = ChunkSample(lengths, count)
        for number, episode in enumerate(data.episodes):
            sample.update(number, *data.state_and_actions(episode))
        return sample

    np.testing.assert_array_equal(drawn(1000).chunks, whole)
    some = drawn(20)
    np.testing.assert_array_equal(some.chunks, drawn(20).chunks)
    places = [np.flatnonzero((whole == chunk).all(axis=(1, 2))) for chunk in some.chunks]
    assert all(len(place) == 1 for place in places)
    places = np.concatenate(places)
    assert (np.diff(places) > 0).all()
    np.testing.assert_array_equal(some.held_out, places < 31)
    assert not ChunkSample([60]).held_out.any()
    assert len(ChunkSample([20, 29]).chunks) == 0


def test_statistics_without_a_tokenizer_are_a_choice(dataset) -> None:
    artifact = STAGE.execute(Config(fast_vocabulary=0), Inputs(dataset), dataset.workspace).artifact
    assert Statistics.load(artifact.path).fast is None
    assert not (artifact.path / "fast_tokenizer").exists()
    assert "FAST" not in (artifact.path / "summary.html").read_text()
    with pytest.raises(UserError, match="more than 16 tokens"):
        STAGE.execute(Config(fast_vocabulary=16), Inputs(dataset), dataset.workspace)


def test_wrong_tasks_are_named(dataset) -> None:
    with pytest.raises(ValueError, match="did you mean 'turning_on_radio'"):
        Config(tasks=("turning_of_radio",))
    with pytest.raises(UserError, match="no demonstrations of task"):
        STAGE.execute(Config(tasks=("cook_bacon",)), Inputs(dataset), dataset.workspace)
