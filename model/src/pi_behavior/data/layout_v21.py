"""LeRobot v2.1, as the demonstrations of 2025: chunks are tasks, every episode has files of its own."""

from functools import cached_property
from pathlib import Path

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


class LayoutV21:
    """See `meta.Layout`."""

    several_per_file = False

    def __init__(self, info: Info) -> None:
        self.info = info
        path = info.root / "meta" / "tasks.jsonl"
        self.task_names: dict[int, str] = {}
        for line, row in json_lines(path):
            index, name = entry(path, line, row, "task_index", int), entry(path, line, row, "task_name", str)
            self.task_names[challenge_task(f"{path}, line {line}", name, index)] = name

    @cached_property
    def episodes(self) -> list[Episode]:
        """All demonstrations, by index."""
        path = self.info.root / "meta" / "episodes.jsonl"
        found: dict[int, Episode] = {}
        for line, row in json_lines(path):
            index, length = (entry(path, line, row, key, int) for key in ("episode_index", "length"))
            human = {key: float(entry(path, line, row, key, (int, float))) for key in HUMAN_MEASUREMENTS}
            task = index // self.info.chunks_size
            if task not in self.task_names:
                raise DatasetError(
                    f"{path}, line {line}: episode {index} is of task {task}; meta/tasks.jsonl has "
                    f"{', '.join(map(str, self.task_names))}"
                )
            if index in found or length < 1:
                raise DatasetError(
                    f"{path}, line {line}: episode {index} with {length} frames; expected each episode once, "
                    "with at least one frame"
                )
            instance = index // 10 % 1000
            found[index] = Episode(index, task, self.task_names[task], length, human, instance, task)
        return [found[index] for index in sorted(found)]

    def data_path(self, episode: Episode) -> Path:
        """The episode's table."""
        return self.info.file("data_path", **_names(episode))

    def clip(self, episode: Episode, key: str) -> Clip:
        """The episode's video, which shows nothing else."""
        return Clip(self.info.file("video_path", video_key=key, **_names(episode)), 0, episode.length)

    def annotation_path(self, episode: Episode) -> Path | None:
        """Where the episode's annotation is."""
        return self.info.fill("annotation_path", **_names(episode))


def _names(episode: Episode) -> dict[str, int]:
    return {"episode_chunk": episode.task, "episode_index": episode.index}
