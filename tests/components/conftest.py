"""Artifacts for the tests of planning and scoring, made by real stages in a temporary workspace."""

import dataclasses
import json
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
import pytest

from components.evaluation import records
from components.evaluation.evaluators import find_evaluator
from components.evaluation.plan import Plan
from components.evaluation.rollouts import (
    ROLLOUTS,
    Distances,
    Outcome,
    Rollout,
    RolloutKey,
    excerpt_of,
    save,
)
from components.evaluation.traces import Trace
from components.evaluation.trial import Trial
from components.runtime.declaration import Declaration
from components.runtime.stage import Result, Stage
from components.store.artifact import Artifact
from components.store.making import exclusive
from pi_behavior.policy.config import PolicyConfig

MLFLOW = "3.17.2"
UNREACHABLE = ("Failed to establish a new connection", "Connection refused", "Name or service not known")


@pytest.fixture(scope="session")
def mlflow(pytestconfig, tmp_path_factory):
    """Address of a server; its environment is kept for the next run."""
    folder = pytestconfig.rootpath / ".pytest_cache" / f"mlflow-{MLFLOW}"
    python = folder / "bin" / "python"
    with exclusive(folder.with_suffix(".lock"), "another process installs MLflow"):
        _install_mlflow(folder, python)
    place = tmp_path_factory.mktemp("mlflow")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    options = ["--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    options += ["--backend-store-uri", f"sqlite:///{place}/mlflow.db"]
    server = [python, "-m", "mlflow", "server", *options, "--default-artifact-root", str(place / "artifacts")]
    with (
        (place / "log").open("w") as log,
        subprocess.Popen(server, cwd=place, stdout=log, stderr=log) as process,
    ):
        try:
            deadline = time.monotonic() + 300
            while not _answers(f"{address}/health"):
                assert process.poll() is None, (place / "log").read_text()
                assert time.monotonic() < deadline, (place / "log").read_text()
                time.sleep(0.5)
            yield address
        finally:
            process.terminate()


def _answers(url):
    try:
        with urllib.request.urlopen(url, timeout=5):
            return True
    except OSError:
        return False


def _install_mlflow(folder: Path, python: Path) -> None:
    if (folder / "complete").exists():
        return
    shutil.rmtree(folder, ignore_errors=True)
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    install = [python, "-m", "pip", "install", "--quiet", f"mlflow=={MLFLOW}"]
    installed = subprocess.run(install, capture_output=True, text=True, check=False)
    if installed.returncode and any(sign in installed.stderr for sign in UNREACHABLE):
        pytest.skip(f"the package index cannot be reached: {installed.stderr.splitlines()[-1]}")
    assert installed.returncode == 0, installed.stderr
    (folder / "complete").touch()


def as_of_2025(outcome: str) -> str:
    """The same as the 2025 evaluator writes it: without task, ids, steps and success."""
    return json.dumps(dict(list(json.loads(outcome).items())[5:]))


def outcome_json(task: str, instance: int, rollout: int, q: float, steps: int = 300) -> str:
    """A rollout's JSON as the 2026 evaluator writes it; the ways differ from instance to instance."""
    ways = {"base": 2.0 + instance / 1000, "left": 1.5 + instance / 900, "right": 1.2 + instance / 800}
    return json.dumps(
        {
            "task": task,
            "instance_id": instance,
            "rollout_id": rollout,
            "steps": steps,
            "success": q == 1.0,
            "agent_distance": ways,
            "normalized_agent_distance": {part: 3.0 / way for part, way in ways.items()},
            "q_score": {"final": q},
            "time": {"simulator_steps": steps, "simulator_time": steps / 30, "normalized_time": 250 / steps},
        }
    )


def write_video(path: Path, shade: int, frames: int = 12, size: tuple[int, int] = (672, 448)) -> None:
    """A small H.264 video."""
    path.parent.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(shade)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=30, options={"preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        coarse = random.integers(40, 220, (7, 7, 3), dtype=np.uint8)
        for i in range(frames):
            image = np.kron(np.roll(coarse, i // 3, 1), np.ones((size[1] // 7, size[0] // 7, 1), np.uint8))
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(image), "rgb24")))
        container.mux(stream.encode(None))


@dataclass(frozen=True)
class NoInputs:
    """No inputs."""


@dataclass(frozen=True)
class TrainConfig:
    """Stands for a training run."""

    name: str = "common"
    """Name."""
    tasks: tuple[str, ...] = ()
    """Tasks."""
    seed: str = ""
    """Distinguishes trainings."""


@dataclass(frozen=True)
class WorkerConfig:
    """Stands for an evaluation."""

    seed: str = ""
    """Distinguishes evaluations."""


@dataclass(frozen=True)
class WorkerInputs:
    """The plan."""

    plan: Artifact
    """Plan."""


class Factory:
    """Makes artifacts in a workspace."""

    human = {"turning_on_radio": 300.0, "picking_up_trash": 600.0}  # noqa: RUF012

    def __init__(self, workspace: Path) -> None:
        self.workspace = workspace
        self.film: Callable[[Path, int], None] = write_video
        self.weights = "first"
        """Content of the checkpoints to make, which their fingerprint does not know."""

    def model(self, name: str, tasks: tuple[str, ...], initial: bool = True, seed: str = "") -> Artifact:
        """A train artifact without parameters, which planning and scoring do not read."""

        def run(config, inputs, work):
            statistics = work.path / "checkpoint" / "statistics"
            statistics.mkdir(parents=True)
            rows = {task: {"length": length} for task, length in self.human.items()}
            (statistics / "human.json").write_text(json.dumps(rows))
            if initial:
                (work.path / "initial").mkdir()
                (work.path / "initial" / "checkpoint.json").write_text("{}")
            (work.path / "checkpoint" / "weights").write_text(self.weights)
            record = records.TrainRecord(name, tasks, "demonstrations")
            records.write(work.path / records.TRAIN_RECORD, record)
            random = np.random.default_rng(len(name))
            with (work.path / "metrics.jsonl").open("w") as file:
                for step in range(20, 2000, 20):
                    loss = 0.03 + np.exp(-step / 300) * (1 + 0.1 * random.normal())
                    accuracy = 1 - np.exp(-step / 200)
                    row = {"step": step, "loss": float(loss), "stage_accuracy": float(accuracy)}
                    file.write(json.dumps(row) + "\n")
            return Result(metadata={"name": name})

        stage = Stage(Declaration("train", TrainConfig, NoInputs), run)
        return stage.execute(TrainConfig(name, tasks, seed), NoInputs(), self.workspace).artifact

    def retrained(self, model: Artifact, tasks: tuple[str, ...], seed: str = "") -> Artifact:
        """The policy `common` at the same place with other weights."""
        shutil.rmtree(model.path)
        self.weights = "other"
        other = self.model("common", tasks, seed=seed)
        assert (other.path, other.digest == model.digest) == (model.path, False)
        return other

    def evaluations(
        self,
        plan: Artifact,
        q: Callable[[RolloutKey], float | None],
        *,
        seed: str = "",
        videos: bool = False,
        trace: Callable[[RolloutKey], Trace] | None = None,
        log: Callable[[RolloutKey], str] | None = None,
    ) -> tuple[Artifact, ...]:
        """What workers leave behind when each rollout scores `q`; None is one that never finished."""
        content = Plan.load(plan.path)
        evaluator = find_evaluator(content.evaluator, content.edition)

        def run(config, inputs, work):
            rollouts = []
            for job in content.jobs:
                folder = f"rollouts/{job.policy.replace(':', '-')}/{job.split}"
                ids = evaluator.instance_ids(job.task, job.split, job.instances)
                for index, instance in zip(job.instances, ids, strict=True):
                    for number in range(content.rollouts):
                        key = RolloutKey(job.policy, job.split, job.task, index, number)
                        stem = f"{job.task}_{instance}_{number}"
                        score = q(key)
                        name = outcome = video = course = None
                        if score is not None:
                            name = f"{folder}/{evaluator.results}/{stem}.json"
                            path = work.path / name
                            path.parent.mkdir(parents=True, exist_ok=True)
                            text = outcome_json(job.task, instance, number, score)
                            path.write_text(as_of_2025(text) if content.edition == "2025" else text)
                            outcome = Outcome.read(path, job.task, instance, number)
                            if videos and index in job.videos:
                                video = f"{folder}/videos/{stem}.mp4"
                                self.film(work.path / video, instance + len(job.policy))
                            if log is not None:
                                excerpt_of(path).write_text(log(key))
                            if trace is not None:
                                course = f"{folder}/traces/{stem}.jsonl"
                                trace(key).write(work.path / course)
                        made = Rollout(key, instance, 1, name, video, outcome, str(work.path), trace=course)
                        rollouts.append(made)
            save(rollouts, work.path / ROLLOUTS)
            return Result()

        stage = Stage(Declaration("evaluate", WorkerConfig, WorkerInputs), run)
        return (stage.execute(WorkerConfig(seed), WorkerInputs(plan), self.workspace).artifact,)

    def confirmation(self, artifact: Artifact, wins: Callable[[bool, str], int]) -> Artifact:
        """What workers leave behind of a trial in which a policy, the challenger's or not, wins the first
        rounds of a task.
        """
        plan, trial = Plan.load(artifact.path), Trial.load(artifact.path)

        def run(config, inputs, work):
            rollouts, done = [], Counter[tuple[str, str]]()
            for job in plan.jobs:
                won = wins(trial.ours.get(job.task) == job.policy, job.task)
                for index in job.instances:
                    key = RolloutKey(job.policy, job.split, job.task, index, 0)
                    q = float(done[job.policy, job.task] < won)
                    outcome = Outcome(q, q == 1.0, 300, 1.0, Distances(1.0, 1.0, 1.0))
                    rollouts.append(Rollout(key, index + 1, 1, "json", None, outcome))
                    done[job.policy, job.task] += 1
            save(rollouts, work.path / ROLLOUTS)
            return Result()

        stage = Stage(Declaration("evaluate", WorkerConfig, WorkerInputs), run)
        return stage.execute(WorkerConfig(), WorkerInputs(artifact), self.workspace).artifact


@pytest.fixture(scope="session")
def factory_in() -> type[Factory]:
    """Makes factories, for tests that share a workspace."""
    return Factory


@pytest.fixture
def factory(tmp_path: Path) -> Factory:
    """Makes artifacts in a temporary workspace."""
    return Factory(tmp_path / "workspace")


@pytest.fixture
def changed_policy() -> PolicyConfig:
    """Settings of which every single one differs from the default."""
    changed = PolicyConfig(
        execute=10,
        compress_from=13,
        inpainting="hard",
        keep=3,
        num_steps=5,
        gripper_range=0.1,
        voting="off",
        gripper="published",
        task_rules="published",
        clip=True,
        seed=7,
    )
    default = PolicyConfig()
    assert all(getattr(changed, f.name) != getattr(default, f.name) for f in dataclasses.fields(changed))
    return changed
