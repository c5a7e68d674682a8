"""Statistics of the demonstrations: delta actions, normalisation, correlation, and tables for the policy.

Everything about the data that a policy needs besides its weights. Source: report, sections 4.5 and 5.

Units: states and absolute actions as in layout.py (rad, m/s, grippers in [-1, 1]); normalised values have
none.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Float32, Int

from pi_behavior import statistics_files
from pi_behavior.challenge import EDITIONS, BaseVelocity, Proprioception
from pi_behavior.correlation import EPSILON, correction_matrix, pad_correlation, shrunk_covariance
from pi_behavior.fast import FastTokenizer
from pi_behavior.layout import (
    ACTION_DIM,
    ACTION_HORIZON,
    BASE,
    DELTA_DIMS,
    GRIPPERS,
    MODEL_DIM,
    proprioception_layout,
)

CLOSED_GRIPPER = -0.98
"""A gripper below this is closed."""
_WORLD_STD, _ROBOT_STD = 0.03, 0.04
"""Deviations of the base's velocity are below the first in data of 2025, and above the second in 2026's."""
Normalisation = Literal["report", "per_step", "global"]
Stages = Literal["equal", "skills"]
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
    stages: Stages = "equal"
    """What the demonstrations' stages are: equal parts (the report), or their annotated skills."""
    proprioception: int = 0
    """Values per frame of the demonstrations' proprioception, which tell its layout; 0 where nobody recorded
    it, as in published statistics."""
    num_frames: int = 0
    num_chunks: int = 0
    horizon: int = ACTION_HORIZON
    fast: FastTokenizer | None = None
    """Tokenizer of chunks that `normalise_quantiles` has mapped, for the FAST loss."""

    @property
    def base_velocity(self) -> BaseVelocity | None:
        """What the base part of the states is: by the record, else by its size; None if that is in between.

        Source of the thresholds: figures that participants of the challenge reported.
        """
        if self.proprioception:
            return proprioception_layout(self.proprioception).base_velocity
        std = self.state_std[BASE]
        if (std < _WORLD_STD).all():
            return "world"
        return "robot" if (std > _ROBOT_STD).all() else None

    @property
    def layout(self) -> tuple[str, Proprioception] | None:
        """The demonstrations' proprioception, and the first edition of the challenge that has it.

        By the record, else the first one with their `base_velocity`; None where that is not known.
        """
        known, velocity = self.proprioception, self.base_velocity
        for name, edition in EDITIONS.items():
            layout = edition.proprioception
            if known == layout.length or (not known and velocity == layout.base_velocity):
                return name, layout
        return None

    def normalise_state(self, state: Float[np.ndarray, "*b 23"]) -> Float32[np.ndarray, "*b 23"]:
        """Scale states to zero mean and unit variance."""
        return _float32((state - self.state_mean) / (self.state_std + EPSILON))

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

    def normalise_actions(
        self, delta: Float[np.ndarray, "*b k 23"], steps: Int[np.ndarray, " k"] | None = None
    ) -> Float32[np.ndarray, "*b k 23"]:
        """Normalise delta chunks per step (report, section 4.5.2).

        Args:
            delta: chunks of at most 30 steps from now, or of the given ones.
            steps: numbers of the steps, 0 is now; those outside of 0 to 29 count as the nearest of these.
        """
        if steps is None:
            mean, std = self._steps(delta)
        else:
            near = np.clip(steps, 0, self.horizon - 1)
            mean, std = self.action_step_mean[near], self.action_step_std[near]
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
        width = np.maximum(self.action_q99 - self.action_q01, np.float32(EPSILON))
        return _float32(2.0 * (clipped - self.action_q01) / width - 1.0)

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
        """Write the files of `statistics_files`; each appears whole or not at all."""
        statistics_files.write(folder, {field.name: getattr(self, field.name) for field in fields(self)})

    @classmethod
    def load(cls, path: Path) -> "Statistics":
        """Read what `save` wrote, or a published `norm_stats.json` (the file or its folder).

        Raises:
            ValueError: a file cannot be read, or an entry is missing or of the wrong shape.
        """
        return cls(**statistics_files.read(path))


def pad_to_model(values: Float[np.ndarray, "*b 23"]) -> Float32[np.ndarray, "*b 32"]:
    """Zero-pad the last axis from 23 to the network's 32."""
    result = np.zeros((*values.shape[:-1], MODEL_DIM), np.float32)
    result[..., :ACTION_DIM] = values
    return result


def stage_of_frame(
    frame: Int[np.ndarray, "*b"], length: Int[np.ndarray, "*b"] | int, stages: Int[np.ndarray, "*b"] | int
) -> Int[np.ndarray, "*b"]:
    """Stage of a demonstration's frame: min(stages - 1, floor(frame * stages / length)) (section 6.1).

    Of the k-th of m skills, it is the same with k and m for frame and length.
    """
    last = np.asarray(stages) - 1
    found: np.ndarray = np.minimum(last, np.asarray(frame) * np.asarray(stages) // np.asarray(length))
    return found


class StageTable:
    """Stages of the frames of demonstrations.

    Args:
        kind: equal parts, or skills. A demonstration without annotated skills has equal parts.
        lengths: frames of every demonstration.
        counts: stages of every demonstration's task.
        skills: first frames of every demonstration's skills, ascending.
    """

    def __init__(
        self, kind: Stages, lengths: Sequence[int], counts: Sequence[int], skills: Sequence[Sequence[int]]
    ) -> None:
        self._lengths, self._counts = np.array(lengths), np.array(counts)
        self._skills = np.array([len(starts) if kind == "skills" else 0 for starts in skills])
        # all demonstrations one after the other, so that one search finds the skills of any frames
        self._offset = np.cumsum(self._lengths) - self._lengths
        self._first = np.cumsum(self._skills) - self._skills
        used = [starts[:n] for starts, n in zip(skills, self._skills, strict=True)]
        self._starts = np.concatenate(
            [np.asarray(s, np.int64) + o for s, o in zip(used, self._offset, strict=True)]
        )

    def of(self, episode: Int[np.ndarray, " b"], frame: Int[np.ndarray, " b"]) -> Int[np.ndarray, " b"]:
        """Stages of frames, each of the demonstration beside it; a frame is of the skill that began last."""
        counts, skills = self._counts[episode], self._skills[episode]
        skill = np.searchsorted(self._starts, self._offset[episode] + frame, side="right") - 1
        skill = np.maximum(skill - self._first[episode], 0)
        equal = stage_of_frame(frame, self._lengths[episode], counts)
        return np.where(skills > 0, stage_of_frame(skill, np.maximum(skills, 1), counts), equal)


def closed_grippers(state: Float[np.ndarray, "*b 23"]) -> Bool[np.ndarray, "*b 2"]:
    """Which grippers, left and right, are closed."""
    return state[..., list(GRIPPERS)] < CLOSED_GRIPPER


def _float32(values: np.ndarray) -> np.ndarray:
    return np.asarray(values, np.float32)
