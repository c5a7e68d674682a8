"""Settings of the policy in use: how chunks become actions (report, section 7), and how it is served."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from pi_behavior.config import ModelConfig, NumberType, require
from pi_behavior.layout import ACTION_HORIZON

_SPLINE_POINTS = 4
"""A cubic spline with not-a-knot ends needs at least this many points."""


FloatType = Literal["auto"] | NumberType


@dataclass(frozen=True)
class Serving:
    """What decides how much memory a server takes; it is told to clients, see `ServerConfig`."""

    networks: Mapping[str, ModelConfig]
    """By the checkpoint's name."""
    batch_sizes: tuple[int, ...]
    max_loaded: int
    parameters: FloatType
    compute: FloatType


@dataclass(frozen=True)
class PolicyConfig:
    """How the network's chunks are executed. The defaults are the published policy's, but for two rules.

    Those two: the table of the gripper rule comes from the demonstrations instead of being made by hand, and
    the rule for one task is off, since it knows that task's stages.
    """

    execute: int = 20
    """Actions queued per call: control steps between two calls of the network."""
    compress_from: int = 26
    """Predicted steps that are compressed to `execute` actions by a cubic spline (report, section 7.2);
    equal to `execute`, there is no compression."""
    inpainting: Literal["soft", "hard", "off"] = "soft"
    """How the next chunk is made to start with what the last one left over (report, section 7.1). soft: the
    other steps follow by the actions' correlation; hard: only the first steps are set; off: not at all."""
    keep: int = 4
    """Predicted steps after the executed ones that the next chunk should start with."""
    num_steps: int = 20
    """Euler steps of the flow."""
    gripper_range: float = 0.2
    """A chunk in which a gripper moves by more than this is not compressed: slow down at a grasp."""
    voting: Literal["published", "off", "oracle"] = "published"
    """published: stages move by the vote of the last three predictions (report, section 7.3). off: the
    stage is the last prediction. oracle: the evaluator tells the stage, as an upper bound in experiments."""
    gripper: Literal["data", "published", "off"] = "data"
    """Gripper rule (report, section 7.4.1): a gripper that is closed where it may not be is opened. data: it
    may where a demonstration of the task and stage has it closed; published: the hand-made table."""
    task_rules: Literal["published", "off"] = "off"
    """Rules for single tasks (report, section 7.4.2): turning_on_radio goes back two stages at the last."""
    clip: bool = False
    """Clip actions to the robot's limits. The published policy does not."""
    seed: int = 0
    """Seed of the flow's noise. An episode that starts with the same observation gets the same noise; if it
    is repeated in its session, other noise."""

    @property
    def kept(self) -> int:
        """Steps that are kept for the next chunk."""
        return 0 if self.inpainting == "off" else self.keep

    def replaying(self, size: int) -> "PolicyConfig | None":
        """The settings to plan with for a client that replays chunks of exactly `size` actions.

        A chunk must not cross a boundary between two plans. So where the size divides `execute`, nothing
        changes; else there is a plan for every chunk, compressed as much as usual if the horizon allows.

        Returns:
            None where the actions and what inpainting keeps do not fit into the horizon.
        """
        if self.execute % size == 0:
            return self
        if size + self.kept > ACTION_HORIZON:
            return None
        planned = min(round(size * self.compress_from / self.execute), ACTION_HORIZON - self.kept)
        return replace(self, execute=size, compress_from=planned if planned >= _SPLINE_POINTS else size)

    def __post_init__(self) -> None:
        """Check that chunks are long enough for what is taken from them."""
        require(
            (self.execute >= 1, f"execute is {self.execute}; expected at least 1"),
            (
                self.compress_from >= self.execute,
                f"compress_from is {self.compress_from}; expected at least execute, {self.execute}, which is "
                "no compression",
            ),
            (
                self.compress_from == self.execute or self.compress_from >= _SPLINE_POINTS,
                f"compress_from is {self.compress_from}; a cubic spline needs {_SPLINE_POINTS} steps",
            ),
            (self.keep >= 1, f"keep is {self.keep}; expected at least 1"),
            (
                self.compress_from + self.kept <= ACTION_HORIZON,
                f"compress_from is {self.compress_from} and keep {self.keep}; expected together at most the "
                f"{ACTION_HORIZON} steps of a chunk",
            ),
            (self.num_steps >= 1, f"num_steps is {self.num_steps}; expected at least 1"),
            (self.gripper_range >= 0, f"gripper_range is {self.gripper_range}; expected 0 or more"),
            (0 <= self.seed < 2**32, f"seed is {self.seed}; expected an integer of 32 bits"),
        )
