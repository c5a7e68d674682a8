"""LeRobot v3.0, as the demonstrations of 2026: files hold several episodes, a table says which and where."""

from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from pi_behavior.data.columns import read_table, to_numpy
from pi_behavior.data.meta import (
    HUMAN_MEASUREMENTS,
    Clip,
    DatasetError,
    Episode,
    Info,
    challenge_task,
    entry,
    json_lines,
)


class LayoutV30:
    """See `meta.Layout`. Chunk and file numbers are read, never computed: every video key has its own."""

    several_per_file = True

    def __init__(self, info: Info) -> None:
        self.info = info
        self._folder = info.root / "meta" / "episodes"
        self._columns: dict[str, np.ndarray] = {}
        self._tasks = self._read_tasks()
        self.task_names = {task: name for name, task, _ in self._tasks.values()}

    def _read_tasks(self) -> dict[int, tuple[str, int, str]]:
        """Name, index of the challenge and sentence, by the dataset's own index."""
        path = self.info.root / "meta" / "tasks.jsonl"
        rows: dict[int, tuple[str, str, str]] = {}
        if path.is_file():
            for line, row in json_lines(path):
                own, name = (
                    entry(path, line, row, "task_index", int),
                    entry(path, line, row, "task_name", str),
                )
                rows[own] = f"{path}, line {line}", name, str(row.get("task", name))
        else:
            path = path.with_suffix(".parquet")
            table = read_table(path)
            # pandas stores a nameless index under the second name
            key = next((k for k in ("task", "__index_level_0__") if k in table.column_names), None)
            if key is None or "task_index" not in table.column_names:
                raise DatasetError(f"{path}: columns {table.column_names}; expected task and task_index")
            for own, name in zip(table["task_index"].to_pylist(), table[key].to_pylist(), strict=True):
                rows[own] = str(path), name, name
        return {
            own: (name, challenge_task(where, name, own, own_numbers=True), sentence)
            for own, (where, name, sentence) in rows.items()
        }

    @cached_property
    def _table(self) -> pa.Table:
        paths = sorted(self._folder.rglob("*.parquet"))
        if not paths:
            raise DatasetError(
                f"{self._folder}: no parquet file; expected chunk-000/file-000.parquet or alike"
            )
        tables = [read_table(path, lambda name: not name.startswith("stats/")) for path in paths]
        try:
            return pa.concat_tables(tables, promote_options="permissive")
        except pa.ArrowException as error:
            raise DatasetError(
                f"{self._folder}: tables of episodes differ in their columns: {error}"
            ) from error

    def _column(self, name: str) -> np.ndarray:
        if name not in self._columns:
            if name not in self._table.column_names:
                raise DatasetError(f"{self._folder}: no column {name}; expected the tables of LeRobot v3.0")
            values = to_numpy(self._folder, name, self._table[name])
            self._columns[name] = values.reshape(self._table.num_rows)
        return self._columns[name]

    def _optional(self, name: str) -> np.ndarray | None:
        present = name in self._table.column_names and not self._table[name].null_count
        return self._column(name) if present else None

    @cached_property
    def _rows(self) -> dict[int, int]:
        return {int(index): row for row, index in enumerate(self._column("episode_index"))}

    @cached_property
    def episodes(self) -> list[Episode]:
        """All demonstrations, by index."""
        indices, lengths, own = self._column("episode_index"), self._column("length"), self._own_tasks()
        raw, instances = self._optional("raw_episode_id"), self._optional("task_instance_id")
        if instances is None and raw is not None:
            instances = raw // 10 % 1000
        measured = {name: v for name in HUMAN_MEASUREMENTS if (v := self._optional(name)) is not None}
        found = []
        for index, row in sorted(self._rows.items()):
            if lengths[row] < 1:
                raise DatasetError(
                    f"{self._folder}: episode {index} with {lengths[row]} frames; expected at least one frame"
                )
            name, task, _ = self._tasks[own[row]]
            human = {key: float(values[row]) for key, values in measured.items()}
            instance = None if instances is None else int(instances[row])
            found.append(Episode(index, task, name, int(lengths[row]), human, instance, own[row]))
        if len(found) != len(indices):
            raise DatasetError(f"{self._folder}: {len(indices)} rows; expected each episode once")
        return found

    def _own_tasks(self) -> list[int]:
        """Every row's task in the dataset's own numbers: from task_index, or by its name or sentence."""
        numbers = self._optional("task_index")
        if numbers is None:
            if "tasks" not in self._table.column_names:
                raise DatasetError(f"{self._folder}: no column tasks; expected the tables of LeRobot v3.0")
            known: dict[object, Any] = {}
            for own, (name, _, sentence) in self._tasks.items():
                known |= {name: own, sentence: own}
            named = [row[0] if row else None for row in self._table["tasks"].to_pylist()]
            result: list[Any] = [known.get(name, name) for name in named]
        else:
            result = [int(number) for number in numbers]
        for index, task in zip(self._column("episode_index"), result, strict=True):
            if task not in self._tasks:
                raise DatasetError(
                    f"{self._folder}: episode {index} is of task {task!r}; meta/tasks has no such"
                )
        return result

    def data_path(self, episode: Episode) -> Path:
        """The table with the episode's rows, among others'."""
        return self._file("data_path", "data", episode)

    def clip(self, episode: Episode, key: str) -> Clip:
        """The episode's part of a video file."""
        begin, end = (self._value(f"videos/{key}/{side}_timestamp", episode) for side in ("from", "to"))
        if not 0 <= begin < end:
            raise DatasetError(
                f"{self._folder}: episode {episode.index} of {key} begins at {begin} s and ends at {end} s"
            )
        start = round(begin * self.info.fps)
        path = self._file("video_path", f"videos/{key}", episode, video_key=key)
        return Clip(path, start, round(end * self.info.fps) - start)

    def annotation_path(self, episode: Episode) -> Path | None:
        """Where the episode's annotation is."""
        if "annotation_path" not in self._table.column_names:
            return None
        name = self._table["annotation_path"][self._rows[episode.index]].as_py()
        return self.info.root / name if name else None

    def _file(self, template: str, prefix: str, episode: Episode, **names: str) -> Path:
        chunk, file = (int(self._value(f"{prefix}/{kind}_index", episode)) for kind in ("chunk", "file"))
        return self.info.file(template, chunk_index=chunk, file_index=file, **names)

    def _value(self, name: str, episode: Episode) -> float:
        return float(self._column(name)[self._rows[episode.index]])
