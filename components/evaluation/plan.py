"""The plan: every rollout of an evaluation, and the worker that does it."""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.runtime.errors import UserError
from components.store.artifact import write_atomic

PLAN = "plan.json"
COMMON = "common"
UNTRAINED = "untrained"
GROUP = "group:"
VALIDATION = "validation"
REPORTED = "reported"


@dataclass(frozen=True)
class Job:
    """One evaluator process: instances of one task, with one policy, on one worker."""

    worker: int
    policy: str
    """`common`, `untrained` or `group:NAME`."""
    checkpoint: str
    """The policy's checkpoint folder, relative to the workspace."""
    task: str
    task_index: int
    """The task id that the policy knows the task by."""
    split: str
    """`validation` or `reported`."""
    instances: tuple[int, ...]
    """Indices of the instances in the split's mode of the evaluator."""
    video: bool
    seconds: float
    """Expected duration."""


@dataclass(frozen=True)
class PolicySettings:
    """How the policy server executes chunks: fields of pi_behavior.policy.config.PolicyConfig."""

    execute: int
    compress_from: int
    num_steps: int
    voting: str
    gripper: str
    task_rules: str
    inpainting: str
    seed: int

    @property
    def oracle_stage(self) -> bool:
        """Whether the policy expects to be told the true stage."""
        return self.voting == "oracle"


@dataclass(frozen=True)
class Plan:
    """An evaluation."""

    edition: str
    evaluator: str
    tasks: tuple[str, ...]
    rollouts: int
    """Rollouts per instance."""
    image_size: int
    action_chunk_size: int
    settings: PolicySettings
    jobs: tuple[Job, ...]

    def to_json(self) -> str:
        """The text of `plan.json`."""
        return json.dumps(dataclasses.asdict(self), indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str) -> "Plan":
        """Read the text of `plan.json`.

        Raises:
            UserError: it is not a plan.
        """
        try:
            value: dict[str, Any] = json.loads(text)
            jobs = tuple(Job(**{**job, "instances": tuple(job["instances"])}) for job in value.pop("jobs"))
            settings = PolicySettings(**value.pop("settings"))
            return cls(**{**value, "tasks": tuple(value["tasks"])}, settings=settings, jobs=jobs)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(
                f"{PLAN} cannot be read ({error}); make it with python -m components.plan"
            ) from error

    def save(self, folder: Path) -> None:
        """Write `plan.json` into a folder."""
        write_atomic(folder / PLAN, self.to_json())

    @classmethod
    def load(cls, folder: Path) -> "Plan":
        """Read `plan.json` from a folder.

        Raises:
            UserError: there is none, or it is not a plan.
        """
        if not (folder / PLAN).is_file():
            raise UserError(f"{folder} has no {PLAN}; give the artifact of the stage plan")
        return cls.from_json((folder / PLAN).read_text())
