"""Train a policy on the demonstrations: all tasks, or fine-tuning on a group of tasks from a checkpoint.

Report, section 6. A killed training continues from its last saved state. Over several nodes it is started
once per node, see `multiprocess.py`.
"""

import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from components.errors import PassingError, UserError
from components.evaluation import records
from components.evaluation.records import TRAIN_RECORD, TrainRecord
from components.runtime.curves import draw_all
from components.runtime.page import figure, page, paragraph
from components.runtime.progress import Progress, TaskProgress
from components.runtime.stage import Result, Work
from components.store.lineage import Dependency
from components.train.config import DECLARATION, Config, Inputs
from components.train.multiprocess import MultiprocessStage
from components.train.warm_start import continued
from pi_behavior.challenge import task
from pi_behavior.checkpoint_description import STATISTICS, CheckpointError, read_config
from pi_behavior.fast import FastTokenizer
from pi_behavior.files import NoSpaceError
from pi_behavior.statistics import Statistics
from pi_behavior.training.errors import PreemptedError
from pi_behavior.training.hooks import Hook


def run(config: Config, inputs: Inputs, work: Work) -> Result:
    """Train, and write `checkpoint/`, `metrics.jsonl` and `record.json`."""
    # seconds of imports that `--help` should not wait for
    import jax

    from pi_behavior.data.pipeline import Batch, make_loader
    from pi_behavior.training.hooks import JsonLines
    from pi_behavior.training.loop import train

    with _mistakes():
        statistics, record = _statistics(config, inputs)
    data = inputs.dataset.path / "data"
    cache = work.workspace / "frames" / inputs.dataset.digest[:16] if config.frame_cache else None
    fast = _tokenizer(statistics, config.model.fast_vocabulary) if config.model.fast else None

    def batches(start: int) -> Iterator[Batch]:
        return make_loader(
            data,
            statistics,
            tasks=tuple(task(name).index for name in config.tasks),
            image_size=config.model.vision.image_size,
            batch_size=config.batch_size,
            seed=config.seed,
            fast=fast,
            frame_cache=cache,
            start_batch=start,
            shard_index=jax.process_index(),
            shard_count=jax.process_count(),
            on_progress=_show_decoding(work.progress),
        )

    leads = jax.process_index() == 0
    metrics = work.path / "metrics.jsonl"
    with (
        _mistakes(),
        work.progress.task(f"training {config.name}", total=config.steps) as bar,
        _tracking(config, work, on=leads and config.track) as tracker,
    ):
        train(
            config.model,
            config,
            statistics,
            batches,
            work.path,
            initial=_initial(config, inputs),
            keep_initial=config.keep_initial,
            hooks=[_display(bar), *([JsonLines(metrics)] if leads else []), *tracker],
        )
    if not leads:
        return Result()
    # the optimizer's state is for resuming this run only, and three times as large as the policy
    shutil.rmtree(work.path / "state", ignore_errors=True)
    records.write(work.path / TRAIN_RECORD, record)
    last = _last_metrics(metrics)
    loss = f", loss {last['loss']:.4f}" if last else ""
    return Result(
        metrics=last,
        metadata={"name": config.name, "steps": config.steps, "statistics_of": record.statistics_of},
        summary=f"policy {config.name}, {config.steps} steps{loss}",
        html=_page(config, metrics),
    )


def _initial(config: Config, inputs: Inputs) -> Path | None:
    """The checkpoint to start from."""
    if inputs.initial is not None:
        return inputs.initial.path / "checkpoint"
    return Path(config.initial_checkpoint) if config.initial_checkpoint else None


def _statistics(config: Config, inputs: Inputs) -> tuple[Statistics, TrainRecord]:
    """The statistics to normalise with, and the record that says where they come from."""
    from pi_behavior.checkpoint import read_statistics

    given = Statistics.load(inputs.statistics.path)
    _check_tasks(config, given)
    start = _initial(config, inputs)
    if start is None or not (start / STATISTICS).is_dir():
        return given, TrainRecord(config.name, config.tasks, "demonstrations")
    statistics, renormalised = continued(read_statistics(start), given)
    return statistics, TrainRecord(config.name, config.tasks, "initial", renormalised)


def _check_tasks(config: Config, statistics: Statistics) -> None:
    """Refuse demonstrations of tasks that the network has no embedding of."""
    wanted = {task(name).index for name in config.tasks} or set(map(int, statistics.closure))
    if unknown := sorted(index for index in wanted if index >= config.model.tasks):
        raise UserError(
            f"the demonstrations are also of the tasks {', '.join(map(str, unknown))}, and the network has "
            f"embeddings of the tasks 0 to {config.model.tasks - 1}; give another model, such as full_2026, "
            "or the names of fewer tasks"
        )


def external(config: Config, inputs: Inputs, workspace: Path) -> tuple[Dependency, ...]:
    """The starting checkpoint where it is no input."""
    if inputs.initial is not None or not config.initial_checkpoint:
        return ()
    folder = Path(config.initial_checkpoint)
    with _mistakes():
        read_config(folder)
    return (Dependency.of_folder("initial_checkpoint", folder, workspace),)


@contextmanager
def _mistakes() -> Iterator[None]:
    """What is the user's to mend, a checkpoint or a full disk, and what passes, as being told to end."""
    try:
        yield
    except CheckpointError as error:
        raise UserError(f"initial checkpoint: {error}") from error
    except NoSpaceError as error:
        raise UserError(str(error)) from error
    except PreemptedError as error:
        # another attempt, perhaps on another node, continues from there
        raise PassingError(str(error)) from error


def _tokenizer(statistics: Statistics, most: int) -> FastTokenizer:
    """The tokenizer for a network with a FAST head of that many tokens."""
    if statistics.fast is None or statistics.fast.vocab_size > most:
        have = "none" if statistics.fast is None else f"one of {statistics.fast.vocab_size} tokens"
        raise UserError(
            f"the network predicts FAST tokens and needs a tokenizer of at most {most}; the statistics hold "
            f"{have}. Run the statistics stage with --config.fast-vocabulary {most}, or train with "
            "--config.model.no-fast (of a pipeline: --set train.model.fast=false)"
        )
    return statistics.fast


def _show_decoding(progress: Progress) -> Callable[[str, int, int], None]:
    """A callback that shows how far the frame cache is; the task appears with the first call."""
    shown: dict[str, TaskProgress] = {}

    def report(what: str, done: int, total: int) -> None:
        if what not in shown:
            shown[what] = progress.task(what, total=total)
        shown[what].update(completed=done)

    return report


def _display(bar: TaskProgress) -> Hook:
    """Shows the step and the loss."""

    def show(step: int, metrics: Mapping[str, float]) -> None:
        accuracy = f", stage accuracy {metrics['stage_accuracy']:.0%}" if "stage_accuracy" in metrics else ""
        bar.update(completed=step, note=f"loss {metrics['loss']:.4f}{accuracy}")

    return show


@contextmanager
def _tracking(config: Config, work: Work, *, on: bool) -> Iterator[list[Hook]]:
    """Weights & Biases; offline where its server cannot be reached or refuses the key."""
    if not on or os.environ.get("WANDB_MODE") == "disabled":
        yield []
        return
    from pi_behavior.training.hooks import WeightsAndBiases

    folder, identity = work.workspace / "wandb", work.path.stem
    tracker = WeightsAndBiases(folder, f"{config.name}-{identity}", asdict(config), identity)
    if tracker.failure:
        print(
            f"train: Weights & Biases is offline, which failed: {tracker.failure}. The records are in "
            f"{folder} for `wandb sync`",
            flush=True,
        )
    try:
        yield [tracker]
    finally:
        tracker.close()


def _page(config: Config, path: Path) -> str:
    """The training curves, the loss first."""
    rows = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    curves = draw_all(config.name, rows)
    few = [] if curves else [paragraph("Too few steps were logged for a curve (log_every).")]
    return page(f"Training of {config.name}, {config.steps:,} steps", *map(figure, curves), *few)


def _last_metrics(path: Path) -> dict[str, float]:
    lines = path.read_text().splitlines() if path.exists() else []
    if not lines:
        return {}
    return {k: float(v) for k, v in json.loads(lines[-1]).items() if k != "step"}


STAGE = MultiprocessStage(DECLARATION, run, external=external)
