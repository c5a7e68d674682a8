"""What several environments per process gain: `python -m benchmarks.environments [--instances N]`.

Real simulator, policy server and supervisor, and a small network with random weights, so that every answer
depends on what the environment sees. All runs use a server that is compiled for the same batch, padded: so
their results have to be the same byte for byte, and the exit code is 1 where they are not.
"""

import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import tyro
from rich.console import Console
from rich.table import Table

from benchmarks.serving import write_random_checkpoint
from components.evaluate.server import policy_server
from components.evaluate.supervisor import Supervisor, conclude
from components.evaluation.evaluators import HOUSEHOLD, find_evaluator
from components.evaluation.plan import REPORTED, Job, Plan, Policy
from components.runtime.progress import Progress
from household.tasks import TASKS
from pi_behavior.challenge import DEFAULT_EDITION
from pi_behavior.config import ModelConfig
from pi_behavior.policy.config import PolicyConfig


@dataclass(frozen=True)
class Config:
    """Compare numbers of environments per process; exit code 1 if a result differs."""

    tasks: int = len(TASKS)
    """Tasks, the first ones of the household simulator."""
    instances: int = 40
    """Instances of every task."""
    environments: tuple[int, ...] = (1, 4)
    """Environments of a process; the first number is the baseline."""


@dataclass(frozen=True)
class Row:
    """An evaluation."""

    seconds: float
    q: float
    files: dict[str, bytes]
    """The rollouts' results by name."""


def evaluate(config: Config, environments: int, folder: Path) -> Row:
    """Evaluate with so many environments per process."""
    write_random_checkpoint(folder / "artifacts" / "checkpoint", ModelConfig.presets["tiny"])
    tasks = tuple(islice(TASKS, config.tasks))
    evaluator = find_evaluator(HOUSEHOLD, DEFAULT_EDITION)
    plan = Plan(
        edition=DEFAULT_EDITION,
        evaluator=HOUSEHOLD,
        tasks=tasks,
        rollouts=1,
        image_size=56,
        action_chunk_size=10,
        policy=PolicyConfig(num_steps=2),
        policies={"common": Policy("artifacts", "digest", "checkpoint")},
        jobs=tuple(Job("common", task, REPORTED, tuple(range(config.instances))) for task in tasks),
        environments=environments,
    )
    output, started = folder / "output", time.monotonic()
    Supervisor(
        plan,
        0,
        evaluator,
        policy_server(max(config.environments)),
        folder=output,
        workspace=folder,
        progress=Progress(),
    ).run()
    seconds = time.monotonic() - started
    rollouts, _ = conclude(plan, evaluator, output, lambda text: print(text, file=sys.stderr))
    files = {path.name: path.read_bytes() for path in output.glob("content/rollouts/*/*/*/*_*.json")}
    return Row(seconds, sum(one.q for one in rollouts) / len(rollouts), files)


def show(numbers: Sequence[int], rows: Sequence[Row]) -> Table:
    """Rollouts per minute beside the baseline's."""
    table = Table("environments", "rollouts", "a minute", "ratio", "mean q", "results")
    for number, row in zip(numbers, rows, strict=True):
        pace, first = (len(one.files) / one.seconds * 60 for one in (row, rows[0]))
        same = "equal" if row.files == rows[0].files else "DIFFERENT"
        table.add_row(
            *(str(number), str(len(row.files)), f"{pace:.1f}", f"{pace / first:.2f}", f"{row.q:.4f}", same)
        )
    return table


def main(config: Config) -> int:
    """Measure, one number after the other, and print the table."""
    rows = []
    for number in config.environments:
        with tempfile.TemporaryDirectory(prefix="b1k-environments-") as folder:
            rows.append(evaluate(config, number, Path(folder)))
    Console().print(show(config.environments, rows))
    return int(any(row.files != rows[0].files for row in rows))


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Config, description=__doc__)))
