"""What the stage evaluate takes and makes."""

from dataclasses import dataclass, field, replace

from components.evaluation.evaluator import Evaluator
from components.runtime.declaration import Declaration
from components.runtime.values import PER_TASK
from components.store.artifact import Artifact
from pi_behavior.config import OPERATIONAL, require

_STEPS_PER_LINE = 1000
"""Steps between two lines of the official evaluator's log that say the step."""


@dataclass(frozen=True)
class Limits:
    """When the processes of a worker count as failed; and how much memory they may hold."""

    start: float = 0.0
    """Seconds from the start of an evaluator, which loads a scene, to its first step; 0: as the evaluator
    needs, and four times that to be sure."""
    stalled: float = 0.0
    """Seconds without progress after that; 0: as above."""
    server: float = 120.0
    """Seconds without an answer of the policy server."""
    loading: float = 1800.0
    """Seconds for the policy server to load a checkpoint, also a large one from a shared volume, and to
    compile."""
    closing: float = 30.0
    """Seconds from an evaluator's last result to its end; some hang there."""
    lease: float = 180.0
    """Seconds without a sign of life after which others take over what a worker was doing. One that ended
    shows at once where the volume has file locks; this is for one that hangs, or is cut off."""
    memory: float = 0.85
    """Share of the pod's memory limit above which the evaluator is started again after a rollout."""

    def __post_init__(self) -> None:
        require(
            *(
                (getattr(self, n) >= 0, f"{n} is {getattr(self, n)}; expected 0 or more seconds")
                for n in ("start", "stalled")
            ),
            *(
                (getattr(self, n) > 0, f"{n} is {getattr(self, n)}; expected more than 0 seconds")
                for n in ("server", "loading", "closing", "lease")
            ),
            (0 < self.memory <= 1, f"memory is {self.memory}; expected a share above 0, at most 1"),
        )

    def of(self, evaluator: Evaluator, environments: int = 0) -> "Limits":
        """With what is not given: four times as long as an evaluator is expected to take, minutes at least.

        Environments of one process are taken to need as long as if they were simulated one after the other.
        """
        line = _STEPS_PER_LINE / evaluator.steps_per_second * max(environments, 1)
        return replace(
            self,
            start=self.start or max(300.0, 4 * evaluator.startup_seconds),
            stalled=self.stalled or max(180.0, 4 * line),
        )


@dataclass(frozen=True)
class Config:
    """A worker. None of its values changes the evaluation, which is what the plan says."""

    worker: int = field(default=0, metadata={**PER_TASK, **OPERATIONAL})
    """Number of the worker."""
    limits: Limits = field(default_factory=Limits, metadata=OPERATIONAL)
    """When evaluator and policy server count as failed."""

    results: str = field(default="", metadata=OPERATIONAL)
    """Where finished rollouts are copied to as they finish: s3://BUCKET/PREFIX, or a folder. They are in the
    workspace anyway; those of an evaluation that was finished before this was given are there alone."""

    def __post_init__(self) -> None:
        require((self.worker >= 0, f"worker is {self.worker}; expected 0 or more"))


@dataclass(frozen=True)
class Inputs:
    """What a worker reads."""

    plan: Artifact
    """The plan, or a trial; the checkpoints that it names lie in the same workspace."""


DECLARATION = Declaration("evaluate", Config, Inputs, image="evaluator", output="rollouts", page="scores")
