"""What a profile is: values of the pipelines, images, and what each step needs of the cluster.

kfp.local ignores everything about the cluster, so the same pipeline runs on a laptop.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from components.settings.checks import Arguments, merge_sections, resolve
from components.settings.contradictions import Place
from components.settings.sections import PIPELINES, inputs

USER = 10001
"""User and group of the images, and of all that the stages write."""


@dataclass(frozen=True)
class Toleration:
    """A taint that a pod accepts."""

    key: str
    effect: str = "NoSchedule"
    operator: str = "Exists"
    value: str | None = None


@dataclass(frozen=True)
class Volume:
    """A persistent volume claim and where it is mounted."""

    claim: str
    path: str


@dataclass(frozen=True)
class Secret:
    """Keys of a Kubernetes secret that become environment variables of the same names."""

    name: str
    keys: tuple[str, ...]
    optional: bool = False
    """Whether a pod starts without it."""
    without: str = ""
    """What happens without it, where that is as good."""


@dataclass(frozen=True)
class Settings:
    """Keys of a config map that become environment variables of the same names, where they are set."""

    name: str
    keys: tuple[str, ...]


@dataclass(frozen=True)
class Step:
    """What one stage needs of a cluster."""

    image: str = ""
    """Image reference; empty keeps the component's."""
    cpu: str = ""
    """CPU request, such as 4 or 500m; no limit is set, which would only slow a pod down."""
    memory: str = ""
    """Memory request and limit, such as 16Gi."""
    gpus: int = 0
    """GPUs of one pod."""
    shared_memory: str = ""
    """Size of /dev/shm in memory (it counts to `memory`); empty keeps the runtime's 64 MiB."""
    node_labels: Mapping[str, str] = field(default_factory=dict)
    """Labels that a node must have."""
    gpu_products: tuple[str, ...] = ()
    """GPU products that a node may have, as NVIDIA's GPU feature discovery labels them."""
    tolerations: tuple[Toleration, ...] = ()
    volumes: tuple[Volume, ...] = ()
    secrets: tuple[Secret, ...] = ()
    settings: tuple[Settings, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    pod_labels: Mapping[str, str] = field(default_factory=dict)
    """Labels of the pod, such as those that a network policy asks for."""
    attempts: int = 3
    """Most starts of the stage in one pod, after crashes and errors that pass."""
    pods: int = 3
    """Most pods: a lost one, as with its node, is replaced, with growing pauses."""
    hours: float = 24.0
    """Longest life of one pod."""


@dataclass(frozen=True)
class Profile:
    """A size of run. Its values are checked when it is made."""

    name: str
    values: Arguments = field(default_factory=Arguments)
    """Inputs and settings of the pipelines that differ from their defaults."""
    by_pipeline: Mapping[str, Arguments] = field(default_factory=dict)
    """What differs once more in single pipelines."""
    steps: Mapping[str, Step] = field(default_factory=dict)
    """What each stage needs, by the stage's name."""
    pull_secret: str = ""
    """Image pull secret; empty for public images."""
    secrets: tuple[Secret, ...] = ()
    """Of every task, besides its step's own."""
    queue: str = ""
    """Queue of Kueue (a LocalQueue) that admits the pods that ask for GPUs; empty: they ask for none."""
    evaluations: int = 2
    """Most evaluation workers at the same time; kfp.local runs at most two."""
    trainings: int = 1
    """Most groups that train at the same time."""
    workspace: str = "/workspace"
    """Folder that all stages share."""

    def __post_init__(self) -> None:
        """Check all values, for every pipeline."""
        for pipeline in PIPELINES:
            resolve(pipeline, self.of(pipeline), Arguments(), self.place(complete=False))

    def runs(self, pipeline: str) -> bool:
        """Whether it has a step for every stage of a pipeline."""
        return {section.declaration.name for section in PIPELINES[pipeline]} <= self.steps.keys()

    def of(self, pipeline: str) -> Arguments:
        """The values for a pipeline."""
        known = inputs(pipeline)
        both = [one for one in (self.values, self.by_pipeline.get(pipeline)) if one is not None]
        given = {name: v for one in both for name, v in one.inputs.items() if name in known}
        settings = merge_sections(pipeline, *(one.settings for one in both))
        sections = {section.name for section in PIPELINES[pipeline]}
        return Arguments(given, {name: v for name, v in settings.items() if name in sections})

    def place(self, workspace: Path | None = None, *, complete: bool = True) -> Place:
        """What the checks of values have to know.

        Args:
            workspace: the workspace, where it can be seen from here.
            complete: whether all values of a run are given.
        """
        step = self.steps.get("train")
        return Place(step.gpus if step else 0, workspace, complete)

    @property
    def is_local(self) -> bool:
        """Whether its steps ask nothing of a cluster: an image at most. The rest of them is then ignored."""
        return all(step == Step(image=step.image) for step in self.steps.values())
