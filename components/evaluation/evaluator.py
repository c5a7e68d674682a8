"""What an evaluator is: a command line, the names of instances, and where the results are written.

Sources: the evaluators of the BEHAVIOR challenges of 2025 and 2026.
"""

import csv
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from components.errors import UserError
from pi_behavior.challenge import task as find_task


@dataclass(frozen=True)
class Order:
    """The work of one evaluator process: rollouts of one task."""

    task: str
    split: str
    """validation, reported or confirmation."""
    indices: tuple[int, ...]
    """Indices of the instances in the split's mode."""
    rollouts: int
    """Rollouts per instance; 1 where the evaluator cannot repeat."""
    videos: tuple[int, ...]
    """Those of the indices that are recorded. An evaluator that has no choice records all, or none."""
    host: str
    """Host of the policy server."""
    port: int
    output: Path
    """Folder that gets the results and videos."""
    image_size: int
    """Height and width of the policy's images in pixels, where the evaluator has the choice."""
    action_chunk_size: int
    """Actions per request, which the evaluator replays, where it can; 0 or 1 is one."""
    oracle_stage: bool
    """Tell the policy the true stage; only for an evaluator that can."""
    environments: int = 0
    """Environments to simulate together, as many as indices; 0: one after the other."""
    wrapper: str = ""
    """Dotted name of the environment's wrapper class; empty: the evaluator's default."""
    robot_config: str = ""
    """File of the robot's configuration; empty: the evaluator's default."""


@dataclass(frozen=True)
class Instances:
    """The instances of a split."""

    mode: str
    """The evaluator's mode that has them."""
    count: int
    """How many there are."""
    first: int = 0
    """Index of the first one in that mode."""
    id_of_0: int = 0
    """Instance id, as in file names, of index 0, where ids follow each other."""


@dataclass(frozen=True)
class Evaluator:
    """A program that takes the 2026 evaluator's command line and writes its files."""

    program: tuple[str, ...]
    """The command without options."""
    splits: Mapping[str, Instances]
    """Policies are chosen on those of validation, scored on those of reported, and compared with the
    champion on those of confirmation."""
    startup_seconds: float
    """Time of one process before its first step: loading the scene."""
    steps_per_second: float
    """Control steps per second, policy included; for the expected duration of a job."""
    results: str = "json"
    """Folder that it writes JSONs to, in its output folder; videos go to `videos`."""
    repeats: bool = True
    """Whether it can roll an instance out more than once."""
    reduced: bool = False
    """Whether its tasks are reduced, and their scores not comparable with the challenge's."""
    film: tuple[str, ...] = ()
    """Options for videos that are quick to make: small, and not of every step. With them, every reported
    rollout of a trained policy is recorded, so that no failure is left unseen."""
    own_options: bool = False
    """Whether it knows --image-size, --video-indices, and --oracle-stage, which tells the policy the true
    stage."""
    takes: tuple[str, ...] = ("wrapper", "robot_config")
    """What it lets us replace."""
    batches: bool = True
    """Whether it knows --num-envs and --replay-action-chunk-size: the challenge's does from v3.9.3 on."""

    def instance_ids(self, task: str, split: str, indices: Sequence[int]) -> list[int]:
        """The instance ids, as in file names, of indices in a split's mode; UserError if not to be found."""
        return [self.splits[split].id_of_0 + index for index in indices]

    def command(self, order: Order) -> list[str]:
        """The command line for an order."""
        words = [*self.program, "--task-name", order.task, "--host", order.host, "--port", str(order.port)]
        # in the mode train the numbers are instance ids
        split = self.splits[order.split]
        first = split.id_of_0 if split.mode == "train" else 0
        words += ["--instance-indices", *(str(first + index) for index in order.indices)]
        words += ["--num-rollouts", str(order.rollouts)]
        words += ["--mode", split.mode, "--output-dir", str(order.output), "--headless"]
        if order.videos:
            words += ["--write-video", *self.film]
        if order.environments:
            words += ["--num-envs", str(order.environments)]
        if order.action_chunk_size > 1 and self.batches:
            words += ["--replay-action-chunk-size", str(order.action_chunk_size)]
        if order.wrapper:
            words += ["--env-wrapper", order.wrapper]
        if order.robot_config:
            words += ["--robot-config", order.robot_config]
        if self.own_options:
            if order.videos not in ((), order.indices):
                words += ["--video-indices", *(str(first + index) for index in order.videos)]
            words += ["--image-size", str(order.image_size)]
        if order.oracle_stage:
            words.append("--oracle-stage")
        return words


class Evaluator2025(Evaluator):
    """The 2025 evaluator: options as Hydra overrides, instance ids from the challenge's metadata."""

    def instance_ids(self, task: str, split: str, indices: Sequence[int]) -> list[int]:
        """The instance ids of indices, read as the evaluator does, from its data folder."""
        folder = os.environ.get("OMNIGIBSON_DATA_PATH")
        if not folder:
            raise UserError(
                "OMNIGIBSON_DATA_PATH is not set; expected the folder of the simulator's assets, whose "
                "2025-challenge-task-instances/metadata holds the instance ids"
            )
        metadata = Path(folder, "2025-challenge-task-instances", "metadata")
        read = _train_instances if self.splits[split].mode == "train" else _test_instances
        try:
            ids = read(metadata, task)
        except OSError as error:
            raise UserError(
                f"{error.filename} cannot be read ({error.strerror}); download the challenge's task "
                "instances into OMNIGIBSON_DATA_PATH"
            ) from error
        except (ValueError, KeyError, IndexError) as error:
            raise UserError(f"{metadata} has no instance ids of {task}: {error}") from error
        if max(indices) >= len(ids):
            raise UserError(
                f"{metadata} has {len(ids)} instances of {task}; index {max(indices)} was asked for"
            )
        return [ids[index] for index in indices]

    def command(self, order: Order) -> list[str]:
        """The command line for an order."""
        words = [*self.program, "policy=websocket", f"task.name={order.task}", f"model.host={order.host}"]
        words += [f"model.port={order.port}", f"eval_instance_ids=[{','.join(map(str, order.indices))}]"]
        # quoted, as Hydra's grammar gives a meaning to some characters of paths
        words += [
            f"log_path={json.dumps(str(order.output))}",
            f"write_video={str(bool(order.videos)).lower()}",
        ]
        words.append("headless=true")
        if order.wrapper:
            words.append(f"env_wrapper._target_={order.wrapper}")
        if self.splits[order.split].mode == "train":
            words.append("eval_on_train_instances=true")
        return words


def _test_instances(metadata: Path, task: str) -> list[int]:
    """Ids of the public test instances: third column of the task's row, ids with commas between."""
    with (metadata / "test_instances.csv").open(newline="") as file:
        rows = {row[1]: row[2] for row in csv.reader(file) if len(row) > 2}
    return [int(word) for word in rows[task].split(",")]


def _train_instances(metadata: Path, task: str) -> list[int]:
    """Ids of the training instances in the order of their episodes, whose number is task, instance, digit."""
    with (metadata / "episodes.jsonl").open() as file:
        episodes = [int(json.loads(line)["episode_index"]) for line in file]
    return [e // 10 % 1000 for e in episodes if e // 10_000 == find_task(task).index]
