"""What a checkpoint of this family holds besides weights and configuration."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pi_behavior.challenge import Proprioception
from pi_behavior.lbm.config import LbmConfig
from pi_behavior.lbm.normalisation import PERCENTILE_LIMIT, Range, Ranges
from pi_behavior.lbm.tokens import TOKENIZER, TextTokenizer
from pi_behavior.statistics import Statistics


@dataclass(frozen=True)
class PolicyFiles:
    """The scales of states and actions, and the tokenizer of instructions, if there is one."""

    ranges: Ranges
    tokenizer: TextTokenizer | None
    layout: None = None
    """Of the challenge's demonstrations, which these are not."""

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


@dataclass(frozen=True)
class TrainedFiles:
    """The statistics of the demonstrations, and the tokenizer of instructions."""

    statistics: Statistics
    tokenizer: TextTokenizer

    @property
    def layout(self) -> tuple[str, Proprioception] | None:
        """Edition and proprioception of the demonstrations."""
        return self.statistics.layout

    def save(self, folder: Path) -> None:
        """Write the files."""
        self.statistics.save(folder)
        self.tokenizer.save(folder)


def action_range(config: LbmConfig, statistics: Statistics) -> Range:
    """The scale of normalised delta chunks: from percentile to percentile, per step and dimension.

    At least one deviation wide to either side, so that what rarely moves is not clipped to nothing.
    """
    steps = np.arange(config.horizon) - config.observation_steps + 1
    near = np.clip(steps, 0, statistics.horizon - 1)
    low = statistics.normalise_actions(statistics.action_step_q01[near], steps)
    high = statistics.normalise_actions(statistics.action_step_q99[near], steps)
    return Range(np.minimum(low, -1.0), np.maximum(high, 1.0), PERCENTILE_LIMIT)
