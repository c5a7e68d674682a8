"""Which demonstrations of a dataset are used, and which of their frames: `curation.json` in its folder.

The dataset's own files stay as they are. Without the file all demonstrations are used whole.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import msgspec

from pi_behavior.data.meta import DatasetError, Episode
from pi_behavior.files import write_atomic

CURATION = "curation.json"


@dataclass(frozen=True)
class Curation:
    """The content of `curation.json`. Episodes are named as `name_of` does."""

    tasks: tuple[int, ...] = ()
    """Task indices of the challenge that are used; none means all."""
    left_out: Mapping[str, str] = field(default_factory=dict)
    """Episodes that are not used, and why."""
    parts: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    """First frame and end of episodes that are used in part."""

    @classmethod
    def load(cls, root: Path) -> "Curation":
        """Of a dataset; DatasetError if the file cannot be read."""
        path = root / CURATION
        try:
            return msgspec.json.decode(path.read_bytes(), type=cls)
        except FileNotFoundError:
            return cls()
        except (OSError, msgspec.MsgspecError) as error:
            raise DatasetError(f"{path} cannot be read: {error}") from error

    def save(self, root: Path) -> None:
        """Write it into a dataset; nothing where all is used."""
        if self == Curation():
            (root / CURATION).unlink(missing_ok=True)
        else:
            write_atomic(root / CURATION, msgspec.json.format(msgspec.json.encode(self), indent=1).decode())

    def apply(self, episode: Episode) -> Episode | None:
        """The part of an episode that is used."""
        name = name_of(episode)
        if name in self.left_out or (self.tasks and episode.task not in self.tasks):
            return None
        if name not in self.parts:
            return episode
        first, end = self.parts[name]
        if not 0 <= first < end <= episode.length:
            raise DatasetError(
                f"{CURATION}: frames {first} to {end} of episode {name}; it has {episode.length}"
            )
        return replace(episode, before=first, length=end - first, after=episode.length - end)


def name_of(episode: Episode) -> str:
    """The episode's number, after its folder where a dataset has one per task."""
    return f"{episode.folder}/{episode.index}" if episode.folder else str(episode.index)
