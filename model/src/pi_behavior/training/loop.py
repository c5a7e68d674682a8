"""The training loop: resume, step, log, save."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from pi_behavior import checkpoint
from pi_behavior.config import NetworkConfig
from pi_behavior.data.pipeline import Batch
from pi_behavior.families import family_of
from pi_behavior.network.layers import State
from pi_behavior.observation import Earlier, FastTokens, Observation
from pi_behavior.statistics import Statistics
from pi_behavior.tensors import flat_parameters
from pi_behavior.training.config import TrainConfig
from pi_behavior.training.errors import NonFiniteError, PreemptedError
from pi_behavior.training.feed import Feed
from pi_behavior.training.hooks import INPUT_WAIT, Hook
from pi_behavior.training.saving import SavedStates, check_space, told_to_end
from pi_behavior.training.sharding import batch_sharding, make_mesh, replicated
from pi_behavior.training.state import TrainState, create_state
from pi_behavior.training.step import Evaluation, StepFunction, TrainBatch, make_evaluation, make_step

Batches = Callable[[int], Iterator[Batch]]
"""Opens the batches of a run, from the given step on."""


def train(
    model: NetworkConfig,
    config: TrainConfig,
    statistics: Statistics,
    batches: Batches,
    work: Path,
    *,
    initial: Path | None = None,
    keep_initial: bool = False,
    hooks: Sequence[Hook] = (),
    held_out: Batches | None = None,
) -> Path:
    """Train a policy, or continue where a killed run left off.

    Args:
        model: the network.
        config: the run.
        statistics: of the demonstrations; goes into the checkpoint.
        batches: opens the input from a step on.
        work: folder for `checkpoint/`, `initial/` and, until the end, `state/`.
        initial: a checkpoint whose parameters the run starts from.
        keep_initial: also write the parameters of step 0 as `initial/`.
        hooks: called every `log_every` steps with mean metrics.
        held_out: opens batches that are not trained on. Every `validate_every` steps the metrics have theirs
            too, of the moving average, with `held_out_` before the name.

    Returns:
        The folder of the final checkpoint, which holds the moving average.

    Raises:
        NonFiniteError: loss, gradient or state are not finite; names the steps and the last good state.
        PreemptedError: this process, or one of several, was told to end (SIGTERM); the state is saved.
        NoSpaceError: the disk has too little space for states and checkpoint.
        ValueError: the batch or the devices do not divide, or `initial` does not fit the network.
    """
    mesh = make_mesh(config.fsdp)
    check_batch(config, mesh.size)
    final = work / "checkpoint"
    if final.exists():
        return final
    graph, state = create_state(model, config, mesh)
    if initial is not None:
        checkpoint.restore_parameters(initial, state.parameters)
        state = replace(state, average=jax.tree.map(jnp.copy, state.parameters))

    constants, beside = family_of(model).prepare(model, statistics, initial)

    def save(path: Path, parameters: State, step: int) -> None:
        checkpoint.save(path, flat_parameters(parameters), config=model, statistics=beside, step=step)

    if keep_initial and not (work / "initial").exists():
        save(work / "initial", state.parameters, 0)
    check_space(work, state)
    with SavedStates(work / "state", config) as saved:
        state = saved.restore(state)
        constants = jax.device_put(constants, replicated(mesh))
        step_function = make_step(graph, model, config, constants, state, mesh)
        sharding = batch_sharding(mesh)
        measure = None
        if held_out is not None:
            evaluate = make_evaluation(graph, model, config, constants, state.parameters, mesh)
            measure = partial(_measure, evaluate, held_out, sharding, config.validation_batches)
        state = _run(step_function, config, state, batches, hooks, saved, sharding, measure)
    save(final, state.average if config.ema_decay else state.parameters, int(state.step))
    return final


def check_batch(config: TrainConfig, devices: int) -> None:
    """Check that a batch divides; ValueError if not."""
    if config.batch_size % (devices * config.accumulate):
        parts = f", times accumulate {config.accumulate}" if config.accumulate > 1 else ""
        raise ValueError(f"batch_size {config.batch_size} is not a multiple of the {devices} devices{parts}")


def _run(
    step_function: StepFunction,
    config: TrainConfig,
    state: TrainState,
    batches: Batches,
    hooks: Sequence[Hook],
    saved: SavedStates,
    sharding: jax.sharding.Sharding,
    measure: Callable[[State], dict[str, float]] | None,
) -> TrainState:
    start = int(state.step)
    if start == config.steps:
        return state
    collected: list[dict[str, jax.Array]] = []
    # the step is the position in the input
    with told_to_end() as told, Feed(batches(start), partial(_to_devices, sharding=sharding)) as feed:
        for step in range(start + 1, config.steps + 1):
            state, metrics = step_function(state, feed.next(collected))
            collected.append(metrics)
            measured = measure is not None and (step % config.validate_every == 0 or step == config.steps)
            looked = measured or step % config.log_every == 0 or step == config.steps
            if looked:
                more = measure(state.average) if measure is not None and measured else {}
                _report(step, collected, feed.waited, more, hooks, saved)
                collected, feed.waited = [], 0.0
            if step == config.steps:
                saved.require_finite(step, state)  # it becomes the checkpoint
                break
            # of several processes, JAX takes the SIGTERM that one gets
            end = bool(told) if jax.process_count() == 1 else saved.preempted(step)
            if end or saved.due(step, looked=looked):
                saved.save(step, state)
            if end:
                saved.wait()
                raise PreemptedError(f"told to end after step {step}; {saved.last()}")
    return state


def _to_devices(batch: Batch, sharding: jax.sharding.Sharding) -> TrainBatch:
    def put(array: np.ndarray) -> jax.Array:
        return jax.make_array_from_process_local_data(sharding, array)

    images = {camera: put(image) for camera, image in batch.images.items()}
    earlier = batch.earlier and Earlier(*jax.tree.map(put, batch.earlier))
    observation = Observation(images, put(batch.state), put(batch.task), put(batch.stage), earlier)
    fast = None if batch.fast is None else FastTokens(put(batch.fast.tokens), put(batch.fast.mask))
    return TrainBatch(observation, put(batch.actions), fast)


def _report(
    step: int,
    collected: Sequence[dict[str, jax.Array]],
    waited: float,
    held_out: Mapping[str, float],
    hooks: Sequence[Hook],
    saved: SavedStates,
) -> None:
    means = {name: float(np.mean([m[name] for m in collected])) for name in collected[0]}
    broken = sorted(name for name, value in means.items() if not math.isfinite(value))
    if broken:
        raise NonFiniteError(
            f"{', '.join(broken)} not finite in steps {step - len(collected) + 1} to {step}; "
            "lower the learning rate or look for broken episodes with the dataset stage's checks. "
            f"Of states, {saved.last()}"
        )
    for hook in hooks:
        hook(step, {**means, **held_out, INPUT_WAIT: waited / len(collected)})


def _measure(
    evaluate: Evaluation, open_batches: Batches, sharding: jax.sharding.Sharding, count: int, state: State
) -> dict[str, float]:
    """Mean metrics of the first batches of an input."""
    with Feed(open_batches(0), partial(_to_devices, sharding=sharding)) as feed:
        found = [evaluate(state, feed.next(()), number) for number in range(count)]
    return {f"held_out_{name}": float(np.mean([one[name] for one in found])) for name in found[0]}


def resolved(model: NetworkConfig, config: TrainConfig) -> dict[str, object]:
    """The whole configuration of a run, as saved beside its checkpoint."""
    return {"model": asdict(model), "train": asdict(config)}
