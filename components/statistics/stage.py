"""Compute the statistics of the demonstrations in one pass: moments, quantiles, correlation, tables.

Report, sections 4.5 and 5. Writes `norm_stats.json` in the published layout, `human.json` (mean length and
displacements per task), `closure.json` (whether each gripper was ever closed, per task and stage) and
`fast_tokenizer/` (section 4.7).
"""

from dataclasses import asdict, replace

from components.errors import UserError
from components.runtime.stage import Result, Stage, Work
from components.statistics.config import DECLARATION, Config, Inputs
from components.statistics.summary import summary_page
from components.statistics.tokenizer import ChunkSample, Measurements, measure
from pi_behavior.accumulators import DatasetAccumulator
from pi_behavior.challenge import TASKS_BY_INDEX, task
from pi_behavior.data.lerobot import LeRobotDataset
from pi_behavior.fast import FastTokenizer
from pi_behavior.statistics import Statistics


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
        statistics = replace(
            accumulator.finish(normalisation=config.normalisation), proprioception=dataset.proprioception
        )
        fast = None
        if config.fast_vocabulary:
            statistics, fast = _with_tokenizer(statistics, sample, config.fast_vocabulary, work)
    except ValueError as error:  # data that are not as expected
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
        summary=", ".join(f"{count} {name}" for name, count in counts.items()),
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


STAGE = Stage(DECLARATION, run)
