"""The batches that training reads, as a Grain pipeline.

Grain shuffles and batches frame numbers; a whole batch is then gathered at once, which costs far less than
one Python call per sample. Batch n is a function of the seed and n alone: not of the number of hosts, and
not of where a run was interrupted.
"""

from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

import grain
import numpy as np
from jaxtyping import Float32, Int, Int32

from pi_behavior.challenge import TASKS_BY_INDEX
from pi_behavior.data.frames import CachedFrames, DecodedFrames, Frames, Images, OnProgress
from pi_behavior.data.lerobot import Episode, LeRobotDataset
from pi_behavior.fast import FastTokenizer, TokenRows
from pi_behavior.layout import ACTION_HORIZON
from pi_behavior.statistics import Statistics, pad_to_model, stage_of_frame

PREFETCH_BATCHES = 4


class Batch(NamedTuple):
    """One batch of training, as arrays of the host."""

    images: Images
    """By camera, uint8 [b, h, w, 3]."""
    state: Float32[np.ndarray, "b 32"]
    """Normalised, zero-padded."""
    task: Int32[np.ndarray, " b"]
    """Task index of the challenge."""
    stage: Int32[np.ndarray, " b"]
    actions: Float32[np.ndarray, "b 30 32"]
    """Normalised delta chunks, zero-padded; after the episode's end its last action repeats."""
    fast: TokenRows | None = None
    """FAST tokens of the same chunks, where they were asked for."""


class Samples:
    """All frames of some episodes as samples, numbered consecutively.

    Args:
        dataset: the dataset.
        episodes: which of its episodes.
        statistics: what states and actions are normalised with.
        frames: source of the images.
        fast: tokenizer of the chunks, where batches are to hold FAST tokens.
    """

    def __init__(
        self,
        dataset: LeRobotDataset,
        episodes: tuple[Episode, ...],
        statistics: Statistics,
        frames: Frames,
        fast: FastTokenizer | None = None,
    ) -> None:
        read = [dataset.state_and_actions(episode) for episode in episodes]
        self._states = np.concatenate([state for state, _ in read])
        self._actions = np.concatenate([actions for _, actions in read])
        self._length = np.array([e.length for e in episodes])
        self._end = np.cumsum(self._length)
        self._task = np.array([e.task for e in episodes], np.int32)
        self._stages = np.array([TASKS_BY_INDEX[e.task].stages for e in episodes])
        self._statistics, self._frames, self._fast = statistics, frames, fast

    def __len__(self) -> int:
        return int(self._end[-1])

    def gather(self, samples: Int[np.ndarray, " b"]) -> Batch:
        """Assemble samples, given by number, into a batch."""
        episode = np.searchsorted(self._end, samples, side="right")
        end = self._end[episode]
        frame = samples - (end - self._length[episode])
        rows = np.minimum(samples[:, None] + np.arange(ACTION_HORIZON), end[:, None] - 1)
        state = self._states[samples]
        delta = self._statistics.delta(self._actions[rows], state)
        stage = stage_of_frame(frame, self._length[episode], self._stages[episode])
        return Batch(
            images=self._frames.gather(episode, frame),
            state=pad_to_model(self._statistics.normalise_state(state)),
            task=self._task[episode],
            stage=stage.astype(np.int32),
            actions=pad_to_model(self._statistics.normalise_actions(delta)),
            fast=None
            if self._fast is None
            else self._fast.encode_batch(self._statistics.normalise_quantiles(delta)),
        )


def make_loader(
    root: Path,
    statistics: Statistics,
    *,
    tasks: Collection[int] = (),
    image_size: int,
    batch_size: int,
    seed: int,
    fast: FastTokenizer | None = None,
    frame_cache: Path | None = None,
    start_batch: int = 0,
    shard_index: int = 0,
    shard_count: int = 1,
    threads: int = 1,
    on_progress: OnProgress | None = None,
) -> grain.DatasetIterator[Batch]:
    """Open an endless stream of batches, shuffled anew in every epoch.

    Args:
        root: the dataset's folder.
        statistics: what states and actions are normalised with.
        tasks: task indices; none means all tasks of the dataset.
        image_size: height and width of the images.
        batch_size: samples per batch over all shards.
        seed: of the shuffling.
        fast: tokenizer of the chunks, where batches are to hold FAST tokens.
        frame_cache: folder for decoded frames, made at the first use; without it videos are decoded batch
            by batch.
        start_batch: number of the first batch. The iterator's `get_state` and `set_state` work too, and count
            from this batch.
        shard_index: which part of every batch this host gets.
        shard_count: number of hosts.
        threads: batches that are assembled at the same time, ahead of training.
        on_progress: called while the frame cache is made.

    Raises:
        ValueError: the batch does not divide, or the shard does not exist.
        DatasetError: a file of the dataset is not as expected.
        VideoError: a video cannot be decoded.
    """
    if batch_size < 1 or batch_size % shard_count or not 0 <= shard_index < shard_count:
        raise ValueError(
            f"batch_size {batch_size}, shard {shard_index} of {shard_count}; expected a batch that divides "
            "by the number of shards, and a shard number below it"
        )
    if start_batch < 0:
        raise ValueError(f"start_batch is {start_batch}; expected 0 or more")
    dataset = LeRobotDataset(root)
    episodes = dataset.select(tasks)
    frames: Frames = (
        DecodedFrames(dataset, episodes, image_size)
        if frame_cache is None
        else CachedFrames(dataset, episodes, image_size, frame_cache, on_progress)
    )
    samples = Samples(dataset, episodes, statistics, frames, fast)
    share = batch_size // shard_count
    part = slice(shard_index * share, (shard_index + 1) * share)
    batches = (
        grain.MapDataset.range(len(samples))
        .shuffle(seed=seed)
        .repeat()
        .batch(batch_size)[start_batch:]
        .map(lambda numbers: samples.gather(numbers[part]))
    )
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=PREFETCH_BATCHES)
    return iter(batches.to_iter_dataset(options))
