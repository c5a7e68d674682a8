"""What the stage statistics takes and makes."""

from dataclasses import dataclass, field

from components.runtime.declaration import Declaration
from components.store.artifact import Artifact
from pi_behavior.challenge import check_tasks
from pi_behavior.config import OPERATIONAL, require
from pi_behavior.statistics import Normalisation, Stages


@dataclass(frozen=True)
class Config:
    """What the statistics cover."""

    tasks: tuple[str, ...] = ()
    """Names of the tasks; none means all tasks of the dataset."""
    normalisation: Normalisation = "report"
    """Mean and deviation of actions: per_step (of each step of a chunk, as the published code has it), report
    (the same at all steps for base velocity and grippers, as the report has it) or global (for all)."""
    stages: Stages = "equal"
    """Stages of a demonstration: equal parts, as the report has it, or its annotated skills, of which the
    k-th of m is stage floor(k n / m) of n; a demonstration without annotation has equal parts."""
    absolute_actions: bool = False
    """Leave actions absolute instead of making joints relative to the state at the chunk's first step."""
    fast_vocabulary: int = 1024
    """Tokens of the FAST tokenizer; 0 trains none."""
    processes: int = field(default=0, metadata=OPERATIONAL)
    """How many read at the same time; 0: as many as there are cores."""

    def __post_init__(self) -> None:
        tokens, processes = self.fast_vocabulary, self.processes
        require(
            *check_tasks(self.tasks),
            (tokens >= 0, f"fast_vocabulary is {tokens}; expected 0 or more"),
            (processes >= 0, f"processes is {processes}; expected 0 or more"),
        )


@dataclass(frozen=True)
class Inputs:
    """What the pass reads."""

    dataset: Artifact
    """The checked demonstrations."""


DECLARATION = Declaration("statistics", Config, Inputs, output="statistics", page="statistics_summary")
