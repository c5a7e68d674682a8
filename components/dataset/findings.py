"""What the checks look for, and what they find."""

from collections.abc import Mapping
from dataclasses import dataclass, field

CHECKS = {
    "files": "all files of the chosen tasks and cameras are there",
    "schema": "columns have the challenge's names and widths, and belong to the episode",
    "frames": "every file has the frames of its episodes, at the dataset's rate",
    "videos": "videos decode",
    "seeking": "a frame that is read by itself is the one that decoding the whole video gives",
    "pictures": "no camera shows the same picture through a whole episode",
    "cameras": "a camera's pictures have one size, and no two cameras are swapped",
    "finite": "states and actions are finite numbers",
    "limits": "actions and measured joints are within the robot's limits",
    "motion": "joints and actions move, without jumps",
    "velocity": "the base's velocity is in the frame of its commands",
    "revision": "the demonstrations of 2026 are of their final revision",
    "annotations": "annotations are of the episode's task and frames",
    "copies": "no two episodes have the same actions or pictures",
}


@dataclass(frozen=True)
class Finding:
    """Something wrong in a dataset."""

    check: str
    """A key of CHECKS."""
    message: str
    """The file, what it holds, and what was expected."""
    episodes: tuple[str, ...] = ()
    """The episodes that are wrong, as `curation.name_of` names them; none where it is the whole dataset."""


@dataclass(frozen=True)
class Checked:
    """What the check of a file gives."""

    findings: tuple[Finding, ...] = ()
    measured: Mapping[str, Mapping[str, list[float]]] = field(default_factory=dict)
    """What comparisons over the whole dataset need: numbers by episode and by what they are."""
