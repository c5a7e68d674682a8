"""Evaluate a policy server: `python -m household.eval --task-name T --host H --port P --output-dir DIR`.

Takes the command line of the 2026 challenge's evaluator, speaks its websocket protocol and writes its files:
DIR/json/T_INSTANCE_ROLLOUT.json and, with --write-video, DIR/videos/T_INSTANCE_ROLLOUT.mp4; besides these,
DIR/traces/T_INSTANCE_ROLLOUT.jsonl with the steps at which predicates of the goal changed. A rollout whose
JSON is already there and whole is not done again. Reduced tasks (one room, few objects): these are not
BEHAVIOR scores. Time limit: 1.5 times the mean length of the demonstrations.
"""

import json
import logging
import re
import sys
from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import groupby
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from household import cli
from household.faults import Faults
from household.files import write_json, write_text
from household.instances import PUBLIC_TEST_INSTANCES, TEST_INSTANCES, TRAIN_INSTANCES, make_instance
from household.outcome import goal_lines, outcome_json
from household.protocol import PolicyClient
from household.robot import Edition
from household.rollout import Film, View, roll_out
from household.simulation import Simulation
from household.tasks import task_named
from household.video import write_rollout_video

Mode = Literal["public_test", "hidden_test", "all_test", "train"]
_INSTANCES: dict[str, Sequence[int]] = {
    "public_test": PUBLIC_TEST_INSTANCES,
    "hidden_test": TEST_INSTANCES[len(PUBLIC_TEST_INSTANCES) :],
    "all_test": TEST_INSTANCES,
    "train": range(TRAIN_INSTANCES.stop),  # an id is its own index
}


Wrapper = Literal["omnigibson.eval.wrappers.DefaultWrapper", "omnigibson.eval.wrappers.RGBDFullResWrapper"]
_WRAPPERS: dict[Wrapper, View] = {
    "omnigibson.eval.wrappers.DefaultWrapper": View(224, 224),
    "omnigibson.eval.wrappers.RGBDFullResWrapper": View(720, 480, depth=True),
}
_NAME = re.compile(r"""^name:\s*["']?([^\s"'#]+)""", re.MULTILINE)


@dataclass(frozen=True)
class EvalConfig:
    """Evaluate a policy server on a household task (reduced: one room, few objects)."""

    task_name: str
    """Task to evaluate."""
    output_dir: Path
    """Folder for json/ and videos/."""
    host: str = "127.0.0.1"
    """Policy server's host."""
    port: int = 8000
    """Policy server's port."""
    instance_indices: tuple[int, ...] = (0,)
    """Indices into the mode's instances: 0 is instance 301 (public_test, all_test) or 321 (hidden_test). In
    the mode train they are the instances' ids, 1 to 200."""
    num_rollouts: int = 1
    """Rollouts per instance."""
    max_steps: int | None = None
    """Time limit in control steps; default 1.5 times the human mean, twice in 2025."""
    mode: Mode = "public_test"
    """Which instances; all_test, public and hidden ones together, is not in the official evaluator."""
    policy: Literal["websocket"] = "websocket"
    """How the policy is asked; there is no other way here."""
    env_wrapper: Wrapper | None = None
    """What the policy is sent: pictures of 224 pixels, or of 720 (head) and 480 (wrists) with depth. By
    default pictures of --image-size."""
    robot_config: Path | None = None
    """YAML file whose `name` is the robot's name in the keys of the messages; nothing else of it is used."""
    num_envs: int | None = None
    """Environments to simulate together, which must be as many as instances: they begin together, ask the
    policy as one batch, whose values have a leading axis, and end with the last one. By default instances
    are done one after the other, without that axis, as in the official evaluator until v3.9.2."""
    write_video: bool = False
    """Write an MP4 of every rollout, 672 x 448."""
    video_fps: int = 30
    """Control steps per second of the videos; 30 is real time."""
    video_every: int = 1
    """Control steps per frame of the videos: with 4 they are made in a quarter of the time."""
    video_size: int = 448
    """Height of the videos in pixels, a multiple of 4; their width is one and a half times that."""
    video_indices: tuple[int, ...] | None = None
    """Write videos of these instances alone; not in the official evaluator."""
    headless: bool = True
    """Accepted for the evaluator's command line; there is never a window."""
    image_size: int = 56
    """Side of the pictures that the policy gets, in pixels."""
    replay_action_chunk_size: int = 0
    """Above 1: ask for this many actions at once and replay them, which saves rendering and inference."""
    edition: Edition = "2026"
    """Year of the challenge whose proprioception is sent, 61 values in 2026 and 256 in 2025, and whose time
    limit applies; not in the official evaluator."""
    oracle_stage: bool = False
    """Tell the policy the true stage of the task, for experiments; not in the official evaluator."""
    connect_timeout: float = 300.0
    """Seconds to wait for the policy server to become healthy."""
    response_timeout: float = 300.0
    """Seconds to wait for one answer of the policy server."""

    def instance_ids(self) -> list[int]:
        """The instances to evaluate.

        Returns:
            Instance ids in the order given.

        Raises:
            cli.UserError: an index that the mode does not have, or another value that cannot work.
        """
        known = _INSTANCES[self.mode]
        first = TRAIN_INSTANCES.start if self.mode == "train" else 0
        bad = [i for i in self.instance_indices if not first <= i < len(known)]
        if bad or not self.instance_indices:
            raise cli.UserError(
                f"--instance-indices {bad} do not exist in {self.mode}; expected {first} to {len(known) - 1}"
            )
        counts = {
            "--num-rollouts": self.num_rollouts,
            "--video-fps": self.video_fps,
            "--video-every": self.video_every,
            "--video-size": self.video_size,
            "--image-size": self.image_size,
            "--max-steps": self.max_steps,
            "--replay-action-chunk-size": self.replay_action_chunk_size or None,
        }
        for name, value in counts.items():
            if value is not None and value < 1:
                raise cli.UserError(f"{name} is {value}; expected at least 1")
        if self.video_size % 4:
            raise cli.UserError(f"--video-size is {self.video_size}; expected a multiple of 4")
        if self.num_envs not in (None, len(self.instance_indices)):
            raise cli.UserError(
                f"--num-envs is {self.num_envs}, and there are {len(self.instance_indices)} "
                "--instance-indices; expected as many"
            )
        return [known[i] for i in self.instance_indices]

    def view(self) -> View:
        """What the policy is sent.

        Raises:
            cli.UserError: the robot's configuration cannot be read, or has no name.
        """
        plain = View(self.image_size, self.image_size)
        view = plain if self.env_wrapper is None else _WRAPPERS[self.env_wrapper]
        if self.robot_config is None:
            return view
        try:
            found = _NAME.search(self.robot_config.read_text())
        except OSError as error:
            raise cli.UserError(f"--robot-config {self.robot_config}: {error.strerror}") from error
        if found is None:
            raise cli.UserError(f"--robot-config {self.robot_config} has no line `name: ROBOT`; expected one")
        return replace(view, robot=found[1])

    def recorded(self) -> set[int]:
        """The instances whose rollouts get a video.

        Returns:
            Instance ids.
        """
        known, chosen = _INSTANCES[self.mode], self.video_indices
        indices = self.instance_indices if chosen is None else set(chosen) & set(self.instance_indices)
        return {known[index] for index in indices} if self.write_video else set()


def is_whole(path: Path) -> bool:
    """Whether a rollout's JSON exists and can be read to its last key.

    Args:
        path: the JSON file.

    Returns:
        False where the rollout has to be done (again).
    """
    try:
        value: Any = json.loads(path.read_text())
        return isinstance(value, dict) and "final" in value["q_score"] and "normalized_time" in value["time"]
    except (OSError, ValueError, KeyError, TypeError):
        return False


def evaluate(config: EvalConfig) -> list[Path]:
    """Do the rollouts that are missing.

    Args:
        config: what to evaluate.

    Returns:
        The JSON files of all rollouts asked for.

    Raises:
        cli.UserError: bad values.
        ConnectionError: the policy server failed.
    """
    try:
        task, faults = task_named(config.task_name), Faults()
    except ValueError as error:
        raise cli.UserError(str(error)) from None
    instances, view = config.instance_ids(), config.view()
    if config.num_envs is None:
        rollouts = [(i, r) for i in instances for r in range(config.num_rollouts)]
    else:  # the same group again
        rollouts = [(i, r) for r in range(config.num_rollouts) for i in instances]
    names = {rollout: f"{task.name}_{rollout[0]}_{rollout[1]}" for rollout in rollouts}
    paths = {rollout: config.output_dir / "json" / f"{name}.json" for rollout, name in names.items()}
    missing = [rollout for rollout in rollouts if not is_whole(paths[rollout])]
    if not missing:
        return list(paths.values())
    label, done = f"{task.name} rollouts", len(rollouts) - len(missing)
    policy = PolicyClient(config.host, config.port, config.connect_timeout, config.response_timeout)
    groups = [[rollout] for rollout in missing]
    if config.num_envs is not None:
        groups = [list(group) for _, group in groupby(missing, key=lambda rollout: rollout[1])]
    recorded = config.recorded()
    with (
        ExitStack() as stack,
        policy as client,
        cli.progress(label, len(rollouts), done) as advance,
    ):
        simulations = [
            stack.enter_context(closing(Simulation(task, config.edition))) for _ in max(groups, key=len)
        ]
        for group in groups:
            films = [Film(config.video_every, config.video_size) if i in recorded else None for i, _ in group]
            outcomes = roll_out(
                simulations[: len(group)],
                [make_instance(task, instance) for instance, _ in group],
                client,
                max_steps=config.max_steps or task.limit(config.edition),
                view=view,
                chunk_size=config.replay_action_chunk_size if config.replay_action_chunk_size > 1 else None,
                films=films,
                faults=faults,
                oracle_stage=config.oracle_stage,
                is_batch=config.num_envs is not None,
            )
            for rollout, outcome, film in zip(group, outcomes, films, strict=True):
                if film is not None:
                    video = config.output_dir / "videos" / f"{names[rollout]}.mp4"
                    write_rollout_video(video, film.frames, Fraction(config.video_fps, config.video_every))
                trace = config.output_dir / "traces" / f"{names[rollout]}.jsonl"
                write_text(trace, goal_lines(outcome))
                # The JSON comes last: where it is whole, the rollout is.
                write_json(paths[rollout], outcome_json(task, *rollout, outcome))
                advance(f"instance {rollout[0]}: q {outcome.q:.2f} in {outcome.steps} steps")
    return list(paths.values())


def main() -> None:
    """Run the command."""
    config = tyro.cli(Annotated[EvalConfig, tyro.conf.arg(name="")], description=__doc__)
    logging.basicConfig(format="%(message)s")
    if not sys.stderr.isatty():  # a terminal has the progress bar
        logging.getLogger("household").setLevel(logging.INFO)
    cli.run(lambda: print(f"{len(evaluate(config))} rollouts in {config.output_dir}"))


if __name__ == "__main__":
    main()
