"""Checks of an episode's rows in its table, and of its annotation."""

import json
import zlib
from collections.abc import Iterator

import numpy as np
from jaxtyping import Float

from components.dataset.findings import Finding
from pi_behavior.data.columns import VECTOR_WIDTHS
from pi_behavior.data.curation import name_of
from pi_behavior.data.lerobot import DatasetError, Episode, LeRobotDataset
from pi_behavior.layout import (
    ACTION_DIM,
    ACTION_HIGH,
    ACTION_HORIZON,
    ACTION_LOW,
    BASE,
    DATASET_ACTION_KEY,
    DATASET_STATE_KEY,
    GRIPPERS,
    proprioception_layout,
    state_from_proprioception,
)

_SCALARS = ("timestamp", "episode_index", "index", "task_index")
_JOINTS = np.array([d for d in range(BASE.stop, ACTION_DIM) if d not in GRIPPERS])
_JUMP = 0.5
"""Radians that no joint of the robot moves in a thirtieth of a second."""
_STILL = 1e-6
_SECOND = 30
"""Frames: what is shorter is not judged by how it moves."""


def check_table(
    dataset: LeRobotDataset, episode: Episode, tolerance: float, joint_tolerance: float, idle: float
) -> tuple[list[Finding], dict[str, list[float]]]:
    """Check an episode's rows and annotation.

    Args:
        dataset: the dataset.
        episode: the episode.
        tolerance: how far base commands and grippers may be outside the robot's limits.
        joint_tolerance: how far joints may be.
        idle: see `used_part`.

    Returns:
        What was found, and what is measured: `used` (first frame and end of the part that is not idle),
        `width` of the state, `actions` (a checksum), `base` and `joints` (see `check_whole.py`).
    """
    path = f"{dataset.data_path(episode).relative_to(dataset.root)}, episode {episode.index}"
    findings: list[Finding] = []

    def add(check: str, message: str) -> None:
        findings.append(Finding(check, f"{path}: {message}", (name_of(episode),)))

    for message in _annotation(dataset, episode):
        add("annotations", message)
    try:
        columns = dataset.read(episode, (*VECTOR_WIDTHS, *_SCALARS))
    except DatasetError as error:
        message = str(error).replace(f"{dataset.root}/", "")
        return [*findings, Finding("schema", message, (name_of(episode),))], {}
    for name, expected in (("episode_index", episode.index), ("task_index", episode.task_column)):
        if (columns[name] != expected).any():
            add("schema", f"{name} is not {expected} in all rows")
    if (np.diff(columns["index"]) != 1).any():
        add("schema", "index does not count the rows")
    late = np.abs(columns["timestamp"] - np.arange(episode.length) / dataset.fps).max()
    if not late < 0.5 / dataset.fps:
        add("frames", f"timestamps are off by {late:.3f} s from {dataset.fps:g} fps")
    if broken := [n for n in VECTOR_WIDTHS if n in columns and not np.isfinite(columns[n]).all()]:
        add("finite", f"{', '.join(broken)} hold values that are not finite")
        return findings, {}
    raw, actions = columns[DATASET_STATE_KEY], columns[DATASET_ACTION_KEY].astype(np.float32, copy=False)
    state = state_from_proprioception(raw)
    allowed = np.full(ACTION_DIM, tolerance)
    allowed[_JOINTS] = joint_tolerance
    for name, values in ((DATASET_ACTION_KEY, actions), (DATASET_STATE_KEY, state)):
        # a measured base velocity may exceed the commanded one, so it has no limit
        outside = [*_limits(values, 0 if name == DATASET_ACTION_KEY else BASE.stop, allowed)]
        for message in outside:
            add("limits", f"{name} {message}")
        for message in [] if outside else _motion(values):
            add("motion", f"{name} {message}")
    return findings, {
        "used": [float(frame) for frame in used_part(actions, idle)],
        "width": [float(raw.shape[1])],
        "actions": [float(zlib.crc32(np.ascontiguousarray(actions).tobytes())), float(episode.length)],
        "base": _base_sums(state, actions),
        "joints": _joint_sums(raw, dataset.fps),
    }


def used_part(actions: Float[np.ndarray, "n 23"], tolerance: float) -> tuple[int, int]:
    """First frame and end of what is left when idle frames at beginning and end are cut.

    Idle are frames in which every action is within a tolerance of the first (last) one, and the base is
    commanded to stand. The last idle frame before the motion stays, and never less than a chunk.
    """
    if tolerance <= 0:
        return 0, len(actions)
    stands = (np.abs(actions[:, BASE]) <= tolerance).all(axis=1)
    begins, ends = (stands & (np.abs(actions - one) <= tolerance).all(axis=1) for one in actions[[0, -1]])
    first = max(0, int((~begins).argmax()) - 1) if not begins.all() else 0
    last = max(0, int((~ends[::-1]).argmax()) - 1) if not ends.all() else 0
    end = len(actions) - last
    return (first, end) if end - first >= ACTION_HORIZON else (0, len(actions))


def _limits(values: np.ndarray, first: int, allowed: np.ndarray) -> Iterator[str]:
    excess = np.maximum(ACTION_LOW - values, values - ACTION_HIGH) - allowed
    excess[:, :first] = 0.0
    frame, dimension = np.unravel_index(excess.argmax(), excess.shape)
    if excess[frame, dimension] > 0:
        yield (
            f"at frame {frame}, dimension {dimension} is {values[frame, dimension]:.4f}; expected "
            f"{ACTION_LOW[dimension]:.4f} to {ACTION_HIGH[dimension]:.4f} (tolerance {allowed[dimension]:g})"
        )


def _motion(values: np.ndarray) -> Iterator[str]:
    if len(values) >= _SECOND and (np.ptp(values, axis=0) < _STILL).all():
        yield "is the same in all frames"
    steps = np.abs(np.diff(values[:, _JOINTS], axis=0))
    if steps.size and steps.max() > _JUMP:
        frame, joint = np.unravel_index(steps.argmax(), steps.shape)
        yield (
            f"jumps by {steps[frame, joint]:.3f} at frame {frame + 1}, dimension {_JOINTS[joint]}; expected "
            f"at most {_JUMP:g} a frame"
        )


def _base_sums(state: np.ndarray, actions: np.ndarray) -> list[float]:
    """Count of frames and sums over them of speeds along the floor: measured, commanded, their squares, their
    product, and the dot product of the velocities.
    """
    measured, commanded = state[:, :2].astype(np.float64), actions[:, :2].astype(np.float64)
    fast, told = np.hypot(*measured.T), np.hypot(*commanded.T)
    sums = (fast, told, fast * fast, told * told, fast * told, (measured * commanded).sum(axis=1))
    return [float(len(fast)), *(float(one.sum()) for one in sums)]


def _joint_sums(raw: np.ndarray, fps: float) -> list[float]:
    """Count of frames, and sums over frames and arm joints of squares and products: measured velocities, and
    differences of positions; all centred.
    """
    values, sums = proprioception_layout(raw.shape[1]).values, np.zeros(3)
    for arm in ("left", "right"):
        position, velocity = (
            raw[:, values[f"arm_{arm}_{kind}"]].astype(np.float64) for kind in ("qpos", "qvel")
        )
        if len(raw) > 2:
            moved = (position[2:] - position[:-2]) * fps / 2
            moved, velocity = moved - moved.mean(0), velocity[1:-1] - velocity[1:-1].mean(0)
            sums += [(velocity**2).sum(), (moved**2).sum(), (velocity * moved).sum()]
    return [float(len(raw)), *sums.tolist()]


def _annotation(dataset: LeRobotDataset, episode: Episode) -> Iterator[str]:
    path = dataset.annotation_path(episode)
    if path is None:
        return
    name = path.relative_to(dataset.root)
    try:
        content = json.loads(path.read_text())
        segments = [*content.get("skill_annotation", ()), *content.get("primitive_annotation", ())]
        task = str(content.get("task_name") or episode.task_name).replace(" ", "_")
        ends = [np.ravel(one["frame_duration"]).astype(float) for one in segments]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        yield f"{name} cannot be read: {type(error).__name__}: {error}"
        return
    if task != episode.task_name:
        yield f"{name} is of task {task}; expected {episode.task_name}"
    if wrong := [e for e in ends if e.size < 2 or e.min() < 0 or e.max() > episode.length + _SECOND]:
        yield f"{name} names frames {wrong[0].tolist()}; the episode has {episode.length}"
