"""What can be set of a run: the pipelines' typed inputs, and the sections of their input `settings`.

A section holds fields of one stage's configuration. Later values replace earlier ones: the defaults, the
profile's, the run's settings, the typed inputs. An input gives its value to every field of its name, but for
`group_steps` and `policy`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

from components.collect.config import DECLARATION as COLLECT
from components.dataset.config import DECLARATION as DATASET
from components.evaluate.config import DECLARATION as EVALUATE
from components.group.config import DECLARATION as GROUP
from components.leaderboard.config import DECLARATION as LEADERBOARD
from components.news.config import DECLARATION as NEWS
from components.plan.config import DECLARATION as PLAN
from components.prepare.config import DECLARATION as PREPARE
from components.promote.config import DECLARATION as PROMOTE
from components.runtime.declaration import Declaration
from components.runtime.values import Field, fields
from components.statistics.config import DECLARATION as STATISTICS
from components.train.config import DECLARATION as TRAIN
from components.trial.config import DECLARATION as TRIAL

INPUTS = (
    *("repository", "revision", "remote", "tasks", "episodes", "model", "initial_checkpoint", "steps"),
    *(
        "group_steps",
        "batch_size",
        "edition",
        "evaluator",
        "validation_instances",
        "reported_instances",
        "workers",
        "seed",
    ),
)
"""The inputs that people change, in the order in which they are shown; a pipeline has those of its stages."""
SETTINGS = "settings"
"""The input for every other field of every stage."""
_POLICY = "policy"
_FROM_TASKS: Mapping[str, tuple[str, ...]] = {"demo": ("dataset.revision", "dataset.remote")}
"""Fields that a pipeline takes from an earlier task, by their paths with their sections."""


@dataclass(frozen=True)
class Section:
    """The fields of one stage, or of one of its uses."""

    name: str
    declaration: Declaration[Any, Any]
    over: str = ""
    """Another section whose values it begins with, inputs included: it holds what is different."""

    @cached_property
    def fields(self) -> tuple[Field, ...]:
        """The fields of its configuration."""
        return tuple(fields(self.declaration.config))


_WHOLE = (
    Section("dataset", DATASET),
    Section("prepare", PREPARE),
    Section("statistics", STATISTICS),
    Section("train", TRAIN),
    Section("finetune", TRAIN, over="train"),
    Section("plan", PLAN),
    Section("evaluate", EVALUATE),
    Section("group", GROUP),
    Section("leaderboard", LEADERBOARD),
    Section("trial", TRIAL),
    Section("promote", PROMOTE),
)
_EVALUATING = ("plan", "evaluate", "leaderboard", "trial", "promote")
PIPELINES: Mapping[str, tuple[Section, ...]] = {
    "train_and_evaluate": _WHOLE,
    "evaluate": tuple(one for one in _WHOLE if one.name in _EVALUATING),
    "retrain": (Section("news", NEWS), *_WHOLE),
    "demo": (Section("collect", COLLECT), *_WHOLE),
}
"""The sections of every pipeline."""
DECLARATIONS: Mapping[str, Declaration[Any, Any]] = {
    one.name: one
    for one in (
        NEWS,
        COLLECT,
        DATASET,
        PREPARE,
        STATISTICS,
        TRAIN,
        PLAN,
        EVALUATE,
        GROUP,
        LEADERBOARD,
        TRIAL,
        PROMOTE,
    )
}
"""The stages by name, in the order of the pipelines."""


@cache
def input_names(pipeline: str) -> dict[str, str]:
    """Which input gives a field its value, by the field's path with its section, such as `train.steps`."""
    found = {
        f"{section.name}.{field.path}": field.name
        for section in PIPELINES[pipeline]
        for field in section.fields
        if field.name in INPUTS and not section.over and not is_set_by_pipeline(pipeline, section, field)
    }
    if pipeline == "evaluate":
        found["plan.trained"] = _POLICY
    if any(section.name == "finetune" for section in PIPELINES[pipeline]):
        found["finetune.steps"] = "group_steps"
    return found


def inputs(pipeline: str) -> dict[str, Field]:
    """The typed inputs of a pipeline, each with the first field that it gives its value to."""
    found: dict[str, Field] = {}
    for section in PIPELINES[pipeline]:
        for field in section.fields:
            name = input_names(pipeline).get(f"{section.name}.{field.path}")
            if name is not None:
                found.setdefault(name, field)
    return {name: found[name] for name in (_POLICY, *INPUTS) if name in found}


def is_free(pipeline: str, section: Section, field: Field) -> bool:
    """Whether people set a field in `settings`."""
    is_fed = f"{section.name}.{field.path}" in input_names(pipeline)
    return not is_fed and not is_set_by_pipeline(pipeline, section, field)


def is_set_by_pipeline(pipeline: str, section: Section, field: Field) -> bool:
    """Whether the pipeline gives each task its own value, so that people cannot."""
    is_from_task = f"{section.name}.{field.path}" in _FROM_TASKS.get(pipeline, ())
    return field.per_task or is_from_task or (bool(section.over) and field.name == "tasks")
