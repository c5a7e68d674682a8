"""Checks over a whole dataset: what single files cannot tell."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from statistics import median

import numpy as np

from components.dataset.findings import Finding
from pi_behavior.data.curation import name_of
from pi_behavior.data.lerobot import Episode, LeRobotDataset
from pi_behavior.layout import CAMERA_VIDEO_KEYS, CAMERAS, proprioception_layout

Measured = Mapping[str, Mapping[str, Sequence[float]]]
"""Numbers by episode and by what they are, from `check_table` and `check_video`."""
_OF_2026 = {keys[-1] for keys in CAMERA_VIDEO_KEYS.values()}
_DEPTH = "observation.depth_linear."
_MOVING, _SAME, _TURNED = 0.6, 0.8, 0.5
_FRAMES = 100
_ENOUGH, _RELATED = 1000, 0.3
_CROSSED = 0.7


def check_whole(dataset: LeRobotDataset, episodes: Sequence[Episode], measured: Measured) -> list[Finding]:
    """All checks over a dataset, of the episodes that are used."""
    known = {name_of(e): e for e in episodes}
    return [
        *_revision(dataset, measured),
        *_base(measured),
        *_sizes(measured),
        *_swapped(known, measured),
        *_copies(known, measured),
    ]


def length_outliers(episodes: Sequence[Episode], factor: float) -> dict[str, str]:
    """Episodes that are so many times as long, or as short, as their task's median, and why."""
    lengths: dict[int, list[int]] = {}
    for e in episodes:
        lengths.setdefault(e.task, []).append(e.length)
    middles = {task: median(group) for task, group in lengths.items()}
    return {
        name_of(e): f"length: {e.length} frames; the median of {e.task_name} is {middles[e.task]:g}"
        for e in episodes
        if factor and not 1 / factor < e.length / middles[e.task] < factor
    }


def _revision(dataset: LeRobotDataset, measured: Measured) -> Iterator[Finding]:
    """Revisions of the demonstrations of 2026 that were replaced, see the dataset's own announcements."""
    later = "fetch a later revision"
    if not _OF_2026 & dataset.features.keys():
        return
    meta = dataset.root / "meta"
    if meta.is_dir() and not (meta / "tasks.jsonl").is_file():
        text = f"there is no meta/tasks.jsonl, as before 27 July 2026: {later}"
        yield Finding("revision", text)
    for key, feature in dataset.features.items():
        if key.startswith(_DEPTH) and "video.depth_min" not in (feature.get("info") or feature):
            yield Finding("revision", f"{key} has no video.depth_min, as before 27 July 2026: {later}")
            break
    frames, own, moved, product = _total(measured, "joints", 4)
    # the position's differences say nothing where too little moves
    if frames >= _ENOUGH and own > 0 and moved > 0 and product < _RELATED * np.sqrt(own * moved):
        yield Finding(
            "revision",
            f"the arms' measured joint velocities are not those of their positions (correlation "
            f"{product / np.sqrt(own * moved):.2f}), as before 24 August 2026: {later}",
        )


def _base(measured: Measured) -> Iterator[Finding]:
    """Speeds along the floor that agree with the commanded ones while their directions do not."""
    width = next((int(one["width"][0]) for one in measured.values() if "width" in one), 0)
    related, along = _agreement(_total(measured, "base", 7))
    robot = bool(width) and proprioception_layout(width).base_velocity == "robot"
    expected = "expected the robot's own, the frame of the commands"
    if related > _MOVING and along < _TURNED:
        when = ", as before 27 July 2026: fetch a later revision" if robot else ""
        yield Finding(
            "velocity",
            f"the base's measured velocity is in another frame than the commands (cosine {along:.2f}): the "
            f"world's? {expected}{when}",
        )
        return
    each = {name: _agreement(np.array(one["base"])) for name, one in measured.items() if "base" in one}
    each = {name: pair for name, pair in each.items() if pair[0] > _MOVING}
    if each and median(along for _, along in each.values()) > _SAME:
        for name in [name for name, (_, along) in each.items() if along < _TURNED]:
            text = f"episode {name}: the base's velocity is in another frame than in others; {expected}"
            yield Finding("velocity", text, (name,))


def _agreement(sums: np.ndarray) -> tuple[float, float]:
    """Correlation of measured and commanded speed, and the mean cosine of velocities; 0, 1 for too little."""
    count, fast, told, fast2, told2, product, dot = sums
    spread = (fast2 - fast**2 / max(count, 1)) * (told2 - told**2 / max(count, 1))
    if count < _FRAMES / 2 or spread <= 0 or product <= 0 or told2 < 1e-4 * count:
        return 0.0, 1.0
    return float((product - fast * told / count) / np.sqrt(spread)), float(dot / product)


def _total(measured: Measured, name: str, width: int) -> np.ndarray:
    return np.sum([one[name] for one in measured.values() if name in one] or [[0.0] * width], axis=0)


def _sizes(measured: Measured) -> Iterator[Finding]:
    for camera in CAMERAS:
        sizes = {name: tuple(map(int, one[camera][1:3])) for name, one in measured.items() if camera in one}
        usual = Counter(sizes.values()).most_common(1)
        odd = tuple(name for name, size in sizes.items() if size != usual[0][0])
        if odd:
            size, expected = ("x".join(map(str, s)) for s in (sizes[odd[0]], usual[0][0]))
            text = f"episode {odd[0]}: pictures of {camera} are {size}; expected {expected}, as in most"
            yield Finding("cameras", text, odd)


def _swapped(known: Mapping[str, Episode], measured: Measured) -> Iterator[Finding]:
    """Episodes whose cameras look like each other's of the task, and tasks whose look like other tasks'."""
    views: dict[int, dict[str, np.ndarray]] = {}
    for name, one in measured.items():
        if name in known and all(camera in one for camera in CAMERAS):
            pictures = np.array([one[camera][3:] for camera in CAMERAS])
            views.setdefault(known[name].task, {})[name] = pictures
    for group in views.values():
        for name, pair in _crossed(group, least=3):
            yield Finding("cameras", f"episode {name}: {pair} look swapped", (name,))
    means = {str(task): np.mean([*group.values()], axis=0) for task, group in views.items()}
    for task, pair in _crossed(means, least=2):
        names = tuple(views[int(task)])
        text = f"task {known[names[0]].task_name}: {pair} look swapped, compared with other tasks"
        yield Finding("cameras", text, names)


def _crossed(views: Mapping[str, np.ndarray], least: int) -> Iterator[tuple[str, str]]:
    """Whose pictures, of two cameras, are nearer to the other camera's mean over all others."""
    if len(views) < least:
        return
    total = np.sum([*views.values()], axis=0)
    for name, own in views.items():
        others = (total - own) / (len(views) - 1)
        distance = np.abs(own[:, None] - others[None]).mean(axis=-1)
        for a, b in combinations(range(len(CAMERAS)), 2):
            if distance[a, b] + distance[b, a] < _CROSSED * (distance[a, a] + distance[b, b]):
                yield name, f"{CAMERAS[a]} and {CAMERAS[b]}"


def _copies(known: Mapping[str, Episode], measured: Measured) -> Iterator[Finding]:
    seen: dict[tuple[float, ...], str] = {}
    for name in known:
        for what, values in measured.get(name, {}).items():
            length = float(known[name].length)
            if what == "actions":
                key, shown = (0.0, *values), "the actions"
            elif what in CAMERAS and values[0]:
                key, shown = (1.0, values[0], length), f"the pictures of {what}"
            else:
                continue
            place = f"episode {name}" if what == "actions" else f"{what} of episode {name}"
            if key in seen:
                yield Finding("copies", f"episode {name}: {shown} are those of {seen[key]}", (name,))
            seen.setdefault(key, place)
