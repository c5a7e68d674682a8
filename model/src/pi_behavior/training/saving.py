"""Saved states of a run, which a killed training continues from.

A state appears whole or not at all (Orbax), and gets a file of checksums when it is there. The last two are
kept, and one every `keep_every` steps. A damaged one is left out, and the one before it is used.
"""

import logging
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental.multihost_utils import broadcast_one_to_all

from pi_behavior.files import NoSpaceError, changed_files, write_sums
from pi_behavior.training.config import TrainConfig
from pi_behavior.training.errors import NonFiniteError
from pi_behavior.training.state import TrainState

logger = logging.getLogger(__name__)
_KEPT = 2


class SavedStates:
    """The saved states of a run in a folder; a context manager, which waits for what is being written.

    Where several processes hold the state, all call everything.
    """

    def __init__(self, folder: Path, config: TrainConfig) -> None:
        self._folder = folder.absolute()
        self._config = config
        self._last = time.monotonic()
        self.good: int | None = None
        """Step of the last state that was saved, or continued from."""
        self._manager = ocp.CheckpointManager(
            self._folder,
            options=ocp.CheckpointManagerOptions(
                max_to_keep=_KEPT,
                keep_period=config.keep_every or None,
            ),
        )
        self._closing = threading.Event()
        self._sealing: threading.Thread | None = None

    def __enter__(self) -> "SavedStates":
        return self

    def __exit__(self, *_: object) -> None:
        self._manager.close()
        self._closing.set()
        self._join()

    def restore(self, like: TrainState) -> TrainState:
        """The last state that is whole, placed on devices as `like`; `like` itself if there is none."""
        found = self._newest_whole() if jax.process_index() == 0 else 0
        step = int(broadcast_one_to_all(np.int32(found))) if jax.process_count() > 1 else found
        if found != step or step:
            self._manager.reload()
        if not step:
            return like
        self.good = step
        state: TrainState = self._manager.restore(step, args=ocp.args.StandardRestore(like))
        return state

    def due(self, step: int, *, looked: bool) -> bool:
        """Whether the state after this step is to be saved: by steps, or by time.

        Args:
            step: the step that was made.
            looked: whether metrics were read after it. Several processes look at the clock together, and do
                so only then, since it makes them wait for each other.
        """
        late = time.monotonic() - self._last >= 60 * self._config.save_minutes
        if jax.process_count() > 1:
            late = looked and bool(broadcast_one_to_all(np.int32(late)))
        return step % self._config.save_every == 0 or late

    def save(self, step: int, state: TrainState) -> None:
        """Write a state in the background; without enough space, say so and go on.

        Raises:
            NonFiniteError: it is not finite, and the one before it stays.
        """
        self.require_finite(step, state)
        self._last = time.monotonic()
        needed, free = state_bytes(state), shutil.disk_usage(self._folder).free
        short = jax.process_index() == 0 and free < needed
        if jax.process_count() > 1:
            short = bool(broadcast_one_to_all(np.int32(short)))
        if short:
            logger.warning(
                "the state after step %d is not saved: it needs %.1f GB in %s, and %.1f GB are free; %s",
                *(step, needed / 1e9, self._folder, free / 1e9, self.last()),
            )
            return
        self._join()  # the manager may remove the state that is being read
        self._manager.save(step, args=ocp.args.StandardSave(state), force=True)
        if jax.process_index() == 0:
            self._sealing = threading.Thread(target=self._seal, args=(step,), daemon=True)
            self._sealing.start()
        self.good = step

    def require_finite(self, step: int, state: TrainState) -> None:
        """NonFiniteError if a state is not finite."""
        if not _is_finite(state):
            raise NonFiniteError(
                f"the state after step {step} is not finite, and is not saved; {self.last()}"
            )

    def last(self) -> str:
        """Which state a training would continue from, in words."""
        if self.good is None:
            return "no state was saved before"
        return f"the last good state is that of step {self.good}, in {self._folder / str(self.good)}"

    def preempted(self, step: int) -> bool:
        """Whether one of several processes got a SIGTERM, which JAX tells all of them."""
        return bool(self._manager.reached_preemption(step))

    def wait(self) -> None:
        """Wait until what was saved is written."""
        self._manager.wait_until_finished()
        self._join()

    def _newest_whole(self) -> int:
        """Step of the newest state whose files are what was written; 0 if there is none."""
        steps = sorted(self._manager.all_steps(), reverse=True)
        for step in steps:
            damaged = changed_files(self._folder / str(step))
            if damaged == []:
                return int(step)
            what = (
                "was not written to its end" if damaged is None else f"is damaged ({', '.join(damaged[:3])})"
            )
            logger.warning("the saved state of step %d %s, and is left out", step, what)
            shutil.rmtree(self._folder / str(step))
        return 0

    def _seal(self, step: int) -> None:
        """Write the checksums of a state as soon as it is there as a whole."""
        folder = self._folder / str(step)
        while not folder.exists():
            if self._closing.wait(0.05) and not folder.exists():
                return  # it could not be written, which the manager says
        write_sums(folder)

    def _join(self) -> None:
        if self._sealing is not None:
            self._sealing.join()
            self._sealing = None


def state_bytes(state: TrainState) -> int:
    """Bytes of a state, over all devices."""
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state))


def check_space(work: Path, state: TrainState) -> None:
    """Look for space for the states and the checkpoint of a run, before it.

    Raises:
        NoSpaceError: there is too little.
    """
    work.mkdir(parents=True, exist_ok=True)
    parameters = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state.parameters))
    # one more state is written before the oldest goes
    needed = (_KEPT + 1) * state_bytes(state) + parameters
    there = sum(file.stat().st_size for file in work.rglob("*") if file.is_file())
    free = shutil.disk_usage(work).free
    if free + there < needed:
        raise NoSpaceError(
            f"{work} has {free / 1e9:.1f} GB free; training needs {(needed - there) / 1e9:.1f} GB more for "
            f"{_KEPT + 1} saved states and the checkpoint. Make room, or take a workspace on a larger disk"
        )


@jax.jit
def _all_finite(tree: Any) -> jax.Array:
    leaves = [leaf for leaf in jax.tree.leaves(tree) if jnp.issubdtype(leaf.dtype, jnp.floating)]
    return jnp.stack([jnp.isfinite(leaf).all() for leaf in leaves]).all()


def _is_finite(state: TrainState) -> bool:
    return bool(_all_finite((state.parameters, state.average, state.optimizer)))


@contextmanager
def told_to_end() -> Iterator[list[int]]:
    """Collects SIGTERM instead of ending at once; the list is empty until one comes."""
    received: list[int] = []

    def note(number: int, _: FrameType | None) -> None:
        received.append(number)

    try:
        before = signal.signal(signal.SIGTERM, note)
    except ValueError:  # not the main thread: whoever started it has to end it
        yield received
        return
    try:
        yield received
    finally:
        signal.signal(signal.SIGTERM, before)
