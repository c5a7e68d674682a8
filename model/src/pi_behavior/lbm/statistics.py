"""What a checkpoint of this family holds besides weights and configuration."""

from dataclasses import dataclass
from pathlib import Path

from pi_behavior.lbm.normalisation import Ranges
from pi_behavior.lbm.tokens import TOKENIZER, TextTokenizer


@dataclass(frozen=True)
class PolicyFiles:
    """The scales of states and actions, and the tokenizer of instructions, if there is one."""

    ranges: Ranges
    tokenizer: TextTokenizer | None

    def save(self, folder: Path) -> None:
        """Write the files."""
        self.ranges.save(folder)
        if self.tokenizer is not None:
            self.tokenizer.save(folder)

    @classmethod
    def load(cls, folder: Path, length: int) -> "PolicyFiles":
        """Read what `save` wrote; ValueError where that cannot be."""
        tokenizer = TextTokenizer.load(folder, length) if (folder / TOKENIZER).is_file() else None
        return cls(Ranges.load(folder), tokenizer)
