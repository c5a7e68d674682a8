"""Compute the statistics of the demonstrations in one pass: moments, quantiles, correlation, tables.

Report, sections 4.5 and 5. Writes `norm_stats.json` in the published layout, `human.json` (mean length and
displacements per task) and `closure.json` (whether each gripper was ever closed, per task and stage).
"""

from dataclasses import dataclass

from components.shared.artifacts import Artifact
from components.shared.errors import UserError
from components.shared.stage import Result, Stage, Work
from components.statistics.summary import summary_page
from pi_behavior.accumulators import DatasetAccumulator
from pi_behavior.challenge import TASKS_BY_INDEX, task
from pi_behavior.data.lerobot import LeRobotDataset


@dataclass(frozen=True)
class Config:
    """What the statistics cover."""

    tasks: tuple[str, ...] = ()
    """Names of the tasks; none means all tasks of the dataset."""
    per_step_exclude: bool = True
    """Normalise base velocity and grippers with the same values at all steps of a chunk, as the report says;
    otherwise per step like the other dimensions, as the published code does."""


@dataclass(frozen=True)
class Inputs:
    """What the pass reads."""

    dataset: Artifact
    """The checked demonstrations."""


def run(config: Config, inputs: Inputs, work: Work) -> Result:
    """Compute and write the statistics."""
    accumulator = DatasetAccumulator()
    try:
        dataset = LeRobotDataset(inputs.dataset.path / "data")
        episodes = dataset.select([task(name).index for name in config.tasks])
        for episode in work.progress.track(episodes, "reading episodes"):
            state, actions = dataset.state_and_actions(episode)
            stages = TASKS_BY_INDEX[episode.task].stages
            accumulator.update(episode.task, episode.task_name, stages, state, actions, episode.human)
        statistics = accumulator.finish(per_step_exclude=config.per_step_exclude)
    except ValueError as error:  # an unknown task, or data that are not as expected
        raise UserError(str(error)) from error
    statistics.save(work.path)
    counts = {"frames": statistics.num_frames, "chunks": statistics.num_chunks, "episodes": len(episodes)}
    return Result(
        metrics={name: float(value) for name, value in counts.items()},
        metadata={**counts, "per_step_exclude": config.per_step_exclude},
        html=summary_page(statistics),
    )


STAGE = Stage(
    "statistics",
    Config,
    Inputs,
    run,
    (
        "pi_behavior.accumulators",
        "pi_behavior.challenge",
        "pi_behavior.correlation",
        "pi_behavior.data.lerobot",
        "pi_behavior.layout",
        "pi_behavior.statistics",
    ),
)
