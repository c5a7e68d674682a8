"""How often promotion is wrong, and what it costs: `python -m benchmarks.promotion [--check]`.

Simulates scores of policies; lead, test and its share of the error are the product's own code. Prints how
many series of 100 nights replace a champion by challengers that are not better; and for better ones with
which probability they are found, and after how many pairs of rollouts, beside a test with a fixed number.
"""

import math
import sys
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import tyro
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from scipy import stats

from components.evaluation.champion import share
from components.evaluation.pairs import lead
from components.evaluation.sequential import Rule, judge
from components.trial.config import Config as Promotion

Scores = NDArray[np.float64]
"""q by round and task."""
_ALIKE = 0.5
"""Share of the variance of a rollout's luck that belongs to the instance, which both policies get."""


@dataclass(frozen=True)
class Config:
    """Simulate promotion."""

    series: int = 1000
    """Series of nights for each difference."""
    nights: int = 100
    """Nights of a series, each with a new challenger."""
    challengers: int = 1000
    """Challengers for each gain, for the probability to find it."""
    tasks: int = 50
    rounds: int = 10
    """Validation instances of every task, and most rounds of a confirmation."""
    seed: int = 0
    check: bool = False
    """Exit with 1 unless at most 5 % of the series promote falsely, and a gain of 0.08 takes at most 0.6
    times the pairs of the fixed test."""


class Policies:
    """Policies of a known difference; scores are 0, 1/2 or 1, and tasks differ as in the challenge."""

    def __init__(self, config: Config, gain: float, random: np.random.Generator) -> None:
        self.random = random
        self.shape = (config.rounds, config.tasks)
        champion = random.beta(0.6, 1.7, config.tasks)  # a mean of 0.26
        room = (1 - champion) / (1 - champion.mean()) if gain > 0 else champion / champion.mean()
        self.means = (champion, np.clip(champion + gain * room, 0, 1))

    def instances(self) -> Scores:
        """The luck of instances, which both policies share."""
        return self.random.normal(size=self.shape)

    def scores(self, policy: int, instances: Scores) -> Scores:
        """Rollouts of the champion (0) or the challenger (1)."""
        mean = self.means[policy]
        success = mean * (0.4 + 0.6 * mean)
        some = success + 2 * (mean - success)
        own = self.random.normal(size=self.shape)
        luck = math.sqrt(_ALIKE) * instances + math.sqrt(1 - _ALIKE) * own
        return 0.5 * (luck > stats.norm.isf(success)) + 0.5 * (luck > stats.norm.isf(some))

    def confirmation(self) -> Scores:
        """Differences of fresh pairs."""
        instances = self.instances()
        return self.scores(1, instances) - self.scores(0, instances)


def promotes(config: Config, gain: float, random: np.random.Generator) -> tuple[bool, bool, int, int]:
    """One series of nights against one champion, until a challenger is promoted.

    Returns:
        Whether one was; whether one would be by a fixed test at 5 % every night; how many nights there were,
        and how many pairs were confirmed.
    """
    policies, promotion = Policies(config, gain, random), Promotion()
    instances = policies.instances()
    validation = policies.scores(0, instances)  # the champion's, recorded once
    tested = pairs = 0
    fixed = False
    for night in range(config.nights):
        difference = policies.scores(1, instances) - validation
        ahead = lead(difference)
        fixed = fixed or ahead.difference > stats.norm.isf(0.025) * ahead.error
        if not ahead.suffices(promotion.lead):
            continue
        tested += 1
        level = share(promotion.error, tested)
        verdict = judge(policies.confirmation(), Rule(level, promotion.gain, promotion.miss, config.rounds))
        pairs += verdict.pairs
        if verdict.answer == "better":
            return True, fixed, night + 1, pairs
    return False, fixed, config.nights, pairs


@dataclass(frozen=True)
class Power:
    """How often a gain is found, and after how many pairs."""

    fixed: float
    """By a test with the largest number of pairs."""
    found: float
    pairs: float
    enough: int
    """Pairs with which a fixed test finds it as often."""
    promoted: float
    """By lead and test together."""
    spent: float
    """Pairs of lead and test together, 0 where there was no test."""


def power(config: Config, gain: float, number: int, random: np.random.Generator) -> Power:
    """The power of the test of a number against a champion."""
    promotion = Promotion()
    test = Rule(share(promotion.error, number), promotion.gain, promotion.miss, config.rounds)
    found, pairs, leads = [], [], []
    fixed = np.zeros((config.challengers, config.rounds), bool)
    for i in range(config.challengers):
        policies = Policies(config, gain, random)
        instances = policies.instances()
        difference = policies.scores(1, instances) - policies.scores(0, instances)
        leads.append(lead(difference).suffices(promotion.lead))
        confirmation = policies.confirmation()
        verdict = judge(confirmation, test)
        found.append(verdict.answer == "better")
        pairs.append(verdict.pairs)
        for r in range(config.rounds):
            ahead = lead(confirmation[: r + 1])
            fixed[i, r] = ahead.difference > stats.norm.isf(test.level) * ahead.error
    both = np.array(found) & np.array(leads)
    powers = fixed.mean(axis=0)
    reached = np.flatnonzero(powers >= np.mean(found))
    enough = (int(reached[0]) + 1 if reached.size else config.rounds) * config.tasks
    spent = float(np.mean(np.array(pairs) * np.array(leads)))
    mean = float(np.mean(pairs))
    return Power(float(powers[-1]), float(np.mean(found)), mean, enough, float(both.mean()), spent)


def nights(config: Config, console: Console) -> Iterator[str]:
    """Print how often series end in a promotion; yields what is not met."""
    table = Table(title=f"{config.series} series of {config.nights} nights, {config.tasks} tasks")
    for column in ("difference", "promoted", "upper 95 %", "fixed test at 5 % a night", "pairs a night"):
        table.add_column(column, justify="right")
    for gain in (0.0, -0.01):
        random = np.random.default_rng(config.seed)
        rows = [promotes(config, gain, random) for _ in range(config.series)]
        false = sum(row[0] for row in rows)
        upper = stats.beta.ppf(0.975, false + 1, config.series - false)
        a_night = sum(row[3] for row in rows) / sum(row[2] for row in rows)
        others = sum(row[1] for row in rows) / config.series
        rate = false / config.series
        table.add_row(f"{gain:+.2f}", f"{rate:.1%}", f"{upper:.1%}", f"{others:.0%}", f"{a_night:.0f}")
        if rate > Promotion().error:
            yield f"{rate:.1%} of the series with a difference of {gain:+.2f} promote; expected 5 % at most"
    console.print(table)


def gains(config: Config, console: Console) -> Iterator[str]:
    """Print how often gains are found, and the cost; yields what is not met."""
    most = config.rounds * config.tasks
    for number in (1, 5):
        level = share(Promotion().error, number)
        table = Table(title=f"test {number} against a champion (level {level:.4f}), {most} pairs at most")
        for column in ("gain", f"fixed {most}: found", "found", "pairs", "ratio", "fixed, as often: pairs"):
            table.add_column(column, justify="right")
        for column in ("with lead: promoted", "pairs"):
            table.add_column(column, justify="right")
        for gain in (0.03, 0.05, 0.08):
            row = power(config, gain, number, np.random.default_rng(config.seed))
            table.add_row(
                *(f"{gain:+.2f}", f"{row.fixed:.0%}", f"{row.found:.0%}", f"{row.pairs:.0f}"),
                *(f"{row.pairs / most:.2f}", str(row.enough), f"{row.promoted:.0%}", f"{row.spent:.0f}"),
            )
            if gain == 0.08 and number == 1 and row.pairs > 0.6 * most:
                yield f"a gain of 0.08 takes {row.pairs:.0f} of {most} pairs; expected 0.6 of them at most"
        console.print(table)


def main(config: Config) -> int:
    """Print both; exit code 1 with `check` where something is not met."""
    console = Console()
    missed = [*nights(config, console), *gains(config, console)]
    for line in missed:
        print(line, file=sys.stderr)
    return int(config.check and bool(missed))


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Config, description=__doc__)))
