"""Compute the statistics of the demonstrations in one pass: moments, quantiles, correlation, tables.

Report, sections 4.5 and 5. Writes `norm_stats.json` in the published layout, `human.json` (mean length and
displacements per task), `closure.json` (whether each gripper was ever closed, per task and stage) and
`fast_tokenizer/` (section 4.7).
"""

import hashlib
import json
import os
from dataclasses import asdict, replace

from components.errors import UserError
from components.runtime.stage import Result, Stage, Work
from components.statistics.config import DECLARATION, Config, Inputs
from components.statistics.reading import Cache, read_all
from components.statistics.summary import summary_page
from components.statistics.tokenizer import ChunkSample, Measurements, measure
from components.store.identity import code_digest
from components.store.sums import SUMS, parse_sums
from pi_behavior.challenge import task
from pi_behavior.data.lerobot import Episode, LeRobotDataset
from pi_behavior.fast import FastTokenizer
from pi_behavior.statistics import Statistics


def run(config: Config, inputs: Inputs, work: Work) -> Result:
    """Compute and write the statistics."""
    source = inputs.dataset.path
    digests = parse_sums((source / SUMS).read_text())
    kept = Cache(work.workspace / "statistics", code_digest(STAGE.code)[:12])
    try:
        dataset = LeRobotDataset(source / "data")
        episodes = dataset.select([task(name).index for name in config.tasks])
        if config.stages == "skills":
            episodes = tuple(map(dataset.with_skills, episodes))
            if not any(episode.skills for episode in episodes):
                raise UserError(
                    f"stages is skills, and none of the {len(episodes)} demonstrations has annotated skills; "
                    "expected annotations/, or stages equal"
                )
        keys = {e: _key(digests[dataset.data_path(e).relative_to(source).as_posix()], e) for e in episodes}
        with work.progress.task("reading frames") as bar:
            sums = read_all(
                dataset,
                keys,
                kept,
                absolute=config.absolute_actions,
                processes=config.processes or os.cpu_count() or 1,
                on_frames=lambda done, total: bar.update(done, total=total),
            )
        sample, accumulator = sums.sample, sums.accumulator
        statistics = replace(
            accumulator.finish(normalisation=config.normalisation),
            stages=config.stages,
            proprioception=dataset.proprioception,
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
            "stages": config.stages,
            "annotated": sum(bool(episode.skills) for episode in episodes),
            "absolute_actions": config.absolute_actions,
            "fast_vocabulary": config.fast_vocabulary,
        },
        summary=", ".join(f"{count} {name}" for name, count in counts.items()),
        html=summary_page(statistics, fast),
    )


def _key(digest: str, episode: Episode) -> str:
    """Digest of what a demonstration adds to the statistics."""
    human = json.dumps(sorted(episode.human.items()))
    place = f"{episode.folder} {episode.index} {episode.before} {episode.length}"
    text = f"{digest} {place} {human} {episode.skills}"
    return hashlib.sha256(text.encode()).hexdigest()[:32]


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
