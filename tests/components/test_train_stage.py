"""The train stage: the FAST loss, and the checkpoint that it starts from."""

import dataclasses
import importlib.util
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from flax import nnx

from components.dataset.config import Config as DatasetConfig
from components.dataset.config import Inputs as DatasetInputs
from components.dataset.stage import STAGE as DATASET
from components.demonstrations.repository import version_dataset
from components.errors import UserError
from components.evaluation.records import Renormalised, TrainRecord
from components.statistics.config import Config as StatisticsConfig
from components.statistics.config import Inputs as StatisticsInputs
from components.statistics.stage import STAGE as STATISTICS
from components.store.artifact import Artifact
from components.store.lineage import chain, verify
from components.store.making import partial_of
from components.store.sums import hash_files, tree_digest
from components.train.config import Config, Inputs
from components.train.multiprocess import Processes
from components.train.stage import STAGE
from components.train.warm_start import continued
from pi_behavior import checkpoint
from pi_behavior.config import ModelConfig
from pi_behavior.data.lerobot import LeRobotDataset
from pi_behavior.data.pipeline import is_held_out
from pi_behavior.families import SIZES, family_of
from pi_behavior.layout import CAMERAS
from pi_behavior.lbm.config import ClipTextConfig, ClipVisionConfig
from pi_behavior.policy.config import PolicyConfig
from pi_behavior.policy.interface import NoiseId, Request
from pi_behavior.statistics import Statistics
from pi_behavior.tensors import flat_parameters

# DVC's dependencies deprecate what DVC still uses
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:dvc")

_writer_path = Path(__file__).parents[1] / "model" / "data" / "dataset_writer.py"
_spec = importlib.util.spec_from_file_location("dataset_writer", _writer_path)
writer = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(writer)

SHALLOW = dataclasses.replace(ModelConfig.presets["tiny"], depth=1)
SHORT = Config(
    model=dataclasses.replace(SHALLOW, fast=True),
    steps=2,
    batch_size=4,
    flow_samples=1,
    warmup_steps=100,
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
    return DATASET.execute(config, DatasetInputs(), folder / "workspace").artifact


def statistics(dataset: Artifact, vocabulary: int) -> Artifact:
    config = StatisticsConfig(fast_vocabulary=vocabulary)
    return STATISTICS.execute(config, StatisticsInputs(dataset), dataset.workspace).artifact


def test_fast_is_trained_where_the_network_has_it(dataset) -> None:
    given = statistics(dataset, 1024)
    artifact = STAGE.execute(SHORT, Inputs(dataset, given), dataset.workspace).artifact
    lines = [json.loads(line) for line in (artifact.path / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2]
    assert all(line["fast_loss"] > 1.0 and line["fast_accuracy"] >= 0.0 for line in lines)
    kept = Statistics.load(artifact.path / "checkpoint" / "statistics").fast
    assert kept is not None
    assert kept == Statistics.load(given.path).fast


def test_losses_on_what_is_held_out_are_measured(dataset) -> None:
    given, episodes = statistics(dataset, 1024), LeRobotDataset(dataset.path / "data").select(())
    shares = (number / 50 for number in range(1, 50))
    share = next(one for one in shares if sum(is_held_out(episode, one) for episode in episodes) == 1)
    config = dataclasses.replace(SHORT, held_out=share, validate_every=2, validation_batches=1)
    artifact = STAGE.execute(config, Inputs(dataset, given), dataset.workspace).artifact
    rows = [json.loads(line) for line in (artifact.path / "metrics.jsonl").read_text().splitlines()]
    assert ["held_out_loss" in row for row in rows] == [False, True]
    assert rows[1]["held_out_fast_loss"] > 1.0


@pytest.mark.parametrize("change", ["log_every", "save_every", "fsdp", "track", "input_workers"])
def test_how_a_training_runs_makes_no_other_artifact(dataset, change) -> None:
    other = dataclasses.replace(SHORT, **{change: not SHORT.track if change == "track" else 2})
    inputs = Inputs(dataset, dataset)
    place = STAGE.place(SHORT, inputs, dataset.workspace)
    assert STAGE.place(other, inputs, dataset.workspace) == place
    assert STAGE.place(dataclasses.replace(SHORT, seed=1), inputs, dataset.workspace) != place


@pytest.mark.parametrize("answers", [False, True], ids=["refused", "silent"])
def test_weights_and_biases_is_offline_where_its_server_cannot_be_reached(dataset, tmp_path, answers) -> None:
    given = statistics(dataset, 0)
    arguments = words(dataset, given, tmp_path, "--config.steps=0", "--config.track")
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes connections, and never says a word
        port = silent.getsockname()[1] if answers else 9
        online = {
            "WANDB_MODE": "online",
            "WANDB_API_KEY": "0" * 40,
            "WANDB_BASE_URL": f"http://127.0.0.1:{port}",
        }
        command = [sys.executable, "-m", "components.train", *arguments]
        answer = subprocess.run(
            command, env={**os.environ, **online}, capture_output=True, text=True, check=False
        )
    assert answer.returncode == 0, answer.stderr
    assert "train: Weights & Biases is offline, which failed: " in answer.stdout
    assert "Traceback" not in answer.stderr
    assert list((tmp_path / "wandb").rglob("*.wandb"))


KILLED = """
import os, signal, sys
from components.train.stage import STAGE

def hook(event, arguments):
    if (event == "open" or event.startswith("os.")) and event != "os.kill" and os.path.isdir(sys.argv[1]):
        os.kill(os.getpid(), signal.SIGKILL)

sys.addaudithook(hook)
STAGE.main(sys.argv[2:])
"""


def test_killed_after_the_final_checkpoint_nothing_is_lost(dataset, tmp_path) -> None:
    inputs = Inputs(dataset, statistics(dataset, 0))
    config = dataclasses.replace(TOGETHER, steps=5, fsdp=1)
    partial = partial_of(STAGE.place(config, inputs, tmp_path / "two"))
    arguments = words(dataset, inputs.statistics, tmp_path / "two", "--config.steps=5", "--config.fsdp=1")
    command = [sys.executable, "-c", KILLED, str(partial / "checkpoint"), *arguments]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    assert (partial / "checkpoint").is_dir()
    assert not (partial / "record.json").exists()

    whole, killed = (STAGE.execute(config, inputs, tmp_path / name) for name in ("one", "two"))
    assert killed.result == whole.result
    assert killed.result.metrics["loss"] > 0
    one, two = whole.artifact, killed.artifact
    assert two.fingerprint == one.fingerprint
    for name in ("metrics.jsonl", "record.json"):
        assert (two.path / name).read_bytes() == (one.path / name).read_bytes()
    assert {path.name for path in two.path.iterdir()} == {path.name for path in one.path.iterdir()}
    assert _parameters(two, "checkpoint") == _parameters(one, "checkpoint")


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
    config = dataclasses.replace(SHORT, model=SHALLOW, steps=0, keep_initial=True)
    seeded = dataclasses.replace(config, seed=5)
    first = STAGE.execute(seeded, Inputs(dataset, given), tmp_path / "a").artifact
    start = tmp_path / "start"
    shutil.copytree(first.path / "checkpoint", start)
    shutil.rmtree(start / "statistics")  # as of an imported Pi0.5 base, or of CLIP
    (start / "statistics").mkdir()
    (start / "statistics" / "origin.json").write_text('{"name": "CLIP", "licence": "mit"}')
    config = dataclasses.replace(config, initial_checkpoint=str(start))

    second = STAGE.execute(config, Inputs(dataset, given), dataset.workspace).artifact
    for folder in ("initial", "checkpoint"):
        assert _parameters(second, folder) == _parameters(first, "checkpoint")
    assert (second.path / "checkpoint" / "statistics").is_dir()
    (recorded,) = [d for d in next(chain(second)).dependencies if d["name"] == "initial_checkpoint"]
    assert recorded["uri"] == start.as_uri()
    assert recorded["digest"] == {"sha256": tree_digest(hash_files(start))}
    assert recorded["annotations"] == {"name": "CLIP", "licence": "mit"}
    assert STAGE.execute(config, Inputs(dataset, given), dataset.workspace).cached
    assert verify(second.path)[1] == []

    (start / "checkpoint.json").write_text((start / "checkpoint.json").read_text() + "\n")
    (problem,) = verify(second.path)[1]
    assert problem.path == start
    assert f"is not what {second.path} recorded" in problem.message
    assert not STAGE.execute(config, Inputs(dataset, given), dataset.workspace).cached
    # a policy given as an artifact comes first
    after = Inputs(dataset, given, initial=first)
    assert STAGE.external(config, after, dataset.workspace) == ()
    shutil.rmtree(start)
    assert verify(second.path)[1] == []
    with pytest.raises(UserError, match="start is not a policy checkpoint"):
        STAGE.execute(config, Inputs(dataset, given), dataset.workspace)


def test_a_checkpoint_of_another_network_is_the_users_mistake(dataset, tmp_path) -> None:
    given = statistics(dataset, 0)
    config = dataclasses.replace(SHORT, model=SHALLOW, steps=0)
    first = STAGE.execute(config, Inputs(dataset, given), tmp_path).artifact
    other = dataclasses.replace(
        config,
        model=dataclasses.replace(SHALLOW, expert_mlp=64, stage_conditioning=False),
        initial_checkpoint=str(first.path / "checkpoint"),
    )
    with pytest.raises(UserError) as error:
        STAGE.execute(other, Inputs(dataset, given), tmp_path)
    assert "unknown stage_fusion.gate_task.kernel" in str(error.value)
    assert "expert.layers.mlp.down has the shape (1, 256, 128), expected (1, 64, 128)" in str(error.value)


def _parameters(artifact: Artifact, folder: str) -> dict[str, bytes]:
    model = checkpoint.load(artifact.path / folder).model
    return {k: np.asarray(v).tobytes() for k, v in flat_parameters(nnx.state(model)).items()}


@pytest.fixture(scope="module")
def champion(dataset) -> Artifact:
    config = dataclasses.replace(SHORT, steps=0)
    return STAGE.execute(config, Inputs(dataset, statistics(dataset, 1024)), dataset.workspace).artifact


@pytest.fixture(scope="module")
def longer(dataset, tmp_path_factory) -> Artifact:
    """New demonstrations."""
    folder = tmp_path_factory.mktemp("longer")
    writer.write_dataset(folder / "repository" / "data", {0: [45, 60], 1: [50]}, size=56, seed=3)
    version_dataset(folder / "repository", "data", folder / "remote", "More demonstrations")
    config = DatasetConfig(str(folder / "repository"))
    return DATASET.execute(config, DatasetInputs(), dataset.workspace).artifact


def test_a_warm_start_keeps_what_the_policys_weights_are_tied_to(dataset, champion, longer) -> None:
    old = Statistics.load(champion.path / "checkpoint" / "statistics")
    given = statistics(longer, 1024)
    new = Statistics.load(given.path)
    assert new.fast != old.fast
    warm = dataclasses.replace(SHORT, steps=0, initial_checkpoint=str(champion.path / "checkpoint"))
    made = STAGE.execute(warm, Inputs(longer, given), longer.workspace)
    tuned = made.artifact
    kept = Statistics.load(tuned.path / "checkpoint" / "statistics")
    assert kept.fast == old.fast
    for name in ("state_mean", "action_step_std", "action_q99", "correlation_cholesky"):
        np.testing.assert_array_equal(getattr(kept, name), getattr(old, name))
    assert set(kept.human) == set(new.human) == {"turning_on_radio", "picking_up_trash"}
    assert kept.human["turning_on_radio"]["length"] == 52.5
    assert kept.closure == new.closure
    assert made.result.metadata["statistics_of"] == "initial"
    assert TrainRecord.load(tuned.path) == TrainRecord("common", (), "initial")
    assert TrainRecord.load(champion.path) == TrainRecord("common", (), "demonstrations")


@pytest.mark.slow
def test_what_a_warm_start_learns_does_not_depend_on_the_new_statistics(dataset, champion, longer) -> None:
    config = dataclasses.replace(SHORT, steps=1)
    one, other = (
        STAGE.execute(config, Inputs(longer, given, initial=champion), longer.workspace).artifact
        for given in (statistics(longer, 1024), statistics(dataset, 1024))
    )
    assert one.path != other.path
    assert _parameters(one, "checkpoint") == _parameters(other, "checkpoint")


def test_a_dimension_that_moves_for_the_first_time_is_normalised_anew(dataset) -> None:
    new = Statistics.load(statistics(dataset, 1024).path)
    std, mean = new.action_step_std.copy(), new.action_step_mean.copy()
    std[:, 9], mean[:, 9] = 0.0, 3.0
    flat, center = new.action_std.copy(), new.action_mean.copy()
    flat[9], flat[10], center[9], center[10] = 0.0, new.action_std[10] / 2, 3.0, 3.0
    old = dataclasses.replace(
        new, action_std=flat, action_mean=center, action_step_std=std, action_step_mean=mean, fast=None
    )
    found, renormalised = continued(old, new)
    assert renormalised == Renormalised((), (9,))
    np.testing.assert_array_equal(found.action_step_std, new.action_step_std)
    np.testing.assert_array_equal(found.action_step_mean, new.action_step_mean)
    assert found.action_mean[9] == new.action_mean[9]
    assert found.action_mean[10] == 3.0
    assert found.fast == new.fast


@contextmanager
def started(folder: Path, *arguments: list[str]) -> Iterator[list[subprocess.Popen[bytes]]]:
    """The stage in processes of one CPU device each, or in one of two devices; they log to a folder."""
    flags = [one for one in os.environ["XLA_FLAGS"].split() if "device_count" not in one]
    environment = {**os.environ, "XLA_FLAGS": " ".join(flags)}
    if len(arguments) == 1:
        environment["XLA_FLAGS"] += " --xla_force_host_platform_device_count=2"
    else:
        with socket.create_server(("localhost", 0)) as free:
            environment["JAX_COORDINATOR_ADDRESS"] = f"localhost:{free.getsockname()[1]}"
        environment["JAX_NUM_PROCESSES"] = str(len(arguments))
    running = []
    for number, words in enumerate(arguments):
        command = [sys.executable, "-m", "components.train", *words]
        with (folder / f"{number}.log").open("w") as log:
            one = {**environment, "JAX_PROCESS_ID": str(number)}
            running.append(subprocess.Popen(command, env=one, stdout=log, stderr=log))
    try:
        yield running
    finally:
        for process in running:
            process.kill()
            process.wait()


def test_processes_are_named_by_the_environment(monkeypatch) -> None:
    alone = Processes()
    alone.join()
    assert alone.leads
    assert alone.count == 1
    monkeypatch.setenv("JAX_COORDINATOR_ADDRESS", "train-0:8476")
    for count, number in (("", "0"), ("2", "x"), ("2", "2")):
        monkeypatch.setenv("JAX_NUM_PROCESSES", count)
        monkeypatch.setenv("JAX_PROCESS_ID", number)
        with pytest.raises(
            UserError, match=f"JAX_NUM_PROCESSES='{count}', JAX_PROCESS_ID='{number}'; expected"
        ):
            Processes().join()


def words(dataset: Artifact, given: Artifact, workspace: Path, *more: str) -> list[str]:
    """Words of the command line for `TOGETHER`."""
    inputs = ["--inputs.dataset", str(dataset.path), "--inputs.statistics", str(given.path)]
    numbers = [
        "--config.steps=20",
        "--config.batch-size=4",
        "--config.flow-samples=1",
        "--config.log-every=1",
        "--config.warmup-steps=100",
    ]
    rest = ["--config.save-every=2", "--config.fsdp=2", "--config.no-augment", "--config.no-track"]
    return ["--workspace", str(workspace), *inputs, "--config.model.depth=1", *numbers, *rest, *more]


TOGETHER = dataclasses.replace(SHORT, model=SHALLOW, steps=20, save_every=2, fsdp=2)


def last_state(final: Path) -> int:
    """The last step whose state is saved as a whole."""
    names = [path.name for path in (partial_of(final) / "state").glob("*")]
    return max((int(name) for name in names if name.isdigit()), default=0)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_two_processes_train_what_one_does_and_continue_together_after_a_crash(dataset, tmp_path) -> None:
    given = statistics(dataset, 0)
    alone, together = (words(dataset, given, tmp_path / name) for name in ("one", "two"))
    log = tmp_path / "0.log"
    with started(tmp_path, alone) as (process,):
        assert process.wait(900) == 0, log.read_text()
    final = STAGE.place(TOGETHER, Inputs(dataset, given), tmp_path / "two")
    with started(tmp_path, together, together) as (first, second):
        while last_state(final) == 0:
            assert first.poll() is None, log.read_text()
            time.sleep(0.1)
        second.kill()
        assert first.wait(900) > 0
        assert not final.exists()
    before = last_state(final)
    with started(tmp_path, together, together) as (first, second):
        while last_state(final) == before:
            assert first.poll() is None, log.read_text()
            time.sleep(0.1)
        second.terminate()  # as when its node is taken away
        assert [first.wait(900), second.wait(900)] == [75, 75], log.read_text()
    with started(tmp_path, together, together) as both:
        assert [process.wait(900) for process in both] == [0, 0], log.read_text()
    assert "process 0 has the artifact" in (tmp_path / "1.log").read_text()

    # what a pipeline's task asks for on a single node is what the two have made
    one, two = (STAGE.execute(TOGETHER, Inputs(dataset, given), tmp_path / name) for name in ("one", "two"))
    assert one.cached
    assert two.cached
    assert [problem for problem in verify(two.artifact.path)[1] if problem.path.is_relative_to(final)] == []
    rows = [
        [json.loads(line) for line in (made.artifact.path / "metrics.jsonl").read_text().splitlines()]
        for made in (one, two)
    ]
    assert [row["step"] for row in rows[1]] == list(range(1, 21))
    for row, same in zip(*rows, strict=True):
        assert same == pytest.approx(row, rel=1e-4)
    weights, same = (
        flat_parameters(nnx.state(checkpoint.load(made.artifact.path / "checkpoint").model))
        for made in (one, two)
    )
    for name, value in weights.items():
        np.testing.assert_allclose(np.asarray(same[name]), np.asarray(value), atol=1e-4, err_msg=name)


@pytest.mark.slow
def test_processes_with_different_arguments_are_refused(dataset, tmp_path) -> None:
    given = statistics(dataset, 0)
    both = [words(dataset, given, tmp_path, f"--config.seed={seed}") for seed in (0, 1)]
    with started(tmp_path, *both) as processes:
        assert [process.wait(300) for process in processes] == [2, 2]
    for number in range(2):
        assert "would make different artifacts" in (tmp_path / f"{number}.log").read_text()
    assert not [path for path in (tmp_path / "artifacts" / "train").iterdir() if not path.suffix]


def test_a_policy_of_the_other_family_is_trained_continued_and_served(dataset, tmp_path) -> None:
    given = statistics(dataset, 0)
    small = dataclasses.replace(
        SIZES["lbm-tiny"],
        vision=ClipVisionConfig(image_size=56, patch=28, width=8, depth=1, heads=2, mlp=8),
        text=ClipTextConfig(vocabulary=700, length=12, width=8, depth=1, heads=2, mlp=8),
        width=16,
        depth=1,
        heads=2,
        time_width=8,
        observation_steps=2,
        horizon=32,
    )
    config = dataclasses.replace(SHORT, model=small)
    artifact = STAGE.execute(config, Inputs(dataset, given), dataset.workspace).artifact
    more = dataclasses.replace(config, name="again", steps=1)
    again = STAGE.execute(more, Inputs(dataset, given, artifact), dataset.workspace).artifact
    predictor = family_of(small).load_predictor(again.path / "checkpoint", PolicyConfig(), (1,), "auto")
    request = Request(
        images={c: np.zeros((56, 56, 3), np.uint8) for c in CAMERAS},
        state=np.zeros(23, np.float32),
        task=0,
        stage=0,
        saved=None,
        noise=NoiseId(0, 0, 0),
    )
    assert np.isfinite(predictor.predict([request])[0].chunk).all()
    with pytest.raises(ValueError, match=r"model.state_dim is 7; training here reads 23"):
        dataclasses.replace(SHORT, model=SIZES["lbm"])
