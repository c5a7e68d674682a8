"""Measure the household simulator: `python -m benchmarks.simulator [--instances N]`.

Prints JSON: per task the share of training and of test instances that the scripted expert solves, and the
invalid ones of all; how fast demonstrations are collected; simulation steps per second without
and with three pictures of 224 x 224; how all of these scale from one process to two. Exit code 1 if an expert
solves fewer than 95 % of a task's instances or an instance is invalid.
"""

import json
import multiprocessing
import os
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro

from household import cli, robot
from household.collect import CollectConfig, collect
from household.episode import Style, record
from household.experts import make_expert
from household.instances import TEST_INSTANCES, TRAIN_INSTANCES, make_instance
from household.simulation import Simulation
from household.tasks import TASKS, known_tasks
from household.validity import problems

REQUIRED = 0.95
"""Share of its training instances that every expert must solve."""
_CHUNK = 10
_SPEED_TASK = "picking_up_trash"
_SPEED_SECONDS = 4.0
_PICTURE = 224


@dataclass(frozen=True)
class Config:
    """Measure the household simulator; exit code 1 if an expert or an instance is not good enough."""

    instances: int = len(TRAIN_INSTANCES)
    """Training instances per task that the experts try, and test instances, where there are so many."""
    tasks: tuple[str, ...] = field(default=tuple(TASKS))
    """Tasks to measure."""
    workers: int = 2
    """Processes in parallel."""
    style: Style = "corrected"
    """Style of the demonstrations: corrected is the harder one."""
    demonstrations: int = 8
    """Demonstrations to collect for the collection speed."""

    def check(self) -> None:
        """Check the values.

        Raises:
            cli.UserError: a value that cannot work.
        """
        try:
            known_tasks(self.tasks)
        except ValueError as error:
            raise cli.UserError(str(error)) from None
        limits = {"instances": len(TRAIN_INSTANCES), "workers": 64, "demonstrations": 100}
        for name, limit in limits.items():
            if not 1 <= getattr(self, name) <= limit:
                raise cli.UserError(f"--{name} is {getattr(self, name)}; expected 1 to {limit}")


def try_instances(task: str, instances: list[int], style: Style) -> list[dict[str, Any]]:
    """Let the expert try some instances.

    Args:
        task: name of the task.
        instances: training or test instances.
        style: style of the demonstrations.

    Returns:
        Per instance whether it was solved, its length, and the paths of base and hands.
    """
    simulation = Simulation(TASKS[task])
    results = []
    for instance in instances:
        recording = record(simulation, instance, image_size=None, style=style, seed=0)
        results.append(
            {
                "instance": instance,
                "solved": recording.success,
                "length": len(recording.actions),
                "distances": recording.distances.tolist(),
            }
        )
    return results


def invalid_instances(task: str) -> dict[int, list[str]]:
    """Check all training and test instances of a task.

    Args:
        task: name of the task.

    Returns:
        What is wrong, by instance; empty where all are valid.
    """
    simulation = Simulation(TASKS[task])
    ids = (*TRAIN_INSTANCES, *TEST_INSTANCES)
    found = {i: problems(simulation, make_instance(TASKS[task], i)) for i in ids}
    return {i: wrong for i, wrong in found.items() if wrong}


def steps_per_second(task: str, size: int | None, with_expert: bool) -> float:
    """Step a simulation for some seconds.

    Args:
        task: name of the task.
        size: side of the three pictures per step in pixels, or None for no pictures.
        with_expert: whether the expert decides every action, else the robot holds still.

    Returns:
        Control steps per second.
    """
    simulation = Simulation(TASKS[task])
    simulation.reset(make_instance(TASKS[task], 1))
    expert = make_expert(simulation)
    action = expert.act().action
    steps, began = 0, time.perf_counter()
    while time.perf_counter() - began < _SPEED_SECONDS:
        simulation.step(expert.act().action if with_expert else action)
        for camera in robot.CAMERAS if size is not None else ():
            simulation.render(camera, size or 0)
        steps += 1
    seconds = time.perf_counter() - began
    simulation.close()
    return steps / seconds


def measure_tasks(config: Config) -> dict[str, Any]:
    """Experts and instances of all tasks.

    Args:
        config: what to measure.

    Returns:
        Per task: "success", "instances", "failed", "invalid" and the means of the solved demonstrations;
        "test_success" and "test_failed" for the test instances, which policies are scored on.
    """
    ids = [*TRAIN_INSTANCES[: config.instances], *TEST_INSTANCES[: config.instances]]
    chunks = [ids[i : i + _CHUNK] for i in range(0, len(ids), _CHUNK)]
    tried: dict[str, list[dict[str, Any]]] = {task: [] for task in config.tasks}
    invalid: dict[str, dict[int, list[str]]] = {}
    jobs = [(task, chunk) for task in config.tasks for chunk in chunks]
    with _pool(config.workers) as pool, cli.progress("experts", len(jobs), 0) as advance:
        checks = {pool.submit(invalid_instances, task): task for task in config.tasks}
        runs = {pool.submit(try_instances, task, chunk, config.style): task for task, chunk in jobs}
        for future in as_completed(runs):
            tried[runs[future]] += future.result()
            advance(runs[future])
        for check, task in checks.items():
            invalid[task] = check.result()
    return {task: _summary(tried[task], invalid[task]) for task in config.tasks}


def _summary(results: list[dict[str, Any]], invalid: dict[int, list[str]]) -> dict[str, Any]:
    tests = [r for r in results if r["instance"] in TEST_INSTANCES]
    results = [r for r in results if r["instance"] not in TEST_INSTANCES]
    solved = [r for r in results if r["solved"]]
    means = np.mean([[r["length"], *r["distances"]] for r in solved], axis=0) if solved else np.zeros(4)
    names = ("length", "distance_traveled", "left_eef_displacement", "right_eef_displacement")
    return {
        "success": len(solved) / len(results),
        "instances": len(results),
        "failed": sorted(r["instance"] for r in results if not r["solved"]),
        "invalid": invalid,
        "test_success": sum(r["solved"] for r in tests) / len(tests),
        "test_failed": sorted(r["instance"] for r in tests if not r["solved"]),
        "means": {name: round(float(mean), 3) for name, mean in zip(names, means, strict=True)},
    }


def measure_speed(config: Config) -> dict[str, Any]:
    """Speed of simulation and collection, with one process and with `workers`.

    Args:
        config: what to measure.

    Returns:
        Control steps per second, added up over the processes, and demonstrations per minute, by kind and
        number of processes; "scaling" is the speed of `workers` processes over that of one.
    """
    task = _SPEED_TASK if _SPEED_TASK in config.tasks else config.tasks[0]
    cases = {"physics": (None, False), "expert": (None, True), "three_cameras_224": (_PICTURE, False)}
    result: dict[str, Any] = {"task": task}
    for name, (size, with_expert) in cases.items():
        result[name] = {}
        for count in sorted({1, config.workers}):
            with _pool(count) as pool:
                runs = [pool.submit(steps_per_second, task, size, with_expert) for _ in range(count)]
                result[name][f"{count}_processes"] = round(sum(run.result() for run in runs), 1)
        result[name]["scaling"] = _scaling(result[name], config.workers)
    result["collection"] = {}
    for count in sorted({1, config.workers}):
        with tempfile.TemporaryDirectory() as folder:
            settings = CollectConfig(Path(folder) / "demos", (task,), config.demonstrations, count)
            began = time.perf_counter()
            totals = collect(settings)
            seconds = time.perf_counter() - began
        result["collection"][f"{count}_processes"] = {
            "demonstrations_per_minute": round(60 * totals["total_episodes"] / seconds, 1),
            "frames_per_second": round(totals["total_frames"] / seconds, 1),
        }
    rates = {name: speed["demonstrations_per_minute"] for name, speed in result["collection"].items()}
    result["collection"]["scaling"] = _scaling(rates, config.workers)
    return result


def _scaling(speeds: dict[str, float], workers: int) -> float:
    return round(speeds[f"{workers}_processes"] / speeds["1_processes"], 2)


def _pool(workers: int) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), _start_worker)


def _start_worker() -> None:
    # The software renderer would otherwise start a thread per core in every worker.
    os.environ.setdefault("LP_NUM_THREADS", "1")


def main() -> None:
    """Run the benchmark."""
    config = tyro.cli(Annotated[Config, tyro.conf.arg(name="")], description=__doc__)
    passed = False

    def work() -> None:
        nonlocal passed
        config.check()
        speed = measure_speed(config)
        tasks = measure_tasks(config)
        passed = all(t["success"] >= REQUIRED and not t["invalid"] for t in tasks.values())
        print(json.dumps({"passed": passed, "style": config.style, "tasks": tasks, "speed": speed}, indent=2))

    cli.run(work)
    sys.exit(0 if passed else 1)


if __name__ == "__main__":
    main()
