"""What a stage takes and makes, without the work itself.

From a declaration are generated: the stage's command, its Kubeflow component, inputs of the pipelines with
their documentation, and the checks before a run.
"""

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, TypeVar, get_origin, get_type_hints

C = TypeVar("C")
In = TypeVar("In")
LOOP = "Output"
"""The output that a pipeline loops over or branches on. kfp.local 2.17 finds it only under the name that the
SDK gives to return values."""


@dataclass(frozen=True)
class Declaration(Generic[C, In]):
    """A stage as pipelines see it."""

    name: str
    config: type[C]
    """Frozen, documented dataclass of parameters, all with defaults; nested where it is one thing."""
    inputs: type[In]
    """Frozen dataclass of artifacts: Artifact, Artifact | None, or tuple[Artifact, ...]."""
    image: Literal["toolbox", "trainer", "evaluator", "household"] = "toolbox"
    """Role of the image that it runs in."""
    makes: Literal["Artifact", "Dataset", "Model"] = "Artifact"
    """Kubeflow's type of its artifact."""
    output: str = "artifact"
    """Name of its artifact in the Kubeflow UI."""
    page: str = ""
    """Name of the page that it makes for the Kubeflow UI; empty where it makes none."""
    outputs: Mapping[str, type] = field(default_factory=dict)
    """Output parameters by name: str, or list for a list of dicts of text to loop over."""

    from_parameters: Callable[[Mapping[str, Any]], C] | None = None
    """Makes the configuration from a task's parameters, where they are not its fields by name."""

    @property
    def metrics(self) -> str:
        """Name of its metrics in the Kubeflow UI."""
        return f"{self.output}_metrics"

    @property
    def program(self) -> str:
        """The module that runs it as a command."""
        return self.config.__module__.removesuffix(".config")

    def artifacts(self) -> dict[str, tuple[bool, bool]]:
        """Names of the artifacts that it reads: whether there may be several, whether there may be none."""
        hints = get_type_hints(self.inputs)
        found: dict[str, tuple[bool, bool]] = {}
        for one in dataclasses.fields(self.inputs):  # type: ignore[arg-type]
            many = get_origin(hints[one.name]) is tuple
            found[one.name] = (many, one.default is not dataclasses.MISSING)
        return found
