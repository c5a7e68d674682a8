"""A copy of demonstrations for training: small pictures that decode quickly, columns that map into memory.

Episodes of a task lie together in packs, folders below `packs/` that never change:

    state.npy, action.npy    float32 [rows, 23]: the policy's state, absolute actions
    CAMERA.h264              the pictures of all rows, see `groups.py`; every episode begins a group
    CAMERA.npy               int64 [rows + 1]: where each row's picture begins in CAMERA.h264, and the end;
                             without compression uint8 [rows, size, size, 3]: the pictures themselves

`copy.json` says which rows are whose. A copy of a later revision links the packs of an earlier one.
"""

import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np
from jaxtyping import Float32, Int, UInt8

from pi_behavior.config import require
from pi_behavior.data.frames import Images
from pi_behavior.data.groups import GROUP, GroupDecoder, needed
from pi_behavior.data.meta import DatasetError, Episode, select
from pi_behavior.data.open_files import OpenFiles
from pi_behavior.data.video import Converter, VideoError
from pi_behavior.files import write_atomic
from pi_behavior.layout import CAMERAS

MANIFEST, PACKS = "copy.json", "packs"
VERSION = 1
Column = Literal["state", "action"]


@dataclass(frozen=True)
class CopyOptions:
    """What a training copy holds of an episode."""

    image_size: int = 224
    """Height and width of the pictures. Unless raw, a network that reads smaller ones gets them scaled."""
    compress: bool = True
    """Keep pictures as H.264. Otherwise raw: 28 kB a frame at 56 pixels, 450 kB at 224, and no decoding."""
    quality: int = 23
    """Constant rate factor of H.264: lower is better and larger."""

    def __post_init__(self) -> None:
        """Check ranges."""
        size, quality = self.image_size, self.quality
        require(
            (size > 0 and size % 2 == 0, f"image_size is {size}; expected an even number of pixels"),
            (1 <= quality <= 51, f"quality is {quality}; expected 1 to 51"),
        )

    def serves(self, image_size: int) -> bool:
        """Whether a network that reads pictures of a size can be trained on the copy."""
        return image_size == self.image_size or (self.compress and image_size < self.image_size)


@dataclass(frozen=True)
class PackedEpisode:
    """Where an episode lies."""

    episode: Episode
    key: str
    """Digest of what its rows and pictures were made from."""
    pack: int
    """Number of its pack."""
    row: int
    """Its first row there."""


@dataclass(frozen=True)
class Manifest:
    """The content of `copy.json`."""

    version: int
    options: CopyOptions
    cameras: tuple[str, ...]
    """None where a copy holds states and actions alone."""
    packs: tuple[str, ...]
    episodes: tuple[PackedEpisode, ...]

    def save(self, root: Path) -> None:
        """Write it."""
        write_atomic(root / MANIFEST, msgspec.json.encode(self).decode())


class TrainingCopy:
    """A training copy on disk, or the columns of one. A pickle of it opens its files anew.

    Args:
        root: the folder with `copy.json`.

    Raises:
        DatasetError: there is none, or one of another version.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        try:
            self.manifest = msgspec.json.decode((root / MANIFEST).read_bytes(), type=Manifest)
        except (OSError, msgspec.MsgspecError) as error:
            raise DatasetError(
                f"{root / MANIFEST} cannot be read ({error}); expected a training copy, which the stage "
                "prepare makes"
            ) from error
        if self.manifest.version != VERSION:
            raise DatasetError(
                f"{root / MANIFEST} is of version {self.manifest.version}; expected {VERSION}: make the "
                "training copy again"
            )
        self._maps = OpenFiles(_map, _forget)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle as its folder."""
        return TrainingCopy, (self.root,)

    @cached_property
    def _places(self) -> dict[tuple[str, int], PackedEpisode]:
        return {(one.episode.folder, one.episode.index): one for one in self.manifest.episodes}

    @property
    def episodes(self) -> tuple[Episode, ...]:
        """All demonstrations."""
        return tuple(one.episode for one in self.manifest.episodes)

    def select(self, tasks: Collection[int] = ()) -> tuple[Episode, ...]:
        """Demonstrations of some tasks, see `meta.select`."""
        return select(self.root, self.episodes, tasks)

    def locate(self, episodes: Sequence[Episode]) -> tuple[Int[np.ndarray, " n"], Int[np.ndarray, " n"]]:
        """Packs of episodes, and their first rows there."""
        places = [self._places[e.folder, e.index] for e in episodes]
        return np.array([p.pack for p in places]), np.array([p.row for p in places])

    def path(self, pack: int, name: str) -> Path:
        """A file of a pack."""
        return self.root / PACKS / self.manifest.packs[pack] / name

    def array(self, pack: int, name: str) -> np.ndarray:
        """A memory-mapped array of a pack."""
        return self._maps(self.path(pack, f"{name}.npy"))

    def rows(
        self, column: Column, packs: Int[np.ndarray, " b"], rows: Int[np.ndarray, "b *k"]
    ) -> Float32[np.ndarray, "b *k 23"]:
        """Rows of a column, each of the pack beside it."""
        result: np.ndarray | None = None
        for pack in np.unique(packs):
            chosen = packs == pack
            values = self.array(int(pack), column)[rows[chosen]]
            if result is None:
                result = np.empty((*rows.shape, values.shape[-1]), values.dtype)
            result[chosen] = values
        assert result is not None
        return result


class PackedFrames:
    """Images from a training copy.

    Args:
        copy: the copy.
        episodes: the episodes that `gather` indexes.
        size: height and width of the images, one that the copy serves.
    """

    def __init__(self, copy: TrainingCopy, episodes: Sequence[Episode], size: int) -> None:
        self._copy, self._size = copy, size
        self._pack, self._row = copy.locate(episodes)
        self._end = self._row + np.array([e.length for e in episodes])
        self._files = OpenFiles(_open, os.close)

    def gather(self, episode: Int[np.ndarray, " b"], frame: Int[np.ndarray, " b"]) -> Images:
        """Images by camera; what lies in one group of pictures is decoded once."""
        options, packs, rows = self._copy.manifest.options, self._pack[episode], self._row[episode] + frame
        size = self._size
        images = {camera: np.empty((len(rows), size, size, 3), np.uint8) for camera in CAMERAS}
        for camera, result in images.items():
            if options.compress:
                self._decode(camera, packs, rows, rows - frame % GROUP, self._end[episode], result)
                continue
            for pack in np.unique(packs):
                chosen = packs == pack
                result[chosen] = self._copy.array(int(pack), camera)[rows[chosen]]
        return images

    def _decode(
        self,
        camera: str,
        packs: Int[np.ndarray, " b"],
        rows: Int[np.ndarray, " b"],
        firsts: Int[np.ndarray, " b"],
        ends: Int[np.ndarray, " b"],
        result: UInt8[np.ndarray, "b h w 3"],
    ) -> None:
        """Decode rows, given with the first rows of their groups and the ends of their episodes."""
        decoder, convert = GroupDecoder(), Converter(self._size)
        order = np.lexsort((rows, firsts, packs))
        changes = np.flatnonzero(np.diff(packs[order]) | np.diff(firsts[order])) + 1
        for together in np.split(order, changes):
            pack, first = int(packs[together[0]]), int(firsts[together[0]])
            length = min(GROUP, int(ends[together[0]]) - first)
            path = self._copy.path(pack, f"{camera}.h264")
            bounds = self._copy.array(pack, camera)[first : first + length + 1].tolist()
            wanted = (rows[together] - first).tolist()
            try:
                data = _read(self._files(path), bounds[0], bounds[-1])
                pieces = {
                    n: data[bounds[n] - bounds[0] : bounds[n + 1] - bounds[0]] for n in needed(wanted, length)
                }
                frames = decoder.decode(pieces)
            except (VideoError, OSError) as error:
                raise VideoError(f"{path}, rows {first} to {first + length - 1}: {error}") from error
            pictures = {n: convert(frames[n]) for n in set(wanted)}
            for place, n in zip(together, wanted, strict=True):
                result[place] = pictures[n]


def _read(file: int, begin: int, end: int) -> bytes:
    data = os.pread(file, end - begin, begin)
    if len(data) != end - begin:
        raise VideoError(f"the file ends {end - begin - len(data)} bytes too early")
    return data


def _open(path: Path) -> int:
    return os.open(path, os.O_RDONLY)


def _map(path: Path) -> np.ndarray:
    return np.asarray(np.load(path, mmap_mode="r"))


def _forget(array: np.ndarray) -> None:
    """An array is closed when nothing refers to it."""
