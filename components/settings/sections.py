"""What can be set of a run: the pipelines' typed inputs, and the sections of their input `settings`.

A section holds fields of one stage's configuration. Later values replace earlier ones: the defaults, the
profile's, the run's settings, the typed inputs. An input gives its value to every field of its name.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from components.dataset.config import DECLARATION as DATASET
from components.evaluate.config import DECLARATION as EVALUATE
from components.group.config import DECLARATION as GROUP
from components.leaderboard.config import DECLARATION as LEADERBOARD
from components.news.config import DECLARATION as NEWS
from components.plan.config import DECLARATION as PLAN
from components.promote.config import DECLARATION as PROMOTE
from components.runtime.declaration import Declaration
from components.runtime.values import Field, fields
from components.statistics.config import DECLARATION as STATISTICS
from components.train.config import DECLARATION as TRAIN

INPUTS = (
    *("repository", "revision", "remote", "tasks", "model", "initial_checkpoint", "steps", "group_steps"),
    *("batch_size", "edition", "evaluator", "validation_instances", "reported_instances", "workers", "seed"),
)
"""The inputs that people change, in the order in which they are shown; a pipeline has those of its stages."""
SETTINGS = "settings"
"""The input for every other field of every stage."""
_POLICY = "policy"
_FEEDS = {"group_steps": ("finetune", "steps"), _POLICY: ("plan", "trained")}
"""Inputs whose name is not that of the field."""


@dataclass(frozen=True)
class Section:
    """The fields of one stage, or of one of its uses."""

    name: str
    declaration: Declaration[Any, Any]
    over: str = ""
    """Another section whose values it begins with, inputs included: it holds what is different."""

    @property
    def fields(self) -> tuple[Field, ...]:
        """The fields of its configuration."""
        kind: Any = self.declaration.config
        return _fields(kind)


@cache
def _fields(kind: type) -> tuple[Field, ...]:
    return tuple(fields(kind))


_WHOLE = (
    Section("dataset", DATASET),
    Section("statistics", STATISTICS),
    Section("train", TRAIN),
    Section("finetune", TRAIN, over="train"),
    Section("plan", PLAN),
    Section("group", GROUP),
    Section("leaderboard", LEADERBOARD),
    Section("promote", PROMOTE),
)
PIPELINES: Mapping[str, tuple[Section, ...]] = {
    "train_and_evaluate": _WHOLE,
    "evaluate": tuple(one for one in _WHOLE if one.name in ("plan", "leaderboard", "promote")),
    "retrain": (Section("news", NEWS), *_WHOLE),
}
"""The sections of every pipeline."""
DECLARATIONS: Mapping[str, Declaration[Any, Any]] = {
    one.name: one for one in (NEWS, DATASET, STATISTICS, TRAIN, PLAN, EVALUATE, GROUP, LEADERBOARD, PROMOTE)
}
"""The stages by name, in the order of the pipelines."""


def inputs(pipeline: str) -> dict[str, Field]:
    """The typed inputs of a pipeline, each with the first field that it gives its value to."""
    names = (_POLICY, *INPUTS) if pipeline == "evaluate" else INPUTS
    found = {name: next(fed(pipeline, name), None) for name in names}
    return {name: target[1] for name, target in found.items() if target is not None}


def fed(pipeline: str, name: str) -> Iterator[tuple[Section, Field]]:
    """The fields to which an input gives its value."""
    for section in PIPELINES[pipeline]:
        for field in section.fields:
            if name in _FEEDS:
                if _FEEDS[name] == (section.name, field.path):
                    yield section, field
            elif field.name == name and not section.over:
                yield section, field


def input_of(pipeline: str, section: Section, field: Field) -> str | None:
    """The input that gives a field its value; None where people set it in `settings`."""
    for name in inputs(pipeline):
        if any(one == (section, field) for one in fed(pipeline, name)):
            return name
    return None


def is_free(pipeline: str, section: Section, field: Field) -> bool:
    """Whether people set a field in `settings`."""
    return input_of(pipeline, section, field) is None and not is_set_by_pipeline(section, field)


def is_set_by_pipeline(section: Section, field: Field) -> bool:
    """Whether the pipeline gives each task its own value, so that people cannot."""
    return field.per_task or (bool(section.over) and field.name == "tasks")
