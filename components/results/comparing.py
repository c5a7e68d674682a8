"""Two leaderboards on the same rollouts: numbers as promotion has them, and pairs of videos."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from components.errors import UserError
from components.evaluation.champion import episodes_of
from components.evaluation.pairs import pair
from components.evaluation.plan import REPORTED
from components.evaluation.records import Scores
from components.evaluation.rollouts import EPISODES, Rollout, load
from components.evaluation.sequential import Rule, judge
from components.store.artifact import Artifact
from components.store.sums import SUMS, parse_sums
from components.trial.config import Config

_LEVEL = 0.05


@dataclass(frozen=True)
class Row:
    """One task."""

    task: str
    first: float
    second: float
    pairs: int


@dataclass(frozen=True)
class Film:
    """The same rollout in both leaderboards."""

    name: str
    """TASK/INSTANCE/NUMBER."""
    q: tuple[float, float]
    policies: tuple[str, str]
    videos: tuple[str, str]
    """Paths of the videos in the leaderboards' folders; empty where there is none."""


@dataclass(frozen=True)
class Compared:
    """A comparison; the first is the challenger."""

    answer: str
    difference: float
    low: float
    high: float
    pairs: int
    rows: list[Row]
    films: list[Film] = field(default_factory=list)
    """Rollouts that went differently, those first that can be watched."""


def compare(first: Path, second: Path) -> Compared:
    """Compare two leaderboards.

    Raises:
        UserError: they were made under different conditions, or share no rollout.
    """
    boards = [Artifact.load(path) for path in (first, second)]
    scores = [Scores.load(board.path) for board in boards]
    if different := scores[0].conditions.differences(scores[1].conditions, "the first", "the second"):
        raise UserError(f"their scores cannot be compared: {'; '.join(different)}")
    ours, theirs = (episodes_of(b, s.chosen, REPORTED) for b, s in zip(boards, scores, strict=True))
    differences = pair(ours, theirs)
    verdict = judge(differences, Rule(_LEVEL, Config.gain, Config.miss, len(differences)))
    rows = []
    for task, other in sorted(theirs.items()):
        mine = ours.get(task) or dict.fromkeys(other, 0.0)
        means = [sum(one.values()) / len(one) for one in (mine, other)]
        rows.append(Row(task, means[0], means[1], len(other)))
    rollouts = [_chosen(board.path, one) for board, one in zip(boards, scores, strict=True)]
    contents = [parse_sums((board.path / SUMS).read_text()) for board in boards]
    films = [
        _film(name, rollouts[0][name], rollouts[1][name], contents)
        for name in sorted(rollouts[0].keys() & rollouts[1].keys())
        if rollouts[0][name].q != rollouts[1][name].q
    ]
    films.sort(key=lambda one: (not all(one.videos), -abs(one.q[0] - one.q[1])))
    return Compared(
        str(verdict.answer), verdict.difference, verdict.low, verdict.high, verdict.pairs, rows, films
    )


def find(compared: Compared, name: str) -> Film | None:
    """The pair of a name that can be watched; None where there is none."""
    return next((film for film in compared.films if film.name == name and all(film.videos)), None)


def _chosen(board: Path, scores: Scores) -> dict[str, Rollout]:
    return {
        f"{one.key.task}/{one.instance}/{one.key.rollout}": one
        for one in load(board / EPISODES)
        if one.key.split == REPORTED and scores.chosen.get(one.key.task) == one.key.policy
    }


def _film(name: str, ours: Rollout, theirs: Rollout, contents: Sequence[Collection[str]]) -> Film:
    videos = []
    for rollout, files in zip((ours, theirs), contents, strict=True):
        place = f"report/videos/{rollout.key.policy.replace(':', '-')}/{REPORTED}/{rollout.name}.mp4"
        videos.append(place if place in files else "")
    policies = ours.key.policy, theirs.key.policy
    return Film(name, (ours.q, theirs.q), policies, (videos[0], videos[1]))
