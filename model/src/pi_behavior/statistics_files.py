"""The files of `Statistics`: `norm_stats.json`, `human.json`, `closure.json` and `fast_tokenizer/`.

`norm_stats.json` has the published layout, so statistics that come with published checkpoints load too.
"""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pi_behavior.correlation import FLAT_DIM, PADDED_DIM, REAL
from pi_behavior.fast import FOLDER as FAST_FOLDER
from pi_behavior.fast import FastTokenizer
from pi_behavior.files import write_atomic
from pi_behavior.layout import ACTION_DIM, ACTION_HORIZON

NORM_STATS = "norm_stats.json"
HUMAN = "human.json"
CLOSURE = "closure.json"
_KINDS = ("mean", "std", "q01", "q99")
_GROUPS = (
    ("state", "state", "", (ACTION_DIM,)),
    ("action", "actions", "", (ACTION_DIM,)),
    ("action_step", "actions", "per_timestamp_", (ACTION_HORIZON, ACTION_DIM)),
)
"""Prefix of the fields of `Statistics`, group in the file, prefix of its entries, shape."""
_CHOLESKY = "action_correlation_cholesky"
_RECORDED = (
    "normalisation",
    "absolute_actions",
    "stages",
    "proprioception",
    "num_frames",
    "num_chunks",
    "horizon",
)


def write(folder: Path, fields: Mapping[str, Any]) -> None:
    """Write the fields of `Statistics`; each file appears whole or not at all."""
    stats: dict[str, dict[str, Any]] = {"state": {}, "actions": {}}
    for name, group, prefix, _ in _GROUPS:
        for kind in _KINDS:
            stats[group][prefix + kind] = _numbers(fields[f"{name}_{kind}"])
    stats["actions"][_CHOLESKY] = _numbers(fields["correlation_cholesky"])
    record = {name: fields[name] for name in _RECORDED}
    write_atomic(folder / NORM_STATS, json.dumps({"norm_stats": stats, **record}))
    write_atomic(folder / HUMAN, json.dumps(fields["human"]))
    write_atomic(folder / CLOSURE, json.dumps(fields["closure"]))
    if fields["fast"] is not None:
        fields["fast"].save(folder / FAST_FOLDER)
    else:
        shutil.rmtree(folder / FAST_FOLDER, ignore_errors=True)


def read(path: Path) -> dict[str, Any]:
    """Read the fields of `Statistics` from `norm_stats.json`, or its folder, and the files beside it.

    Raises:
        ValueError: a file cannot be read, or an entry is missing or of the wrong shape.
    """
    file = path / NORM_STATS if path.is_dir() else path
    document = _json(file)
    try:
        stats = document["norm_stats"]
        fields: dict[str, Any] = {
            f"{name}_{kind}": _array(stats[group][prefix + kind], shape, f"{name}_{kind}")
            for name, group, prefix, shape in _GROUPS
            for kind in _KINDS
        }
        cholesky = np.asarray(stats["actions"][_CHOLESKY], np.float32)
        if cholesky.shape == (PADDED_DIM, PADDED_DIM):
            cholesky = cholesky[np.ix_(REAL, REAL)]
        fields["correlation_cholesky"] = _array(cholesky, (FLAT_DIM, FLAT_DIM), "correlation")
    except KeyError as error:
        raise ValueError(
            f"{file} has no entry {error}; expected the layout of published statistics: norm_stats with "
            f"state and actions, and in actions per_timestamp_* and {_CHOLESKY}"
        ) from error
    except (TypeError, ValueError) as error:
        raise ValueError(f"{file}: {error}") from error
    for name, table in (("human", HUMAN), ("closure", CLOSURE)):
        if (beside := file.with_name(table)).exists():
            fields[name] = _json(beside)
    if (fast := file.with_name(FAST_FOLDER)).is_dir():
        fields["fast"] = FastTokenizer.load(fast)
    return fields | {name: document[name] for name in _RECORDED if name in document}


def _array(values: Any, shape: tuple[int, ...], name: str) -> np.ndarray:
    """As float32, cut to the real dimensions where the published file has the padded ones."""
    array = np.asarray(values, np.float32)
    if array.ndim != len(shape) or any(have < want for have, want in zip(array.shape, shape, strict=True)):
        raise ValueError(f"{name} has the shape {array.shape}; expected {shape}")
    array = array[tuple(slice(n) for n in shape)]
    if not np.isfinite(array).all():
        raise ValueError(f"{name} holds values that are not finite")
    return array


def _numbers(array: np.ndarray) -> Any:
    """Nested lists; nine digits keep a float32 and need half the space of its double."""
    if array.ndim > 1:
        return [_numbers(row) for row in array]
    return [float(f"{value:.9g}") for value in array.tolist()]


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ValueError(f"cannot read statistics from {path}: {error}") from error
