"""Compute the statistics of the demonstrations in one pass: moments, quantiles, correlation, tables.

Report, sections 4.5 and 5. Writes `norm_stats.json` in the published layout, `human.json` (mean length and
displacements per task), `closure.json` (whether each gripper was ever closed, per task and stage) and
`fast_tokenizer/` (section 4.7).
"""

from dataclasses import asdict, dataclass, replace
from typing import cast, get_args

from components.runtime.errors import UserError
from components.runtime.stage import Result, Stage, Work
from components.statistics.summary import summary_page
from components.statistics.tokenizer import ChunkSample, Measurements, measure
from components.store.artifact import Artifact
from pi_behavior.accumulators import DatasetAccumulator
from pi_behavior.challenge import TASKS_BY_INDEX, task
from pi_behavior.data.lerobot import LeRobotDataset
from pi_behavior.fast import FastTokenizer
from pi_behavior.statistics import Normalisation, Statistics


@dataclass(frozen=True)
class Config:
    """What the statistics cover."""

    tasks: tuple[str, ...] = ()
    """Names of the tasks; none means all tasks of the dataset."""
    normalisation: str = "report"
    """Mean and deviation of actions: per_step (of each step of a chunk, as the published code has it), report
    (the same at all steps for base velocity and grippers, as the report has it) or global (for all)."""
    absolute_actions: bool = False
    """Leave actions absolute instead of making joints relative to the state at the chunk's first step."""
    fast_vocabulary: int = 1024
    """Tokens of the FAST tokenizer; 0 trains none."""

    def __post_init__(self) -> None:
        """Check what types cannot say."""
        known = get_args(Normalisation)
        if self.normalisation not in known:
            raise ValueError(f"normalisation is {self.normalisation!r}; expected one of {', '.join(known)}")


@dataclass(frozen=True)
class Inputs:
    """What the pass reads."""

    dataset: Artifact
    """The checked demonstrations."""


def run(config: Config, inputs: Inputs, work: Work) -> Result:
    """Compute and write the statistics."""
    accumulator = DatasetAccumulator(absolute_actions=config.absolute_actions)
    try:
        dataset = LeRobotDataset(inputs.dataset.path / "data")
        episodes = dataset.select([task(name).index for name in config.tasks])
        lengths = [episode.length for episode in episodes]
        sample = ChunkSample(lengths, absolute_actions=config.absolute_actions)
        for number, episode in enumerate(work.progress.track(episodes, "reading episodes")):
            state, actions = dataset.state_and_actions(episode)
            stages = TASKS_BY_INDEX[episode.task].stages
            accumulator.update(episode.task, episode.task_name, stages, state, actions, episode.human)
            sample.update(number, state, actions)
        statistics = accumulator.finish(normalisation=cast(Normalisation, config.normalisation))
        fast = None
        if config.fast_vocabulary:
            statistics, fast = _with_tokenizer(statistics, sample, config.fast_vocabulary, work)
    except ValueError as error:  # an unknown task, or data that are not as expected
        raise UserError(str(error)) from error
    statistics.save(work.path)
    counts = {"frames": statistics.num_frames, "chunks": statistics.num_chunks, "episodes": len(episodes)}
    measured = {} if fast is None else {f"fast_{name}": float(v) for name, v in asdict(fast).items()}
    return Result(
        metrics={**{name: float(value) for name, value in counts.items()}, **measured},
        metadata={
            **counts,
            "normalisation": config.normalisation,
            "absolute_actions": config.absolute_actions,
            "fast_vocabulary": config.fast_vocabulary,
        },
        html=summary_page(statistics, fast),
    )


def _with_tokenizer(
    statistics: Statistics, sample: ChunkSample, vocabulary: int, work: Work
) -> tuple[Statistics, Measurements]:
    chunks, held_out = statistics.normalise_quantiles(sample.chunks), sample.held_out
    with work.progress.task("training the FAST tokenizer", total=2) as task:
        tokenizer = FastTokenizer.train(chunks[~held_out], vocab_size=vocabulary)
        task.advance()
        measured = measure(tokenizer, chunks[held_out] if held_out.any() else chunks)
        task.advance()
    return replace(statistics, fast=tokenizer), measured


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
        "pi_behavior.fast",
        "pi_behavior.layout",
        "pi_behavior.statistics",
    ),
)
