"""Train a policy on the demonstrations: all tasks, or fine-tuning on a group of tasks from a checkpoint.

Report, section 6. Continues from its last saved state when it was killed. Over several nodes it is started
once per node, see `processes.py`.
"""

import dataclasses
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from components.runtime.errors import UserError
from components.runtime.progress import Progress, TaskProgress
from components.runtime.stage import PARTIAL, Result, Stage, Work
from components.store.artifact import Artifact, write_atomic
from components.store.lineage import Dependency
from components.train.multiprocess import Processes
from components.train.warm_start import continued
from pi_behavior.challenge import task
from pi_behavior.config import ModelConfig, TrainConfig, model_config
from pi_behavior.fast import FastTokenizer
from pi_behavior.statistics import Statistics
from pi_behavior.training.hooks import Hook


@dataclass(frozen=True)
class Config:
    """A training run."""

    name: str = "common"
    """Name of the policy: common, or the task group that it is fine-tuned for."""
    tasks: tuple[str, ...] = ()
    """Tasks to train on; none means all tasks of the dataset."""
    model: str = "tiny"
    """Size of the network: tiny, small or full."""
    network: tuple[str, ...] = ()
    """Fields of the network to change, as name=value: noise_beta=0 for white noise, kv_mix=layerwise,
    knowledge_insulation=true, stage_conditioning=false, fast=false, ... (see ModelConfig)."""
    initial_checkpoint: str = ""
    """Folder of a checkpoint to start from where no policy is given as `initial`: one of ours, such as
    `b1k checkpoint import` makes of Pi0.5 base. Of a trained policy, normalisation, correlation and tokenizer
    are kept too, by either way."""
    steps: int = 1000
    """Gradient steps."""
    batch_size: int = 64
    """Observations per step, over all devices."""
    flow_samples: int = 15
    """Flow samples per observation (report, section 6.2)."""
    peak_learning_rate: float = 1e-4
    """Learning rate after warm-up."""
    final_learning_rate: float = 1e-5
    """Learning rate at the end of the cosine decay."""
    warmup_steps: int = 100
    """Steps of linear warm-up."""
    ema_decay: float = 0.99
    """Decay of the moving average of the weights."""
    augment: bool = True
    """Augment images."""
    fsdp: int = 1
    """Devices that share parameters and optimizer state."""
    save_every: int = 500
    """Steps between saved states."""
    log_every: int = 20
    """Steps between logged metrics."""
    frame_cache: bool = True
    """Decode all videos once into the workspace; needs space for the raw frames."""
    keep_initial: bool = False
    """Keep the parameters of step 0 as a second checkpoint, to be evaluated as the untrained policy."""
    track: bool = True
    """Log to Weights & Biases (offline unless WANDB_MODE says otherwise)."""
    seed: int = 0
    """Seed of initialisation, batches and noise."""

    def training(self) -> TrainConfig:
        """The part that the training loop reads."""
        names = {f.name for f in dataclasses.fields(TrainConfig)}
        return TrainConfig(**{k: v for k, v in dataclasses.asdict(self).items() if k in names})


@dataclass(frozen=True)
class Inputs:
    """What training reads."""

    dataset: Artifact
    """The checked demonstrations."""
    statistics: Artifact
    """Their statistics."""
    initial: Artifact | None = None
    """A trained policy to start from."""


def run(config: Config, inputs: Inputs, work: Work) -> Result:
    """Train, and write `checkpoint/`, `metrics.jsonl`, `config.json` and `record.json`."""
    # seconds of imports that `--help` should not wait for
    import jax

    from pi_behavior.data.pipeline import Batch, make_loader
    from pi_behavior.training.hooks import JsonLines
    from pi_behavior.training.loop import resolved, train

    try:
        model, training = model_config(config.model, config.network), config.training()
        indices = tuple(task(name).index for name in config.tasks)
    except ValueError as error:
        raise UserError(str(error)) from error
    with _mistakes():
        statistics, kept = _statistics(config, inputs)
    data = inputs.dataset.path / "data"
    cache = work.workspace / "frames" / inputs.dataset.digest[:16] if config.frame_cache else None
    fast = _tokenizer(statistics, model) if model.fast else None

    def batches(start: int) -> Iterator[Batch]:
        return make_loader(
            data,
            statistics,
            tasks=indices,
            image_size=model.vision.image_size,
            batch_size=training.batch_size,
            seed=config.seed,
            fast=fast,
            frame_cache=cache,
            start_batch=start,
            shard_index=jax.process_index(),
            shard_count=jax.process_count(),
            on_progress=_show_decoding(work.progress),
        )

    leads = jax.process_index() == 0
    metrics_file = work.path / "metrics.jsonl"
    hooks: list[Hook] = [_Display(work.progress, config.name, config.steps)]
    if leads:
        hooks.append(JsonLines(metrics_file, _last_saved(work.path)))
    with _mistakes(), _tracking(config, work, resolved(model, training), on=leads) as tracker:
        train(
            model,
            training,
            statistics,
            batches,
            work.path,
            initial=_initial(config, inputs),
            keep_initial=config.keep_initial,
            hooks=[*hooks, *tracker],
        )
    if not leads:
        return Result()
    # the optimizer's state is for resuming this run only, and three times as large as the policy
    shutil.rmtree(work.path / "state", ignore_errors=True)
    write_atomic(work.path / "config.json", json.dumps(resolved(model, training), indent=2) + "\n")
    record = {"name": config.name, "tasks": list(config.tasks), **kept}
    write_atomic(work.path / "record.json", json.dumps(record) + "\n")
    last = _last_metrics(metrics_file)
    return Result(
        metrics=last,
        metadata={
            "name": config.name,
            "model": config.model,
            "steps": config.steps,
            "statistics_of": kept["statistics_of"],
        },
    )


def _initial(config: Config, inputs: Inputs) -> Path | None:
    """The checkpoint to start from."""
    if inputs.initial is not None:
        return inputs.initial.path / "checkpoint"
    return Path(config.initial_checkpoint) if config.initial_checkpoint else None


def _statistics(config: Config, inputs: Inputs) -> tuple[Statistics, dict[str, Any]]:
    """What to normalise with, and facts about where it comes from."""
    from pi_behavior.checkpoint import STATISTICS, read_statistics

    given = Statistics.load(inputs.statistics.path)
    start = _initial(config, inputs)
    if start is None or not (start / STATISTICS).is_dir():
        return given, {"statistics_of": "demonstrations"}
    statistics, state, action = continued(read_statistics(start), given)
    return statistics, {"statistics_of": "initial", "renormalised": {"state": state, "action": action}}


def _external(config: Config, inputs: Inputs) -> tuple[Dependency, ...]:
    """The starting checkpoint where it is no artifact."""
    if inputs.initial is not None or not config.initial_checkpoint:
        return ()
    from pi_behavior.checkpoint import read_config

    folder = Path(config.initial_checkpoint)
    with _mistakes():
        read_config(folder)
    return (Dependency.of_folder("initial_checkpoint", folder),)


@contextmanager
def _mistakes() -> Iterator[None]:
    """A starting checkpoint that cannot be read or does not fit the network is the user's mistake."""
    from pi_behavior.checkpoint import CheckpointError

    try:
        yield
    except CheckpointError as error:
        raise UserError(f"initial checkpoint: {error}") from error


def _tokenizer(statistics: Statistics, model: ModelConfig) -> FastTokenizer:
    """The tokenizer for a network with a FAST head."""
    if statistics.fast is None or statistics.fast.vocab_size > model.fast_vocabulary:
        have = "none" if statistics.fast is None else f"one of {statistics.fast.vocab_size} tokens"
        raise UserError(
            f"the network predicts FAST tokens and needs a tokenizer of at most {model.fast_vocabulary}; the "
            f"statistics hold {have}. Run the statistics stage with --config.fast-vocabulary "
            f"{model.fast_vocabulary}, or train with --config.network fast=false"
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


class _Display:
    """Shows the step and the loss."""

    def __init__(self, progress: Progress, name: str, steps: int) -> None:
        self.task = progress.task(f"training {name}", total=steps)

    def __call__(self, step: int, metrics: Mapping[str, float]) -> None:
        accuracy = f", stage accuracy {metrics['stage_accuracy']:.0%}" if "stage_accuracy" in metrics else ""
        self.task.update(completed=step, note=f"loss {metrics['loss']:.4f}{accuracy}")


@contextmanager
def _tracking(
    config: Config, work: Work, settings: Mapping[str, object], *, on: bool
) -> Iterator[list[Hook]]:
    if not on or not config.track or os.environ.get("WANDB_MODE") == "disabled":
        yield []
        return
    from pi_behavior.training.hooks import WeightsAndBiases

    tracker = WeightsAndBiases(work.workspace / "wandb", f"{config.name}-{work.path.stem}", settings)
    try:
        yield [tracker]
    finally:
        tracker.close()


def _last_saved(path: Path) -> int:
    """Step of the last whole saved state; later metrics will be computed again."""
    steps = [int(p.name) for p in (path / "state").glob("*") if p.name.isdigit()]
    return max(steps, default=0)


def _last_metrics(path: Path) -> dict[str, float]:
    lines = path.read_text().splitlines() if path.exists() else []
    if not lines:
        return {}
    return {k: float(v) for k, v in json.loads(lines[-1]).items() if k != "step"}


@dataclass(frozen=True)
class TrainStage(Stage[Config, Inputs]):
    """A stage that one process per node may run together; the first of them is the stage of all others."""

    processes: Processes = field(default_factory=Processes)

    def main(self, arguments: Sequence[str] | None = None) -> NoReturn:
        """Run as a command, alone or with others."""
        try:
            super().main(arguments)
        except SystemExit as end:
            self.processes.leave(end.code if isinstance(end.code, int) else 0)
            raise

    def _main(self, arguments: list[str]) -> None:
        self.processes.join()
        if self.processes.leads:
            super()._main(arguments)
        else:
            self._follow(arguments)

    def _follow(self, arguments: list[str]) -> None:
        """Work with process 0, which makes the artifact."""
        _, call = self._call(arguments)
        workspace = call.workspace.resolve()
        external = self.external(call.config, call.inputs)
        partial = self.place(call.config, call.inputs, workspace, external).with_suffix(PARTIAL)
        if self.processes.follow():
            partial.mkdir(parents=True, exist_ok=True)
            self._run(call.config, call.inputs, Work(partial, workspace, Progress()))
            self.processes.follow()
        print(f"{self.name}: process 0 has the artifact", flush=True)

    def _run(self, config: Config, inputs: Inputs, work: Work) -> Result:
        with self.processes.at_work(work.path.stem):
            return super()._run(config, inputs, work)


STAGE = TrainStage("train", Config, Inputs, run, ("pi_behavior",), _external)
