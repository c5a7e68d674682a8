"""The plan: every rollout of an evaluation. Which worker does which shows when they do them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from components.errors import UserError
from components.evaluation import records
from components.evaluation.evaluators import Edition, Name
from components.evaluation.schedule import Rules
from components.store.artifact import Artifact
from pi_behavior.policy.config import PolicyConfig

PLAN = "plan.json"
OWN = "own"
"""In a plan's artifact: the folder of its wrapper and robot configuration."""
COMMON = "common"
UNTRAINED = "untrained"
GROUP = "group:"
Split = Literal["validation", "reported", "confirmation"]
VALIDATION: Split = "validation"
REPORTED: Split = "reported"
CONFIRMATION: Split = "confirmation"


@dataclass(frozen=True)
class Execution:
    """How the chunks of a policy's network are executed."""

    policy: PolicyConfig
    action_chunk_size: int
    """Actions per request, where the evaluator has the choice; 0 is one."""


@dataclass(frozen=True)
class Policy:
    """A policy that is evaluated."""

    artifact: str
    """The trained policy's artifact, relative to the workspace."""
    digest: str
    """The artifact's digest: other weights at the same place are refused."""
    folder: Literal["checkpoint", "initial"]
    """Which of the artifact's checkpoints: the trained one, or that of step 0."""
    execution: Execution | None = None
    """Where it is not the plan's; both tell the policy the true stage, or neither."""

    @property
    def checkpoint(self) -> str:
        """The checkpoint's folder, relative to the workspace."""
        return f"{self.artifact}/{self.folder}"


@dataclass(frozen=True)
class Job:
    """Rollouts that need the same policy server and the same scene."""

    policy: str
    """Name of the policy: `common`, `untrained` or `group:NAME`; in a trial a code, which says nothing."""
    task: str
    split: Split
    instances: tuple[int, ...]
    """Indices of the instances in the split's mode of the evaluator."""
    videos: tuple[int, ...] = ()
    """Those of the instances whose rollouts are recorded."""
    seconds: float = 60.0
    """Expected duration of one instance, with all of its rollouts."""
    measured: bool = False
    """Whether that was measured in earlier evaluations."""


@dataclass(frozen=True)
class Plan:
    """An evaluation."""

    edition: Edition
    evaluator: Name
    tasks: tuple[str, ...]
    rollouts: int
    """Rollouts per instance."""
    image_size: int
    action_chunk_size: int
    policy: PolicyConfig
    """How chunks are executed."""
    policies: Mapping[str, Policy]
    """What is evaluated, by name."""
    jobs: tuple[Job, ...]
    environments: int = 0
    """Environments that a process of the evaluator simulates together; 0: one after the other."""
    startup: float = 0.0
    """Expected seconds from the start of a process to its first step."""
    wrapper: str = ""
    """Dotted name of the environment's wrapper class; empty: the evaluator's default."""
    own: Mapping[str, str] = field(default_factory=dict)
    """Files in the folder `own` beside the plan, by what they are: wrapper, robot_config."""
    window: int = 0
    """Jobs that are open at a time, from the first unfinished one on; 0: all."""

    @property
    def rules(self) -> Rules:
        """How workers share the rollouts."""
        return Rules(self.startup, self.environments, in_order=not self.environments and self.rollouts == 1)

    @property
    def oracle_stage(self) -> bool:
        """Whether the evaluator has to tell the policy the true stage."""
        return self.policy.voting == "oracle"

    def execution(self, policy: str) -> Execution:
        """How a policy is executed."""
        return self.policies[policy].execution or Execution(self.policy, self.action_chunk_size)

    def save(self, folder: Path) -> None:
        """Write `plan.json` into a folder."""
        records.write(folder / PLAN, self)

    def files(self, folder: Path) -> dict[str, Path]:
        """Its own wrapper and robot_config, where it has them, in the plan's artifact."""
        return {what: folder / OWN / name for what, name in self.own.items()}

    @classmethod
    def load(cls, folder: Path) -> "Plan":
        """Read `plan.json` from a folder."""
        return records.read(folder / PLAN, cls, "give an artifact of the stage plan, or make it again")

    def artifacts(self, workspace: Path) -> dict[str, Artifact]:
        """The artifacts of the policies, by the policies' names.

        Raises:
            UserError: one is missing, or is not the one that the plan was made for.
        """
        found = {name: Artifact.load(workspace / policy.artifact) for name, policy in self.policies.items()}
        for name, artifact in found.items():
            if artifact.digest != self.policies[name].digest:
                raise UserError(
                    f"{artifact.path} has the digest {artifact.digest}, but the plan was made for a policy "
                    f"{name} with {self.policies[name].digest}: it was trained again since. Plan the "
                    "evaluation again"
                )
        return found
