"""What the stage notify takes and makes."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from components.runtime.declaration import Declaration
from components.runtime.executor import RUN_ID, STATUS
from components.runtime.values import mapping


@dataclass(frozen=True)
class Config:
    """A run that has ended."""

    run: str = ""
    """ID of the run."""
    state: str = "SUCCEEDED"
    """How it ended, in Kubeflow's words: SUCCEEDED, FAILED, CANCELLED."""


@dataclass(frozen=True)
class Inputs:
    """Nothing: it reads what the run's tasks recorded."""


def from_parameters(parameters: Mapping[str, Any]) -> Config:
    """The configuration from a task's parameters."""
    status = mapping(parameters.get(STATUS, {}))
    return Config(str(parameters.get(RUN_ID, "")), str(status.get("state", "")))


DECLARATION = Declaration("notify", Config, Inputs, output="notification", from_parameters=from_parameters)
