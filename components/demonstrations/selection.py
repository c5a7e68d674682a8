"""Which files of a version are fetched: those of the chosen tasks, cameras and modalities."""

import re
from collections.abc import Collection
from contextlib import suppress

from pi_behavior.challenge import task
from pi_behavior.data.lerobot import DatasetError, LeRobotDataset
from pi_behavior.layout import CAMERA_VIDEO_KEYS

_META = re.compile(r"([^/]+/)?meta/.+")
_VIDEO = re.compile(r"([^/]+/)?videos/(task-\d+/)?(?P<key>[^/]+)/.+")
_CAMERA_OF = {key.rpartition(".")[2]: camera for camera, keys in CAMERA_VIDEO_KEYS.items() for key in keys}


def meta_files(names: Collection[str]) -> list[str]:
    """What is needed to know which files are whose."""
    return [name for name in names if _META.fullmatch(name)]


def task_indices(tasks: Collection[str]) -> tuple[int, ...]:
    """The challenge's indices of tasks, in ascending order."""
    return tuple(sorted(task(name).index for name in tasks))


def chosen_files(
    dataset: LeRobotDataset,
    names: Collection[str],
    *,
    tasks: Collection[int],
    cameras: Collection[str],
    modalities: Collection[str],
) -> list[str]:
    """The files to fetch, of all files; an empty choice means all.

    Args:
        dataset: the dataset, of which only the files below `meta/` need to be there.
        names: its files.
        tasks: task indices of the challenge.
        cameras: names in `layout.CAMERAS`. Videos of other cameras belong to all.
        modalities: rgb, depth, segmentation.

    Raises:
        DatasetError: there is no demonstration of a task.
    """
    keys = {match["key"] for name in names if (match := _VIDEO.fullmatch(name))}
    others: set[str] = set()
    if tasks:
        if missing := sorted(set(tasks) - {e.task for e in dataset.recorded}):
            raise DatasetError(f"the version has no demonstrations of task {', '.join(map(str, missing))}")
        used: set[str] = set()
        for episode in dataset.recorded:
            for one in ([], *([key] for key in keys)):
                with suppress(DatasetError):  # a folder of one task may lack a key that another has
                    places = {p.relative_to(dataset.root).as_posix() for p in dataset.files(episode, one)}
                    (used if episode.task in tasks else others).update(places)
        others -= used
    left = {key for key in keys if not _is_chosen(key, cameras, modalities)}
    return [
        name
        for name in names
        if name not in others and not ((match := _VIDEO.fullmatch(name)) and match["key"] in left)
    ]


def _is_chosen(key: str, cameras: Collection[str], modalities: Collection[str]) -> bool:
    """By the last two parts of a video's key, such as `observation.rgb.zed_link_camera_0`."""
    *_, kind, view = ("", *key.split("."))
    camera, modality = _CAMERA_OF.get(view), {"seg": "segmentation"}.get(kind[:3], kind.partition("_")[0])
    return (not cameras or camera is None or camera in cameras) and (
        not modalities or modality in modalities or modality not in ("rgb", "depth", "segmentation")
    )
