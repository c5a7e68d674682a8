"""The statistics stage, from the dataset stage's artifact."""

import importlib.util
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from components.dataset.config import Config as DatasetConfig
from components.dataset.config import Inputs as DatasetInputs
from components.dataset.stage import STAGE as DATASET
from components.demonstrations.repository import version_dataset
from components.errors import UserError
from components.statistics import reading
from components.statistics.config import Config, Inputs
from components.statistics.reading import Cache, Sums, read_all
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
    data, sample = LeRobotDataset(dataset.path / "data"), ChunkSample()
    for e in data.episodes:
        sample.update(e.index, *data.state_and_actions(e))
    assert len(sample.chunks) == 68
    # whole demonstrations are held out, by a hash of their numbers
    held_out, training = (
        statistics.normalise_quantiles(sample.chunks[of]) for of in (sample.held_out, ~sample.held_out)
    )
    assert len(held_out) in (31, 16, 21)
    assert FastTokenizer.train(training) == statistics.fast
    found = measure(statistics.fast, held_out)
    metrics = json.loads((artifact.path / "result.json").read_text())["metrics"]
    assert metrics["fast_chunks"] == found.chunks == len(held_out)
    assert metrics["fast_tokens_mean"] == found.tokens_mean < metrics["fast_tokens_p99"]
    assert metrics["fast_compression"] == pytest.approx(660 / found.tokens_mean)
    assert metrics["fast_error"] == found.error
    assert 0.0 <= metrics["fast_truncated"] <= 1.0
    # on what it was trained on, nothing but rounding is lost
    assert 0.0 < measure(statistics.fast, training).error <= 0.05
    page = (artifact.path / "summary.html").read_text()
    assert "FAST tokenizer" in page
    assert f"{found.compression:.1f}" in page


def test_a_sample_is_drawn_evenly_and_the_same_in_any_order(dataset) -> None:
    data = LeRobotDataset(dataset.path / "data")
    whole = np.concatenate(chunks_of(dataset))

    def drawn(count: int, order: list[int]) -> ChunkSample:
        parts = [ChunkSample(count) for _ in range(2)]
        for n in order:
            parts[n % 2].update(n, *data.state_and_actions(data.episodes[n]))
        parts[1].merge(parts[0])
        return parts[1]

    numbers = list(range(len(data.episodes)))
    everything = drawn(1000, numbers).chunks
    assert sorted(c.tobytes() for c in everything) == sorted(c.tobytes() for c in whole)
    some, again = drawn(20, numbers), drawn(20, numbers[::-1])
    np.testing.assert_array_equal(some.chunks, again.chunks)
    np.testing.assert_array_equal(some.chunks, everything[:20])
    assert 0 < some.held_out.sum() < 20

    state, actions = np.zeros((2, 6000, 23), np.float32)
    actions[:, 0] = np.arange(6000)
    spread = ChunkSample(1000)
    spread.update(7, state, actions)
    found = np.sort(spread.chunks[:, 0, 0])
    assert len(np.unique(found)) == 1000
    assert abs(found.mean() - 2985) < 200
    assert not spread.held_out.any()
    short = ChunkSample()
    short.update(0, state[:20], actions[:20])
    assert len(short.chunks) == 0


def test_a_new_revision_reads_what_is_new_and_any_processes_give_the_same(dataset, monkeypatch) -> None:
    workspace = dataset.workspace / "again"
    shutil.copytree(dataset.workspace / "artifacts" / "dataset", workspace / "artifacts" / "dataset")
    same = Artifact.load(workspace / dataset.uri)
    alone = STAGE.execute(Config(processes=1), Inputs(dataset), dataset.workspace).artifact
    two = STAGE.execute(Config(processes=2), Inputs(same), workspace).artifact
    assert alone.digest == two.digest
    part = Cache(workspace / "statistics", "other code")
    data = LeRobotDataset(same.path / "data")
    keys = {e: str(e.index) for e in data.episodes}
    read: list[int] = []
    monkeypatch.setattr(reading, "read_part", _counting(read, reading.read_part))

    def sums(episodes: dict) -> Sums:
        return read_all(data, episodes, part, absolute=False, processes=1, on_frames=lambda done, total: None)

    first = next(iter(keys))
    sums({first: keys[first]})
    whole = sums(keys)
    assert sorted(read) == sorted(e.index for e in keys)
    assert sums(keys).episodes == whole.episodes == frozenset(keys.values())
    assert len(read) == len(keys)
    # a demonstration whose files changed is not taken from what is kept
    sums({**keys, first: "changed"})
    assert first.index in read[len(keys) :]


def _counting(read: list[int], inner):
    def counted(root, episodes, **options):
        read.extend(e.index for e in episodes)
        return inner(root, episodes, **options)

    return counted


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


def test_stages_from_skills_are_recorded_and_decide_the_closure_table(tmp_path) -> None:
    data = writer.write_dataset(tmp_path / "repository" / "data", {0: [60, 45]})
    version_dataset(tmp_path / "repository", "data", tmp_path / "remote", "Demonstrations")

    def artifact_of() -> Artifact:
        config = DatasetConfig(str(tmp_path / "repository"))
        return DATASET.execute(config, DatasetInputs(), tmp_path / "workspace").artifact

    plain = artifact_of()
    with pytest.raises(UserError, match="none of the 2 demonstrations has annotated skills"):
        STAGE.execute(Config(stages="skills"), Inputs(plain), plain.workspace)
    folder = data / "annotations" / "task-0000"
    folder.mkdir(parents=True)
    for episode in LeRobotDataset(data).episodes:
        text = json.dumps({"skill_annotation": [{"frame_duration": [0, episode.length]}]})
        (folder / f"episode_{episode.index:08d}.json").write_text(text)
    version_dataset(tmp_path / "repository", "data", tmp_path / "remote", "Annotations")
    annotated = artifact_of()
    found = {
        kind: Statistics.load(
            STAGE.execute(Config(stages=kind), Inputs(annotated), plain.workspace).artifact.path
        )
        for kind in ("skills", "equal")
    }
    assert {kind: statistics.stages for kind, statistics in found.items()} == {k: k for k in found}
    # a single skill: everything is in the first stage
    tables = {kind: np.array(statistics.closure["0"]) for kind, statistics in found.items()}
    assert not tables["skills"][1:].any()
    np.testing.assert_array_equal(tables["skills"][0], tables["equal"].any(axis=0))
    np.testing.assert_array_equal(found["skills"].action_mean, found["equal"].action_mean)
