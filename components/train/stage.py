"""Train a policy on the demonstrations: all tasks, or fine-tuning on a group of tasks from a checkpoint.

Report, section 6. A killed training continues from its last saved state. Over several nodes it is started
once per node, see `multiprocess.py`.
"""

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from components.errors import PassingError, UserError
from components.evaluation import records
from components.evaluation.records import TRAIN_RECORD, TrainRecord
from components.runtime.curves import draw_all
from components.runtime.page import figure, page, paragraph
from components.runtime.progress import TaskProgress
from components.runtime.stage import Result, Work
from components.store.lineage import Dependency
from components.store.making import exclusive, lock_of
from components.train.config import DECLARATION, Config, Inputs
from components.train.multiprocess import MultiprocessStage
from components.train.tracking import tracked
from components.train.warm_start import continued
from pi_behavior.challenge import task
from pi_behavior.checkpoint_description import ORIGIN, STATISTICS, CheckpointError, read_config
from pi_behavior.data.meta import DatasetError
from pi_behavior.data.training_copy import MANIFEST
from pi_behavior.families import module_of
from pi_behavior.fast import FastTokenizer
from pi_behavior.files import NoSpaceError
from pi_behavior.statistics import Statistics
from pi_behavior.statistics_files import NORM_STATS
from pi_behavior.training.errors import PreemptedError
from pi_behavior.training.hooks import INPUT_WAIT, Hook

if TYPE_CHECKING:
    from pi_behavior.data.pipeline import Samples


def run(config: Config, inputs: Inputs, work: Work) -> Result:
    """Train, and write `checkpoint/`, `metrics.jsonl` and `record.json`."""
    # seconds of imports that `--help` should not wait for
    import jax

    from pi_behavior.data.pipeline import Batch, Samples, make_loader
    from pi_behavior.training.hooks import JsonLines
    from pi_behavior.training.loop import train

    with _mistakes():
        statistics, record = _statistics(config, inputs)
        samples = _samples(config, inputs, statistics, work)
        validation = _samples(config, inputs, statistics, work, validation=True) if config.held_out else None

    def batches(samples: Samples, workers: int, start: int) -> Iterator[Batch]:
        return make_loader(
            samples,
            batch_size=config.batch_size,
            seed=config.seed,
            weights=config.weights(),
            start_batch=start,
            shard_index=jax.process_index(),
            shard_count=jax.process_count(),
            workers=workers,
        )

    leads = jax.process_index() == 0
    metrics = work.path / "metrics.jsonl"
    name = f"{config.name}-{work.path.stem}"
    with (
        _mistakes(),
        work.progress.task(f"training {config.name}", total=config.steps) as bar,
        tracked(work.workspace, name, work.path.stem, asdict(config), on=leads and config.track) as trackers,
    ):
        train(
            config.model,
            config,
            statistics,
            partial(batches, samples, config.input_workers),
            work.path,
            initial=_initial(config, inputs),
            keep_initial=config.keep_initial,
            # few batches at a time: processes would be started for them anew each time
            held_out=partial(batches, validation, 0) if validation is not None else None,
            hooks=[_display(bar), *([JsonLines(metrics)] if leads else []), *trackers],
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


def _samples(
    config: Config, inputs: Inputs, statistics: Statistics, work: Work, *, validation: bool = False
) -> "Samples":
    """What is trained on, or held out: the training copy, or originals beside a copy of their columns."""
    from pi_behavior.data.lerobot import LeRobotDataset
    from pi_behavior.data.packing import make_copy
    from pi_behavior.data.pipeline import open_samples
    from pi_behavior.data.training_copy import CopyOptions, TrainingCopy

    originals = None
    if inputs.prepared is not None:
        root = inputs.prepared.path
    else:
        originals = LeRobotDataset(inputs.dataset.path / "data")
        root = work.workspace / "columns" / inputs.dataset.digest[:16]
        with exclusive(lock_of(root), "train: another training copies the columns; waiting for it"):
            if not (root / MANIFEST).exists():
                with work.progress.task("copying states and actions") as bar:
                    make_copy(
                        originals,
                        root,
                        CopyOptions(),
                        cameras=(),
                        digest=str,
                        on_frames=lambda done, total: bar.update(done, total=total),
                    )
    return open_samples(
        TrainingCopy(root),
        statistics,
        image_size=config.model.image_size,
        tasks=tuple(task(name).index for name in config.tasks),
        originals=originals,
        fast=_tokenizer(statistics, config.model.fast_tokens) if config.model.fast_tokens else None,
        together=config.together,
        observation_steps=config.model.observation_steps,
        horizon=config.model.horizon,
        validation_share=config.held_out,
        validation=validation,
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
    if start is None or not (start / STATISTICS / NORM_STATS).is_file():
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
    found = Dependency.of_folder("initial_checkpoint", folder, workspace)
    origin = folder / STATISTICS / ORIGIN
    made_from = json.loads(origin.read_text()) if origin.is_file() else {}
    return (replace(found, annotations={**found.annotations, **made_from}),)


@contextmanager
def _mistakes() -> Iterator[None]:
    """What is the user's to mend, unreadable files or a full disk, and what passes, as being told to end."""
    try:
        yield
    except CheckpointError as error:
        raise UserError(f"initial checkpoint: {error}") from error
    except (NoSpaceError, DatasetError) as error:
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


def _display(bar: TaskProgress) -> Hook:
    """Shows the step, the loss, and how long the devices wait for input."""

    def show(step: int, metrics: Mapping[str, float]) -> None:
        accuracy = f", stage accuracy {metrics['stage_accuracy']:.0%}" if "stage_accuracy" in metrics else ""
        wait = f", {metrics[INPUT_WAIT]:.2f} s a step waiting for input"
        bar.update(completed=step, note=f"loss {metrics['loss']:.4f}{accuracy}{wait}")

    return show


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


STAGE = MultiprocessStage(
    DECLARATION, run, external=external, imports=lambda config: (module_of(config.model),)
)
