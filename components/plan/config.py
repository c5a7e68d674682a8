"""What the stage plan takes and makes."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from components.evaluation.evaluators import EVALUATORS, Edition, find_evaluator
from components.evaluation.plan import REPORTED, VALIDATION, Split
from components.runtime.declaration import LOOP, Declaration
from components.runtime.values import PER_TASK
from components.store.artifact import Artifact
from pi_behavior.challenge import DEFAULT_EDITION, check_tasks
from pi_behavior.config import OPERATIONAL, require
from pi_behavior.policy.config import PolicyConfig


@dataclass(frozen=True)
class Config:
    """An evaluation."""

    tasks: tuple[str, ...] = ()
    """Names of the tasks to evaluate; none means the tasks that the common policy was trained on."""
    edition: Edition = DEFAULT_EDITION
    """Edition of the challenge, which decides the rules and the version of the evaluator."""
    evaluator: Literal["household", "omnigibson"] = "household"
    """Simulator: the small house of this project, or the challenge's own."""
    splits: tuple[Split, ...] = field(default=(VALIDATION, REPORTED), metadata=PER_TASK)
    """Which instances: validation, reported or both."""
    validation_instances: int = 10
    """Validation instances per task: policies are chosen on them."""
    reported_instances: int = 10
    """Reported instances per task: scores are computed on them."""
    rollouts: int = 1
    """Rollouts per instance."""
    workers: int = field(default=1, metadata=OPERATIONAL)
    """Largest number of evaluation workers. They share the rollouts as they become free, so that another
    number is the same evaluation."""
    environments: int = 0
    """Environments that one process of the evaluator simulates together, for an evaluator that has
    --num-envs: the household simulator, and the challenge's from v3.9.3 on, which needs at least 1. With 0
    the option is not used, and instances are done one after the other."""
    untrained: bool = False
    """Also run the reported instances with the parameters of step 0, for comparison."""
    videos: int = 2
    """Videos per task and policy, of the first reported instances. Unless this is 0, the challenge's
    evaluator records every reported rollout, as it has no choice, and the household, whose videos are quick
    to make, every one of the trained policies."""
    image_size: int = 224
    """Height and width of the policy's images in pixels, where the evaluator has the choice."""
    action_chunk_size: int = 0
    """Actions per request, which the evaluator replays; the challenge's can from v3.9.3 on. 0 or 1 asks for
    one, as is done for policies that read several observations."""
    wrapper: str = ""
    """File (.py) of your own wrapper of the environment; it goes into the submission. Empty: one of the
    evaluator's."""
    wrapper_class: str = ""
    """Class in `wrapper`, or the dotted name of one of the evaluator's wrappers; empty: its default."""
    robot_config: str = ""
    """File of your own robot configuration; it goes into the submission. Empty: the evaluator's."""
    policy: PolicyConfig = field(default_factory=PolicyConfig)
    """How the network's chunks are executed."""
    trained: str = field(default="", metadata=PER_TASK)
    """Folder of the policy to evaluate, an artifact of the stage train, where none is given as `common`."""

    def __post_init__(self) -> None:
        positive = ("validation_instances", "reported_instances", "rollouts", "workers", "image_size")
        evaluator = find_evaluator(self.evaluator, self.edition)
        able = ", ".join(name for name in EVALUATORS if find_evaluator(name, self.edition).own_options)
        counts = {split: getattr(self, f"{split}_instances") for split in self.splits}
        require(
            *((getattr(self, n) >= 1, f"{n} is {getattr(self, n)}; expected at least 1") for n in positive),
            *(
                (getattr(self, n) >= 0, f"{n} is {getattr(self, n)}; expected 0 or more")
                for n in ("videos", "action_chunk_size", "environments")
            ),
            (bool(self.splits), f"splits is empty; expected {VALIDATION}, {REPORTED} or both"),
            (
                self.policy.voting != "oracle" or evaluator.own_options,
                f"policy.voting is oracle, but the evaluator {self.evaluator} cannot tell the true stage; "
                f"expected the evaluator {able} or another voting",
            ),
            *(
                (
                    count <= evaluator.splits[split].count,
                    f"{split}_instances is {count}; expected at most {evaluator.splits[split].count}, the "
                    f"{split} instances of the evaluator {self.evaluator} in {self.edition}",
                )
                for split, count in counts.items()
            ),
            (
                self.rollouts == 1 or evaluator.repeats,
                f"rollouts is {self.rollouts}; expected 1: the evaluator {self.evaluator} of {self.edition} "
                "rolls each instance out once",
            ),
            (
                not self.environments or evaluator.batches,
                f"environments is {self.environments}; expected 0: the evaluator {self.evaluator} of "
                f"{self.edition} simulates one environment",
            ),
            *(
                (
                    not getattr(self, name) or name.removesuffix("_class") in evaluator.takes,
                    f"{name} is {getattr(self, name)!r}; expected nothing: the evaluator {self.evaluator} of "
                    f"{self.edition} has its own",
                )
                for name in ("wrapper", "wrapper_class", "robot_config")
            ),
            (
                not self.wrapper
                or (Path(self.wrapper).suffix == ".py" and self.wrapper_class.isidentifier()),
                f"wrapper is {self.wrapper!r} and wrapper_class {self.wrapper_class!r}; expected a file that "
                "ends with .py, and the name of a class in it",
            ),
            *check_tasks(self.tasks),
        )

    @property
    def files(self) -> dict[str, Path]:
        """Its own files, by the names of their fields."""
        given = {"wrapper": self.wrapper, "robot_config": self.robot_config}
        return {name: Path(path).resolve() for name, path in given.items() if path}

    @property
    def wrapper_name(self) -> str:
        """Dotted name of the wrapper's class."""
        return f"{Path(self.wrapper).stem}.{self.wrapper_class}" if self.wrapper else self.wrapper_class


@dataclass(frozen=True)
class Inputs:
    """What a plan is made from."""

    common: Artifact | None = None
    """The policy that was trained on all tasks."""
    groups: tuple[Artifact, ...] = ()
    """Policies that were fine-tuned for groups of tasks."""


DECLARATION = Declaration("plan", Config, Inputs, outputs={LOOP: list}, output="plan", page="plan_summary")
