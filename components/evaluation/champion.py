"""The champion: what is promoted, under which conditions it was evaluated, and what was compared with it."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, TypeVar

import msgspec

from components.errors import UserError
from components.evaluation import records
from components.evaluation.plan import REPORTED, VALIDATION, Plan, Split
from components.evaluation.records import Conditions, Reference, Scores, ServedPolicy
from components.evaluation.rollouts import EPISODES, load
from components.evaluation.sequential import Rule
from components.evaluation.serving import served_policies
from components.store.artifact import Artifact
from components.store.champion import CHAMPION, FORMER_CHAMPIONS
from components.store.files import write_atomic
from pi_behavior.policy.config import PolicyConfig

T = TypeVar("T")
COMPARISONS = "comparisons.jsonl"
"""Beside `champion.json`: the challengers that were tested against a champion, one per line, oldest first."""
Table = Mapping[str, Mapping[str, float]]
"""q by task and rollout (INDEX_ROLLOUT)."""


@dataclass(frozen=True)
class Forced:
    """A promotion by a person's decision."""

    by: str
    why: str


@dataclass(frozen=True)
class Champion:
    """The promoted policies. The file is also a mapping that the policy server reads."""

    conditions: Conditions
    """Under which it was evaluated."""
    leaderboard: Reference
    checkpoints: Mapping[str, ServedPolicy]
    policy: PolicyConfig
    """How chunks were executed in the evaluation that it was promoted on."""
    action_chunk_size: int
    """Actions per request in that evaluation; 0 is one."""
    validation: Table
    """q of the chosen policies on validation instances, for the next challenger."""
    reported: Table
    """The same on reported instances."""
    promoted: str
    """When, ISO 8601 in UTC."""
    forced: Forced | None = None
    """Who promoted it whatever the comparison said, and why; None where the comparison decided."""
    format: Literal[4] = field(kw_only=True)

    @classmethod
    def load(cls, folder: Path) -> "Champion | None":
        """Read the record in a champion's folder; None where there is none.

        Raises:
            UserError: it is damaged, or was written by a version that did not record how it was evaluated.
        """
        path = folder / CHAMPION
        if not path.exists():
            return None
        return records.read(
            path,
            cls,
            "evaluate its policies again with `b1k run --pipeline evaluate` into a new champion's folder "
            "(trial.champion and promote.champion), or move the file away: the next run then promotes a "
            "first champion",
        )

    @property
    def by_task(self) -> dict[str, float]:
        """Mean q on the reported instances by task."""
        return {task: sum(episodes.values()) / len(episodes) for task, episodes in self.reported.items()}

    @property
    def q(self) -> float:
        """Mean q on the reported instances, tasks weighing the same."""
        return sum(self.by_task.values()) / len(self.by_task)

    @classmethod
    def former(cls, folder: Path) -> "list[Champion]":
        """Read the champions that were replaced in a champion's folder, oldest first."""
        return _lines(folder / FORMER_CHAMPIONS, cls)

    def check(self, conditions: Conditions) -> None:
        """Refuse a comparison with scores that were made under other conditions."""
        different = self.conditions.differences(conditions, "the champion", "the challenger")
        if different:
            raise UserError(
                f"their scores cannot be compared: {'; '.join(different)}. Evaluate both alike, or give "
                "another folder as trial.champion and promote.champion"
            )

    def replace(self, old: "Champion | None", folder: Path) -> None:
        """Take the place of `old`, which enters the history once, however often this is begun again.

        The caller holds the lock of the champion's folder.
        """
        former = self.former(folder)
        if old is not None and old not in former:
            _write_lines(folder / FORMER_CHAMPIONS, [*former, old])
        records.write(folder / CHAMPION, self)


@dataclass(frozen=True)
class Comparison:
    """A test of a challenger against a champion."""

    challenger: Reference
    """Its leaderboard."""
    champion: Reference | None
    """The champion's leaderboard; None where there was no champion yet."""
    rule: Rule

    @classmethod
    def begin(cls, folder: Path, challenger: Reference, champion: Reference | None, rule: Rule) -> Rule:
        """Write down that a test begins, and give it its share of the error that a champion's tests have.

        The k-th test against one champion gets error / (k (k + 1)), which adds up to the error however many
        there are. The same test, begun again, keeps its share. The caller holds the lock of the folder.

        Args:
            folder: the champion's folder.
            challenger: its leaderboard.
            champion: the champion's leaderboard.
            rule: the test, with the error of all tests as its level.
        """
        path = folder / COMPARISONS
        known = _lines(path, cls)
        rivals = [one for one in known if one.champion == champion]
        for one in rivals:
            if one.challenger == challenger and replace(one.rule, level=rule.level) == rule:
                return one.rule
        begun = cls(challenger, champion, replace(rule, level=share(rule.level, len(rivals) + 1)))
        _write_lines(path, [*known, begun])
        return begun.rule


def share(error: float, number: int) -> float:
    """The error of a champion's test of a number, counted from 1."""
    return error / (number * (number + 1))


def episodes_of(board: Artifact, policies: Mapping[str, str], split: Split) -> Table:
    """The q by task and rollout of a leaderboard in a split, with one policy for each task."""
    episodes: dict[str, dict[str, float]] = {}
    for rollout in load(board.path / EPISODES):
        key = rollout.key
        if key.split == split and policies.get(key.task) == key.policy:
            episodes.setdefault(key.task, {})[f"{key.index}_{key.rollout}"] = rollout.q
    return episodes


def challenger_of(board: Artifact, plan: Plan, folder: Path, workspace: Path) -> Champion:
    """The policies of a leaderboard, as they are recorded when they become the champion of a folder."""
    scores = Scores.load(board.path)
    top = os.path.relpath(workspace, folder) if folder.is_relative_to(workspace) else str(workspace)
    return Champion(
        conditions=scores.conditions,
        leaderboard=Reference(board.uri, board.digest),
        checkpoints=served_policies(plan, scores.chosen, top),
        policy=plan.policy,
        action_chunk_size=plan.action_chunk_size,
        validation=episodes_of(board, scores.chosen, VALIDATION),
        reported=episodes_of(board, scores.chosen, REPORTED),
        promoted=datetime.now(UTC).isoformat(timespec="seconds"),
        format=4,
    )


def _lines(path: Path, kind: type[T]) -> list[T]:
    """The records of a file, one a line."""
    try:
        return msgspec.json.Decoder(kind).decode_lines(path.read_bytes()) if path.exists() else []
    except ValueError as error:
        raise UserError(f"{path} is damaged ({error}); move it away to begin a new history") from error


def _write_lines(path: Path, values: list[T]) -> None:
    write_atomic(path, msgspec.json.Encoder().encode_lines(values))
