"""What a submission says of itself, in its `submission.json`: where every number in it comes from."""

from collections.abc import Mapping
from dataclasses import dataclass

from components.evaluation.evaluators import Edition
from components.evaluation.records import Conditions

MANIFEST = "submission.json"
MAPPING = "mapping.json"
README = "README.md"
METRICS = ".metrics.zip"
"""End of the name of the zip with the results alone. The challenge's leaderboard looks for `metric` in it."""


@dataclass(frozen=True)
class Manifest:
    """A submission."""

    edition: Edition
    reduced: bool
    """Whether the tasks are reduced ones, whose scores are none of the challenge."""
    conditions: Conditions
    policies: Mapping[str, str]
    """SHA-256 tree digest of each policy's artifact, by name."""
    tasks: Mapping[str, str]
    """The policy of each task, by name."""
    instances: Mapping[str, tuple[int, ...]]
    """The instance ids that were prescribed, by task."""
    rollouts: int
    """Rollouts per instance."""
    missing: tuple[str, ...]
    """Rollouts that never finished, which count as 0, as TASK_INSTANCE_ROLLOUT."""
    reruns: Mapping[str, tuple[str, ...]]
    """How earlier starts of a rollout ended, none of which left a result."""
    videos: str
    """Address of the videos."""
