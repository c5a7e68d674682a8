"""What the settings stage takes and makes."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from components.runtime.declaration import Declaration
from components.runtime.executor import PROFILE, RUN_ID, SECTIONS, SETTINGS, TASK_ID


@dataclass(frozen=True)
class Config:
    """All values of a run. Those that are JSON have their names sorted."""

    pipeline: str = "train_and_evaluate"
    """Name of the pipeline."""
    train_gpus: int = 0
    """GPUs of a training."""
    inputs: str = "{}"
    """JSON: the pipeline's typed inputs."""
    settings: str = "{}"
    """JSON: the run's settings, fields by stage."""
    profile: str = "{}"
    """JSON: the profile's settings, fields by stage."""


@dataclass(frozen=True)
class Inputs:
    """Nothing: it checks values alone."""


def from_parameters(parameters: Mapping[str, Any]) -> Config:
    """The configuration from a task's parameters; those that are not its own are the pipeline's inputs."""
    own = ("pipeline", "train_gpus", PROFILE, SETTINGS)
    inputs = {n: v for n, v in parameters.items() if n not in (*own, SECTIONS, RUN_ID, TASK_ID)}
    return Config(
        str(parameters["pipeline"]),
        int(parameters["train_gpus"]),
        *(_json(one) for one in (inputs, parameters[SETTINGS], parameters[PROFILE])),
    )


def _json(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True)


DECLARATION = Declaration(
    "settings", Config, Inputs, from_parameters=from_parameters, output="values", page="configuration"
)
