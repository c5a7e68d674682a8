"""Reads demonstrations in LeRobot's format, v2.1 and v3.0, behind one interface.

Only meta files are read when a dataset is opened; columns and videos are read per episode when asked for.
"""

import threading
from collections.abc import Collection, Iterable, Iterator
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
from jaxtyping import Float32

from pi_behavior.data.columns import REQUIRED_VECTORS, VECTOR_WIDTHS, read_table, to_numpy
from pi_behavior.data.curation import Curation
from pi_behavior.data.depth import DepthScale
from pi_behavior.data.layout_v21 import LayoutV21
from pi_behavior.data.layout_v30 import LayoutV30
from pi_behavior.data.meta import Clip, DatasetError, Episode, Info, Layout, select, skill_starts
from pi_behavior.layout import (
    CAMERA_VIDEO_KEYS,
    DATASET_ACTION_KEY,
    DATASET_STATE_KEY,
    PROPRIOCEPTION_BY_LENGTH,
    state_from_proprioception,
)

__all__ = ["Clip", "DatasetError", "Episode", "LeRobotDataset"]

_LAYOUTS: dict[str, type[LayoutV21] | type[LayoutV30]] = {"v2.1": LayoutV21, "v3.0": LayoutV30}


class LeRobotDataset:
    """A dataset on disk.

    Args:
        root: the folder that holds `meta/`, `data/` and `videos/`, or one such folder per task.
        curation: what is used of it; not given, what its `curation.json` says.

    Raises:
        DatasetError: a meta file is missing or not as expected.
    """

    def __init__(self, root: Path, curation: Curation | None = None) -> None:
        self.root = Path(root)
        self._curation = curation
        folders = {"": self.root}
        if not (self.root / "meta" / "info.json").exists():
            inner = sorted(path.parents[1] for path in self.root.glob("*/meta/info.json"))
            folders = {path.name: path for path in inner} or folders
        self._infos = {name: Info(path) for name, path in folders.items()}
        for info in self._infos.values():
            if info.version not in _LAYOUTS:
                raise DatasetError(
                    f"{info.path}: codebase_version is {info.version!r}; expected {' or '.join(_LAYOUTS)}"
                )
        first = next(iter(self._infos.values()))
        for info in self._infos.values():
            if (info.fps, info.version) != (first.fps, first.version):
                raise DatasetError(
                    f"{info.path}: {info.version} at {info.fps:g} fps; expected {first.version} at "
                    f"{first.fps:g} fps, as {first.path}"
                )
        self.fps, self.codebase_version, self.features = first.fps, str(first.version), first.features
        self._layouts: dict[str, Layout] = {
            name: _LAYOUTS[self.codebase_version](info) for name, info in self._infos.items()
        }
        self.several_per_file = next(iter(self._layouts.values())).several_per_file
        self.task_names = {i: n for layout in self._layouts.values() for i, n in layout.task_names.items()}
        # consecutive episodes share a table in v3.0
        self._last_table = threading.local()

    @cached_property
    def episodes(self) -> tuple[Episode, ...]:
        """The demonstrations that are used, by folder and index: all, unless there is a curation.json."""
        curation = Curation.load(self.root) if self._curation is None else self._curation
        return tuple(used for episode in self.recorded if (used := curation.apply(episode)) is not None)

    @cached_property
    def recorded(self) -> tuple[Episode, ...]:
        """All demonstrations, whole, by folder and index."""
        return tuple(
            replace(episode, folder=folder) if folder else episode
            for folder, layout in self._layouts.items()
            for episode in layout.episodes
        )

    def select(self, tasks: Collection[int] = ()) -> tuple[Episode, ...]:
        """Demonstrations of some tasks, see `meta.select`."""
        return select(self.root, self.episodes, tasks)

    def data_path(self, episode: Episode) -> Path:
        """The parquet file with the episode's rows."""
        return self._layouts[episode.folder].data_path(episode)

    def camera_clip(self, episode: Episode, camera: str) -> Clip:
        """The episode's RGB frames of a camera in layout.CAMERAS."""
        known = CAMERA_VIDEO_KEYS[camera]
        return self.clip(episode, next((key for key in known if key in self.features), known[0]))

    def clip(self, episode: Episode, key: str) -> Clip:
        """The episode's frames of a video key, whose file need not exist."""
        whole = replace(episode, length=episode.before + episode.length + episode.after)
        path, start, frames = self._layouts[episode.folder].clip(whole, key)
        return Clip(path, start + episode.before, frames - episode.before - episode.after)

    def depth_scale(self, key: str) -> DepthScale:
        """How the codes of a depth video become metres."""
        info = next(iter(self._infos.values()))
        return DepthScale.from_feature(f"{info.path}: {key}", self.features.get(key, {}))

    def annotation_path(self, episode: Episode) -> Path | None:
        """The episode's annotation, which a part of the tasks has."""
        path = self._layouts[episode.folder].annotation_path(episode)
        return path if path is not None and path.is_file() else None

    def files(self, episode: Episode, keys: Iterable[str]) -> Iterator[Path]:
        """Places of the episode's table, videos and annotation; the files need not exist."""
        annotation = self._layouts[episode.folder].annotation_path(episode)
        yield from (self.data_path(episode), *([annotation] if annotation else []))
        yield from (self.clip(episode, key).path for key in keys)

    def with_skills(self, episode: Episode) -> Episode:
        """The episode with its annotated skills, if it has any; DatasetError for a malformed annotation."""
        path = self.annotation_path(episode)
        if path is None:
            return episode
        # an annotation counts the recording's frames
        starts = tuple(max(start - episode.before, 0) for start in skill_starts(path))
        return replace(episode, skills=starts)

    def read(self, episode: Episode, columns: Collection[str]) -> dict[str, np.ndarray]:
        """Read columns of an episode.

        Args:
            episode: the episode.
            columns: names; vector columns become [frames, width]. Those of columns.VECTOR_WIDTHS that not
                every dataset has are left out where there are none.

        Raises:
            DatasetError: the file or a column is missing, or lengths or widths are not as expected.
        """
        path, layout = self.data_path(episode), self._layouts[episode.folder]
        table = self._table(path, frozenset(columns), keep=layout.several_per_file)
        optional = set(VECTOR_WIDTHS) - set(REQUIRED_VECTORS)
        if missing := sorted(set(columns) - set(table.column_names) - optional):
            raise DatasetError(
                f"{path}: no column {', '.join(missing)}; expected the demonstrations' columns"
            )
        if layout.several_per_file:
            table = _rows_of(path, table, episode.index)
        recorded = episode.before + episode.length + episode.after
        if table.num_rows != recorded:
            raise DatasetError(
                f"{path}: {table.num_rows} rows of episode {episode.index}; expected {recorded}, "
                "as the meta files say"
            )
        table = table.slice(episode.before, episode.length)
        return {n: to_numpy(path, n, table.column(n)) for n in columns if n in table.column_names}

    def _table(self, path: Path, columns: frozenset[str], *, keep: bool) -> pa.Table:
        if not keep:
            return read_table(path, columns.__contains__)
        key = (path, columns)
        if getattr(self._last_table, "key", None) != key:
            self._last_table.table = read_table(path, (columns | {"episode_index"}).__contains__)
            self._last_table.key = key
        return self._last_table.table

    @property
    def proprioception(self) -> int:
        """Values per frame of `observation.state`, as its features say; 0 if they do not."""
        shape = self.features.get(DATASET_STATE_KEY, {}).get("shape") or [0]
        return shape[0] if isinstance(shape[0], int) and shape[0] in PROPRIOCEPTION_BY_LENGTH else 0

    def state_and_actions(
        self, episode: Episode
    ) -> tuple[Float32[np.ndarray, "n 23"], Float32[np.ndarray, "n 23"]]:
        """The policy's state and the demonstrator's absolute actions at every frame."""
        columns = self.read(episode, (DATASET_STATE_KEY, DATASET_ACTION_KEY))
        actions = columns[DATASET_ACTION_KEY].astype(np.float32, copy=False)
        return state_from_proprioception(columns[DATASET_STATE_KEY]), actions


def _rows_of(path: Path, table: pa.Table, index: int) -> pa.Table:
    rows = np.flatnonzero(to_numpy(path, "episode_index", table.column("episode_index")) == index)
    if rows.size and rows[-1] - rows[0] + 1 != rows.size:
        raise DatasetError(f"{path}: the rows of episode {index} are not consecutive")
    return table.slice(int(rows[0]) if rows.size else 0, rows.size)
