"""The batches that training reads, as a Grain pipeline.

Grain shuffles and batches numbers; a whole batch is then gathered at once, which costs far less than one
Python call per sample. Batch n is a function of the seed and n alone: not of the number of hosts or worker
processes, and not of where a run was interrupted. So the step that a checkpoint holds is also the position in
the input.
"""

import hashlib
from collections.abc import Collection, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import grain
import numpy as np
from absl import flags
from jaxtyping import Float32, Int, Int32, UInt8

from pi_behavior.challenge import TASKS_BY_INDEX
from pi_behavior.data.frames import DecodedFrames, Frames, Images
from pi_behavior.data.groups import GROUP
from pi_behavior.data.lerobot import LeRobotDataset
from pi_behavior.data.meta import DatasetError, Episode
from pi_behavior.data.training_copy import PackedFrames, TrainingCopy
from pi_behavior.fast import FastTokenizer, TokenRows
from pi_behavior.layout import ACTION_HORIZON
from pi_behavior.processes import begin_worker
from pi_behavior.statistics import StageTable, Statistics, pad_to_model

PREFETCH_BATCHES = 4
"""Batches that a thread of the training process assembles ahead; a worker process has two of its own."""
_FOREVER = 2**50
"""Samples without end; Grain's own endless repetition has a length that batches of one overflow."""


class EarlierRows(NamedTuple):
    """Observations of the steps before, the oldest first."""

    images: dict[str, UInt8[np.ndarray, "b s h w 3"]]
    state: Float32[np.ndarray, "b s 32"]


class Batch(NamedTuple):
    """One batch of training, as arrays of the host."""

    images: Images
    """By camera, uint8 [b, h, w, 3]."""
    state: Float32[np.ndarray, "b 32"]
    """Normalised, zero-padded."""
    task: Int32[np.ndarray, " b"]
    """Task index of the challenge."""
    stage: Int32[np.ndarray, " b"]
    actions: Float32[np.ndarray, "b k 32"]
    """Normalised delta chunks, zero-padded; after the episode's end its last action repeats, before its start
    the first."""
    fast: TokenRows | None = None
    """FAST tokens of the same chunks, where they were asked for."""
    earlier: EarlierRows | None = None
    """The observations before, for networks that read several."""


class Samples:
    """The frames of some episodes as samples, numbered consecutively.

    A pickle of it, as a worker process gets, holds no data but opens the same files.

    Args:
        copy: where states and actions are.
        episodes: which of its episodes.
        statistics: what states and actions are normalised with.
        frames: source of the images.
        fast: tokenizer of the chunks, where batches are to hold FAST tokens.
        together: samples of one group of pictures that follow each other in a batch: 1, 2, 4 or 8. More cost
            less decoding and are more alike. Where an episode's last group is not full, its last frame is
            repeated.
        observation_steps: observations of a sample: the current one and those before it.
        horizon: actions of a sample; the first observation_steps - 1 of them are of the past.
    """

    def __init__(
        self,
        copy: TrainingCopy,
        episodes: Sequence[Episode],
        statistics: Statistics,
        frames: Frames,
        fast: FastTokenizer | None = None,
        together: int = 1,
        observation_steps: int = 1,
        horizon: int = ACTION_HORIZON,
    ) -> None:
        if together < 1 or GROUP % together:
            raise ValueError(f"together is {together}; expected a divisor of {GROUP}")
        self.together = together
        self._stride = GROUP // together
        self._length = np.array([e.length for e in episodes])
        full, rest = np.divmod(self._length, GROUP)
        self._end = np.cumsum(full * self._stride + np.minimum(rest, self._stride))
        self.task = np.array([e.task for e in episodes], np.int32)
        counts = [TASKS_BY_INDEX[e.task].stages for e in episodes]
        self._stages = StageTable(
            statistics.stages, self._length.tolist(), counts, [e.skills for e in episodes]
        )
        self._copy, (self._pack, self._row) = copy, copy.locate(episodes)
        self._statistics, self._frames, self._fast = statistics, frames, fast
        self._seen = np.arange(1 - observation_steps, 1)
        self._done = np.arange(1 - observation_steps, 1 - observation_steps + horizon)

    def __len__(self) -> int:
        return int(self._end[-1])

    def ranges(self) -> dict[int, list[range]]:
        """The numbers of every task's samples, episode by episode."""
        found: dict[int, list[range]] = {}
        for task, begin, end in zip(self.task, [0, *self._end[:-1]], self._end, strict=True):
            found.setdefault(int(task), []).append(range(int(begin), int(end)))
        return found

    def gather(self, numbers: Int[np.ndarray, " b"]) -> Batch:
        """Assemble samples, given by number, into a batch: `together` for each."""
        episode = np.searchsorted(self._end, numbers, side="right")
        number = numbers - np.where(episode > 0, self._end[episode - 1], 0)
        group, place = np.divmod(number, self._stride)
        frame = (group * GROUP + place)[:, None] + self._stride * np.arange(self.together)
        episode, frame = np.repeat(episode, self.together), frame.reshape(-1)
        last = self._length[episode] - 1
        frame = np.minimum(frame, last)
        pack, row = self._pack[episode], self._row[episode]
        done = np.clip(frame[:, None] + self._done, 0, last[:, None])
        seen = np.maximum(frame[:, None] + self._seen, 0)
        states = self._copy.rows("state", pack, row[:, None] + seen)
        delta = self._statistics.delta(self._copy.rows("action", pack, row[:, None] + done), states[:, -1])
        # all in one call: neighbours are decoded together
        pictures = self._frames.gather(np.repeat(episode, seen.shape[1]), seen.reshape(-1))
        images = {name: rows.reshape(*seen.shape, *rows.shape[1:]) for name, rows in pictures.items()}
        normalised = pad_to_model(self._statistics.normalise_state(states))
        past = {name: rows[:, :-1] for name, rows in images.items()}
        return Batch(
            images={name: rows[:, -1] for name, rows in images.items()},
            state=normalised[:, -1],
            task=self.task[episode],
            stage=self._stages.of(episode, frame).astype(np.int32),
            actions=pad_to_model(self._statistics.normalise_actions(delta, self._done)),
            fast=None
            if self._fast is None
            else self._fast.encode_batch(self._statistics.normalise_quantiles(delta)),
            earlier=EarlierRows(past, normalised[:, :-1]) if seen.shape[1] > 1 else None,
        )


def open_samples(
    copy: TrainingCopy,
    statistics: Statistics,
    *,
    image_size: int,
    tasks: Collection[int] = (),
    originals: LeRobotDataset | None = None,
    fast: FastTokenizer | None = None,
    together: int = 1,
    observation_steps: int = 1,
    horizon: int = ACTION_HORIZON,
    validation_share: float = 0.0,
    validation: bool = False,
) -> Samples:
    """The samples of a training copy, or of the original videos.

    Args:
        copy: a training copy, or the columns of one.
        statistics: what states and actions are normalised with.
        image_size: height and width of the images.
        tasks: task indices; none means all tasks.
        originals: the dataset whose videos are decoded; not given, the images come from the copy.
        fast: tokenizer of the chunks, where batches are to hold FAST tokens.
        together: see `Samples`, as for the next two.
        observation_steps: observations of a sample.
        horizon: actions of a sample.
        validation_share: share of each task's instances that are held out, see `is_held_out`.
        validation: take what is held out, instead of the rest.

    Raises:
        DatasetError: there are no such demonstrations, or images of another size.
    """
    found = copy.select(tasks)
    episodes = [e for e in found if is_held_out(e, validation_share) == validation]
    if not episodes:
        raise DatasetError(
            f"{copy.root}: with validation_share {validation_share:g} none of {len(found)} demonstrations "
            f"is left for {'validation' if validation else 'training'}"
        )
    if originals is not None:
        frames: Frames = DecodedFrames(originals, episodes, image_size)
    else:
        options = copy.manifest.options
        if not copy.manifest.cameras or not options.serves(image_size):
            have = f"{options.image_size}-pixel" if copy.manifest.cameras else "no"
            raise DatasetError(
                f"{copy.root} holds {have} pictures; the network reads {image_size} pixels: prepare it with "
                f"image_size {image_size}"
            )
        frames = PackedFrames(copy, episodes, image_size)
    return Samples(copy, episodes, statistics, frames, fast, together, observation_steps, horizon)


def is_held_out(episode: Episode, share: float) -> bool:
    """Whether an episode is for validation: by its task and instance alone, so that it stays so.

    All demonstrations of an instance are on the same side. Where the instance is not known, the episode's
    number stands for it.
    """
    instance = episode.index if episode.instance is None else episode.instance
    digest = hashlib.sha256(f"{episode.task} {instance}".encode()).digest()
    return int.from_bytes(digest[:8], "big") < share * 2.0**64


def make_loader(
    samples: Samples,
    *,
    batch_size: int,
    seed: int,
    weights: Mapping[int, float] | None = None,
    start_batch: int = 0,
    shard_index: int = 0,
    shard_count: int = 1,
    workers: int = 0,
) -> grain.DatasetIterator[Batch]:
    """Open an endless stream of batches, shuffled anew in every epoch.

    Args:
        samples: what the batches are of.
        batch_size: samples per batch over all shards.
        seed: of the shuffling.
        weights: relative share of each task in the batches, by task index; a task that is not named has 1.
            Not given, every frame counts the same.
        start_batch: number of the first batch. The iterator's `get_state` and `set_state` work too, and count
            from this batch.
        shard_index: which part of every batch this host gets.
        shard_count: number of hosts.
        workers: processes that assemble batches, each one whole batch at a time; they share the columns'
            memory. 0: a thread of this process.

    Raises:
        ValueError: the batch does not divide, or the shard does not exist.
        DatasetError: a file of the dataset is not as expected.
        VideoError: a video cannot be decoded.
    """
    unit = shard_count * samples.together
    if batch_size < 1 or batch_size % unit or not 0 <= shard_index < shard_count:
        raise ValueError(
            f"batch_size {batch_size}, shard {shard_index} of {shard_count}, {samples.together} samples "
            "together; expected a batch that divides by shards times samples together, and a shard number "
            "below their number"
        )
    if start_batch < 0:
        raise ValueError(f"start_batch is {start_batch}; expected 0 or more")
    share = batch_size // unit
    part = slice(shard_index * share, (shard_index + 1) * share)
    batches = (
        _order(samples, seed, weights)
        .batch(batch_size // samples.together)[start_batch:]
        .map(partial(_gather, samples, part))
    )
    ahead = PREFETCH_BATCHES if workers == 0 else 1
    stream = batches.to_iter_dataset(grain.ReadOptions(num_threads=1, prefetch_buffer_size=ahead))
    if workers:
        if not flags.FLAGS.is_parsed():  # Grain's processes read absl's flags, of which we have none
            flags.FLAGS.mark_as_parsed()
        options = grain.MultiprocessingOptions(num_workers=workers)
        stream = stream.mp_prefetch(options, worker_init_fn=begin_worker)
    return iter(stream)


def _order(samples: Samples, seed: int, weights: Mapping[int, float] | None) -> Any:
    """Numbers of samples without end, as a Grain dataset."""
    if weights is None:
        return grain.MapDataset.range(len(samples)).shuffle(seed=seed).repeat(_FOREVER // len(samples))
    parts, shares = [], []
    for task, ranges in samples.ranges().items():
        numbers = np.concatenate([np.arange(r.start, r.stop) for r in ranges])
        parts.append(
            grain.MapDataset.source(numbers).shuffle(seed=seed + task).repeat(_FOREVER // len(numbers))
        )
        shares.append(weights.get(task, 1.0))
    return grain.MapDataset.mix(parts, shares)


def _gather(samples: Samples, part: slice, numbers: Int[np.ndarray, " b"]) -> Batch:
    return samples.gather(np.asarray(numbers)[part])
