"""Collect demonstrations: `python -m household.collect --output DIR`.

Scripted experts solve the training instances; every frame's state, expert action and three pictures are
written as a LeRobot dataset in the challenge's layout: v3.0 of 2026, or v2.1 of 2025. Reduced tasks: one
room, few objects. Finished episodes are kept: start the same command again to continue after an interruption.
"""

import json
import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from household import cli, dataset_2025, dataset_2026
from household.episode import Style, record
from household.files import write_json
from household.instances import TRAIN_INSTANCES
from household.robot import Edition
from household.simulation import Simulation
from household.tasks import TASKS, known_tasks

_ATTEMPTS = 5
_DEMO_INSTANCES = 100
_LAYOUTS = {"2025": dataset_2025, "2026": dataset_2026}
_simulations: dict[str, Simulation] = {}


@dataclass(frozen=True)
class CollectConfig:
    """Collect demonstrations of the household tasks (reduced: one room, few objects)."""

    output: Path
    """Folder of the dataset; continued if it holds a part of it."""
    tasks: tuple[str, ...] = field(default=tuple(TASKS))
    """Tasks to demonstrate."""
    episodes: int = 80
    """Demonstrations per task: one of each training instance 1, 2, ..."""
    workers: int = 2
    """Processes that simulate in parallel."""
    image_size: int = 56
    """Side of the three cameras' square pictures in pixels (even)."""
    style: Style = "corrected"
    """clean: the expert undisturbed. corrected: mildly disturbed, labelled with the expert's corrections."""
    seed: int = 0
    """Seed of the disturbance."""
    edition: Edition = "2026"
    """Year of the challenge whose layout the dataset has: 2026 is LeRobot v3.0 with 61 values of
    proprioception, 2025 is v2.1 with 256."""
    allow_validation_instances: bool = False
    """Demonstrate instances above 100 too, which are otherwise kept for validation."""

    def check(self) -> None:
        """Check the values.

        Raises:
            cli.UserError: a value that cannot work.
        """
        try:
            known_tasks(self.tasks)
        except ValueError as error:
            raise cli.UserError(str(error)) from None
        limit = len(TRAIN_INSTANCES) if self.allow_validation_instances else _DEMO_INSTANCES
        if not 1 <= self.episodes <= limit:
            advice = "" if self.allow_validation_instances else " (--allow-validation-instances: up to 200)"
            raise cli.UserError(f"--episodes is {self.episodes}; expected 1 to {limit}{advice}")
        if self.image_size < 16 or self.image_size > 512 or self.image_size % 2:
            raise cli.UserError(f"--image-size is {self.image_size}; expected an even number from 16 to 512")
        if self.workers < 1:
            raise cli.UserError(f"--workers is {self.workers}; expected at least 1")


def collect(config: CollectConfig) -> dict[str, int]:
    """Collect the dataset, or what is missing of it.

    Args:
        config: what to collect.

    Returns:
        {"total_episodes", "total_frames"} of the dataset.

    Raises:
        cli.UserError: bad values, or the folder holds a dataset made with other settings.
        RuntimeError: an expert failed an instance in every attempt.
    """
    config.check()
    tasks = known_tasks(config.tasks)
    _check_settings(config)
    for leftover in config.output.rglob(".*.partial.*"):  # of a process that was killed while writing
        leftover.unlink(missing_ok=True)
    layout = _LAYOUTS[config.edition]
    jobs = [
        (task.name, instance)
        for task in tasks
        for instance in TRAIN_INSTANCES[: config.episodes]
        if not layout.metainfo_path(config.output, task, instance).exists()
    ]
    total = len(tasks) * config.episodes
    if jobs:
        context = multiprocessing.get_context("spawn")
        pool = ProcessPoolExecutor(min(config.workers, len(jobs)), context, _start_worker)
        with pool, cli.progress("demonstrations", total, total - len(jobs)) as advance:
            futures = {pool.submit(_collect_one, config, *job): job for job in jobs}
            try:
                for future in as_completed(futures):
                    length = future.result()
                    name, instance = futures[future]
                    advance(f"{name} {instance}: {length} frames")
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
    return layout.write_meta(config.output, tasks, config.image_size)


def _check_settings(config: CollectConfig) -> None:
    """Refuse to mix episodes of different settings in one dataset."""
    settings = {k: v for k, v in asdict(config).items() if k in ("image_size", "style", "seed", "edition")}
    path = config.output / "meta" / "collection.json"
    if path.exists():
        found = {"edition": "2025"} | json.loads(path.read_text())
        if found != settings:
            raise cli.UserError(
                f"{config.output} was collected with {found}, now given {settings}; use another --output"
            )
    else:
        write_json(path, settings)


def _start_worker() -> None:
    # The software renderer would otherwise start a thread per core in every worker.
    os.environ.setdefault("LP_NUM_THREADS", "1")


def _collect_one(config: CollectConfig, task_name: str, instance: int) -> int:
    """Demonstrate one instance and write its episode; returns its length in frames."""
    task = TASKS[task_name]
    if task_name not in _simulations:
        _simulations[task_name] = Simulation(task, config.edition)
    for attempt in range(_ATTEMPTS):
        recording = record(
            _simulations[task_name],
            instance,
            image_size=config.image_size,
            style=config.style,
            seed=config.seed,
            attempt=attempt,
        )
        if recording.success:
            _LAYOUTS[config.edition].write_episode(config.output, task, instance, recording)
            return len(recording.actions)
    raise RuntimeError(f"the expert failed {task_name}, instance {instance}, {_ATTEMPTS} times")


def main() -> None:
    """Run the command."""
    config = tyro.cli(Annotated[CollectConfig, tyro.conf.arg(name="")], description=__doc__)

    def work() -> None:
        totals = collect(config)
        print(f"{config.output}: {totals['total_episodes']} episodes, {totals['total_frames']} frames")

    cli.run(work)


if __name__ == "__main__":
    main()
