"""Compare two leaderboards, as promotion does: scores on the same rollouts, an interval, and a test.

Leaderboards that were made under different conditions, or on other instances, are refused. The exit code is 0
whatever the answer.
"""

from dataclasses import dataclass
from pathlib import Path

import tyro
from rich.console import Console
from rich.table import Table as Printed

from components.errors import UserError
from components.evaluation.champion import Champion, Table, episodes_of
from components.evaluation.pairs import fallen, lead, pair
from components.evaluation.plan import REPORTED, VALIDATION
from components.evaluation.records import Conditions, Scores
from components.evaluation.sequential import Rule, judge
from components.promote.config import Config as Promotion
from components.store.artifact import Artifact
from components.store.champion import CHAMPION
from components.trial.config import Config as Trial


@dataclass(frozen=True)
class Options:
    """Compare two leaderboards, as promotion does."""

    first: tyro.conf.Positional[Path]
    """An artifact of the stage leaderboard, or a champion's folder: the challenger."""
    second: tyro.conf.Positional[Path]
    """Another: the champion. Its tasks count; one that the first lacks scores 0."""
    level: float = 0.05
    """Largest probability of calling the first better where it is not."""
    gain: float = Trial.gain
    """Difference in q that is worth finding."""
    fall: float = Promotion.fall
    """Fall of q that no single task may have with confidence."""

    def __post_init__(self) -> None:
        """Check the values."""
        for name in ("level", "gain", "fall"):
            if not 0 < getattr(self, name) < 1:
                raise UserError(f"--{name} {getattr(self, name)}: expected more than 0 and below 1")


@dataclass(frozen=True)
class _Side:
    conditions: Conditions
    validation: Table
    reported: Table

    @classmethod
    def load(cls, folder: Path) -> "_Side":
        champion = Champion.load(folder) if (folder / CHAMPION).is_file() else None
        if champion is not None:
            return cls(champion.conditions, champion.validation, champion.reported)
        board = Artifact.load(folder)
        scores = Scores.load(board.path)
        both = (episodes_of(board, scores.chosen, split) for split in (VALIDATION, REPORTED))
        return cls(scores.conditions, *both)


def run(options: Options) -> int:
    """Print the comparison; returns exit code 0."""
    first, second = _Side.load(options.first), _Side.load(options.second)
    if different := first.conditions.differences(second.conditions, str(options.first), str(options.second)):
        raise UserError(f"their scores cannot be compared: {'; '.join(different)}. Evaluate both alike")
    differences = pair(first.reported, second.reported)
    console = Console()
    console.print(_by_task(first.reported, second.reported))
    if first.validation and second.validation:
        ahead = lead(pair(first.validation, second.validation))
        console.print(f"validation: {ahead}")
    verdict = judge(differences, Rule(options.level, options.gain, Trial.miss, len(differences)))
    console.print(
        f"reported: {verdict.answer} at level {options.level:g} after {verdict.pairs} of {differences.size} "
        f"pairs: difference in q {verdict.difference:+.3f}, 95 % [{verdict.low:+.3f}, {verdict.high:+.3f}]; "
        f"stake on better x {verdict.evidence:.3g}, on less than {options.gain:g} better x "
        f"{verdict.against:.3g}"
    )
    for task, bound in fallen(differences, sorted(second.reported), options.fall).items():
        console.print(f"{task} fell: the 95 % bound of its difference is {bound:+.2f}")
    return 0


def _by_task(first: Table, second: Table) -> Printed:
    printed = Printed(title="q on the reported instances of the second leaderboard's tasks")
    for name in ("task", "first", "second", "difference", "pairs"):
        printed.add_column(name, justify="left" if name == "task" else "right")
    means = []
    for task, theirs in sorted(second.items()):
        ours = first.get(task) or dict.fromkeys(theirs, 0.0)
        mean, other = (sum(one.values()) / len(one) for one in (ours, theirs))
        means.append((mean, other))
        lacks = "" if task in first else " (missing)"
        printed.add_row(task, f"{mean:.3f}{lacks}", f"{other:.3f}", f"{mean - other:+.3f}", str(len(theirs)))
    mean, other = (sum(column) / len(means) for column in zip(*means, strict=True))
    printed.add_section()
    pairs = sum(map(len, second.values()))
    printed.add_row("mean over tasks", f"{mean:.3f}", f"{other:.3f}", f"{mean - other:+.3f}", str(pairs))
    return printed
