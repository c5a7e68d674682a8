"""Statistics of the demonstrations: delta actions, normalisation, correlation, and tables for the policy.

Everything about the data that a policy needs besides its weights. `norm_stats.json` has the published
layout, so statistics that come with published checkpoints load too. Source: report, sections 4.5 and 5.

Units: states and absolute actions as in layout.py (rad, m/s, grippers in [-1, 1]); normalised values have
none.
"""

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float, Float32, Int

from pi_behavior.correlation import EPSILON, FLAT_DIM, PADDED_DIM, REAL, pad_correlation, shrunk_covariance
from pi_behavior.correlation import correction_matrix as correction_matrix
from pi_behavior.fast import FOLDER as FAST_FOLDER
from pi_behavior.fast import FastTokenizer
from pi_behavior.layout import ACTION_DIM, ACTION_HORIZON, DELTA_DIMS, GRIPPERS, MODEL_DIM

CLOSED_GRIPPER = -0.98
"""A gripper below this is closed."""
NORM_STATS = "norm_stats.json"
HUMAN = "human.json"
CLOSURE = "closure.json"
Normalisation = Literal["report", "per_step", "global"]
Vector = Float32[np.ndarray, "23"]
PerStep = Float32[np.ndarray, "30 23"]


@dataclass(frozen=True)
class Statistics:
    """Statistics of the demonstrations, or of a published checkpoint."""

    state_mean: Vector
    state_std: Vector
    state_q01: Vector
    state_q99: Vector
    action_mean: Vector
    """Of delta chunks, over all steps."""
    action_std: Vector
    action_q01: Vector
    action_q99: Vector
    action_step_mean: PerStep
    """Of delta chunks, per step: what actions are normalised with."""
    action_step_std: PerStep
    action_step_q01: PerStep
    action_step_q99: PerStep
    correlation_cholesky: Float32[np.ndarray, "690 690"]
    """Lower factor of the normalised chunks' correlation matrix before shrinkage, 1e-6 I added."""
    normalisation: Normalisation = "per_step"
    """What the per-step arrays hold: values of each step; the global ones for base velocity and grippers, as
    the report has it; or the global ones for all. Published statistics are per_step."""
    absolute_actions: bool = False
    """Whether chunks stay absolute instead of being made relative to the state; the report's are relative."""
    human: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """Mean length (steps) and displacements (m) of the demonstrations by task name."""
    closure: Mapping[str, Sequence[Sequence[bool]]] = field(default_factory=dict)
    """By task index: for every stage, whether the left and the right gripper was ever closed."""
    num_frames: int = 0
    num_chunks: int = 0
    horizon: int = ACTION_HORIZON
    fast: FastTokenizer | None = None
    """Tokenizer of chunks that `normalise_quantiles` has mapped, for the FAST loss."""

    def normalise_state(self, state: Float[np.ndarray, "*b 23"]) -> Float32[np.ndarray, "*b 23"]:
        """Scale states to zero mean and unit variance."""
        return _float32((state - self.state_mean) / (self.state_std + EPSILON))

    def unnormalise_state(self, state: Float[np.ndarray, "*b 23"]) -> Float32[np.ndarray, "*b 23"]:
        """Invert `normalise_state`."""
        return _float32(state * (self.state_std + EPSILON) + self.state_mean)

    def delta(
        self, actions: Float[np.ndarray, "*b k 23"], state: Float[np.ndarray, "*b 23"]
    ) -> Float32[np.ndarray, "*b k 23"]:
        """Make absolute actions relative to the state at the chunk's first step (report, section 4.5.1).

        Base velocity, the last trunk joint and the grippers stay absolute, and with `absolute_actions` all.
        """
        result = np.array(actions, np.float32)
        if not self.absolute_actions:
            result[..., DELTA_DIMS] -= state[..., None, DELTA_DIMS]
        return result

    def undelta(
        self, delta: Float[np.ndarray, "*b k 23"], state: Float[np.ndarray, "*b 23"]
    ) -> Float32[np.ndarray, "*b k 23"]:
        """Invert `delta`."""
        result = np.array(delta, np.float32)
        if not self.absolute_actions:
            result[..., DELTA_DIMS] += state[..., None, DELTA_DIMS]
        return result

    def normalise_actions(self, delta: Float[np.ndarray, "*b k 23"]) -> Float32[np.ndarray, "*b k 23"]:
        """Normalise delta chunks per step (report, section 4.5.2); k <= 30 steps from the chunk's first."""
        mean, std = self._steps(delta)
        return _float32((delta - mean) / (std + EPSILON))

    def unnormalise_actions(self, normalised: Float[np.ndarray, "*b k 23"]) -> Float32[np.ndarray, "*b k 23"]:
        """Invert `normalise_actions`."""
        mean, std = self._steps(normalised)
        return _float32(normalised * (std + EPSILON) + mean)

    def normalise_quantiles(self, delta: Float[np.ndarray, "*b k 23"]) -> Float32[np.ndarray, "*b k 23"]:
        """Clip delta chunks to the global 1 % and 99 % quantiles, which become -1 and 1.

        The same at all steps of a chunk, which keeps it smooth, as the FAST tokenizer needs (report,
        section 4.7). A constant dimension becomes -1.
        """
        clipped = np.clip(delta, self.action_q01, self.action_q99)
        return _float32(2.0 * (clipped - self.action_q01) / self._quantile_range() - 1.0)

    def unnormalise_quantiles(
        self, normalised: Float[np.ndarray, "*b k 23"]
    ) -> Float32[np.ndarray, "*b k 23"]:
        """Invert `normalise_quantiles`, up to clipping."""
        return _float32((normalised + 1.0) / 2.0 * self._quantile_range() + self.action_q01)

    def _quantile_range(self) -> Vector:
        return np.maximum(self.action_q99 - self.action_q01, np.float32(EPSILON))

    def normalise_initial(
        self, saved: Float[np.ndarray, "*b k 23"], state: Float[np.ndarray, "*b 23"]
    ) -> Float32[np.ndarray, "*b k 23"]:
        """Prepare actions that an earlier chunk left over as the first k steps of the next one.

        Args:
            saved: absolute actions.
            state: the new observation's state, not normalised.
        """
        return self.normalise_actions(self.delta(saved, state))

    def _steps(self, chunk: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        steps = chunk.shape[-2]
        if steps > self.horizon:
            raise ValueError(f"the chunk has {steps} steps; expected at most {self.horizon}")
        return self.action_step_mean[:steps], self.action_step_std[:steps]

    def covariance(self, beta: float) -> Float[np.ndarray, "960 960"]:
        """Shrunk covariance beta Sigma + (1 - beta) I for padded chunks (report, section 5.3)."""
        factor = self.correlation_cholesky.astype(np.float64)
        return shrunk_covariance(pad_correlation(factor @ factor.T), beta)

    def regularised_cholesky(self, beta: float) -> Float[np.ndarray, "960 960"]:
        """Lower factor of `covariance`: noise = L z (report, section 5.4)."""
        return np.linalg.cholesky(self.covariance(beta))

    def correction_matrix(self, beta: float, keep: int) -> Float[np.ndarray, "u o"]:
        """Correction matrix of inpainting for `keep` steps; see the function of the same name."""
        return correction_matrix(self.covariance(beta), keep)

    def save(self, folder: Path) -> None:
        """Write `norm_stats.json`, `human.json`, `closure.json` and, where there is one, `fast_tokenizer/`.

        Each appears whole or not at all.
        """
        folder.mkdir(parents=True, exist_ok=True)
        stats = {
            "state": _group(self, "state", ""),
            "actions": {
                **_group(self, "action", ""),
                **_group(self, "action_step", "per_timestamp_"),
                "action_correlation_cholesky": _numbers(self.correlation_cholesky),
            },
        }
        record = {name: getattr(self, name) for name in _RECORDED}
        _write(folder / NORM_STATS, {"norm_stats": stats, **record})
        _write(folder / HUMAN, self.human)
        _write(folder / CLOSURE, self.closure)
        if self.fast is not None:
            self.fast.save(folder / FAST_FOLDER)
        else:
            shutil.rmtree(folder / FAST_FOLDER, ignore_errors=True)

    @classmethod
    def load(cls, path: Path) -> "Statistics":
        """Read what `save` wrote, or a published `norm_stats.json` (the file or its folder).

        A FAST tokenizer in `fast_tokenizer/` beside it is read too.

        Raises:
            ValueError: a file cannot be read, or an entry is missing or of the wrong shape.
        """
        file = path / NORM_STATS if path.is_dir() else path
        document = _read(file)
        try:
            state, actions = document["norm_stats"]["state"], document["norm_stats"]["actions"]
            arrays: dict[str, Any] = {
                f"{name}_{kind}": _array(group[prefix + kind], shape, f"{name}_{kind}")
                for name, group, prefix, shape in (
                    ("state", state, "", (ACTION_DIM,)),
                    ("action", actions, "", (ACTION_DIM,)),
                    ("action_step", actions, "per_timestamp_", (ACTION_HORIZON, ACTION_DIM)),
                )
                for kind in _KINDS
            }
            cholesky = np.asarray(actions["action_correlation_cholesky"], np.float32)
            if cholesky.shape == (PADDED_DIM, PADDED_DIM):
                cholesky = cholesky[np.ix_(REAL, REAL)]
            arrays["correlation_cholesky"] = _array(cholesky, (FLAT_DIM, FLAT_DIM), "correlation")
        except KeyError as error:
            raise ValueError(
                f"{file} has no entry {error}; expected the layout of published statistics: norm_stats with "
                "state and actions, and in actions per_timestamp_* and action_correlation_cholesky"
            ) from error
        except (TypeError, ValueError) as error:
            raise ValueError(f"{file}: {error}") from error
        tables: dict[str, Any] = {
            "human": _read(file.with_name(HUMAN)) if file.with_name(HUMAN).exists() else {},
            "closure": _read(file.with_name(CLOSURE)) if file.with_name(CLOSURE).exists() else {},
        }
        if (fast := file.with_name(FAST_FOLDER)).is_dir():
            tables["fast"] = FastTokenizer.load(fast)
        return cls(**arrays, **tables, **{name: document[name] for name in _RECORDED if name in document})


_KINDS = ("mean", "std", "q01", "q99")
_RECORDED = ("normalisation", "absolute_actions", "num_frames", "num_chunks", "horizon")


def pad_to_model(values: Float[np.ndarray, "*b 23"]) -> Float32[np.ndarray, "*b 32"]:
    """Zero-pad the last axis from 23 to the network's 32."""
    result = np.zeros((*values.shape[:-1], MODEL_DIM), np.float32)
    result[..., :ACTION_DIM] = values
    return result


def stage_of_frame(
    frame: Int[np.ndarray, "*b"], length: Int[np.ndarray, "*b"] | int, stages: Int[np.ndarray, "*b"] | int
) -> Int[np.ndarray, "*b"]:
    """Stage of a demonstration's frame: min(stages - 1, floor(frame * stages / length)) (section 6.1)."""
    last = np.asarray(stages) - 1
    found: np.ndarray = np.minimum(last, np.asarray(frame) * np.asarray(stages) // np.asarray(length))
    return found


def closed_grippers(state: Float[np.ndarray, "*b 23"]) -> Bool[np.ndarray, "*b 2"]:
    """Which grippers, left and right, are closed."""
    return state[..., list(GRIPPERS)] < CLOSED_GRIPPER


def _float32(values: np.ndarray) -> np.ndarray:
    return np.asarray(values, np.float32)


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


def _group(statistics: Statistics, name: str, prefix: str) -> dict[str, Any]:
    return {prefix + kind: _numbers(getattr(statistics, f"{name}_{kind}")) for kind in _KINDS}


def _write(path: Path, document: object) -> None:
    aside = path.with_name(f".{path.name}.{os.getpid()}.partial")
    with aside.open("w") as file:
        file.write(json.dumps(document))
        file.flush()
        os.fsync(file.fileno())
    aside.replace(path)


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ValueError(f"cannot read statistics from {path}: {error}") from error
