"""Writes the traces of rollouts, from the policy servers' logs and what the evaluators left.

The evaluator says nothing of a rollout's number to the server, which sees episodes. An episode is a rollout's
if it is of its task, took its steps, and was the last such one to end before the rollout's JSON was written.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from components.evaluate.server import log_file
from components.evaluation.rollouts import Rollout, RolloutKey
from components.evaluation.traces import Trace
from pi_behavior.challenge import task
from pi_behavior.layout import ACTION_HORIZON

_VOTES = "stage_"
"""Prefix of the rules of the vote, which the stages themselves show."""
_FEWER = 1
"""The official evaluator may count a step that it asked no action for."""
_LATER = 2.0
"""Seconds that the clock of a shared file system may be behind."""


@dataclass
class Episode:
    """What a policy server's log has of one episode."""

    task: int = -1
    calls: list[tuple[int, int, int]] = field(default_factory=list)
    rules: list[tuple[int, str]] = field(default_factory=list)
    steps: int = 0
    ended: float = 0.0
    """Seconds since 1970."""


def write_traces(folder: Path, rollouts: Sequence[Rollout], logs: Mapping[RolloutKey, Path]) -> list[Rollout]:
    """Write the traces of rollouts beside their results; returns the rollouts with their places.

    A rollout of which neither the server's log nor the evaluator says anything gets none.

    Args:
        folder: what the places of results are relative to.
        rollouts: finished ones, and others.
        logs: the folder of the logs of the worker that finished a rollout.
    """
    found = {rollout.key: rollout for rollout in rollouts}
    for place, policy in sorted({(place, key.policy) for key, place in logs.items()}):
        episodes = list(read_episodes(log_file(place, policy)))
        finished = [
            (path.stat().st_mtime, rollout, path)
            for rollout in rollouts
            if rollout.key.policy == policy and logs.get(rollout.key) == place and rollout.json is not None
            if (path := folder / rollout.json).is_file()
        ]
        for written, rollout, path in sorted(finished, key=lambda entry: entry[0]):
            trace = path.with_suffix(".jsonl")
            episode = _take(episodes, rollout, written) or Episode()
            goals = Trace.read(trace).goals
            if not episode.calls and not goals:
                continue
            steps = rollout.outcome.steps if rollout.outcome else 0
            Trace(steps, episode.calls, episode.rules, goals).write(trace)
            found[rollout.key] = replace(rollout, trace=trace.relative_to(folder).as_posix())
    return [found[rollout.key] for rollout in rollouts]


def _take(episodes: list[Episode], rollout: Rollout, written: float) -> Episode | None:
    """Take the episode of a rollout out of the list; None where there is none."""
    if rollout.outcome is None:
        return None
    steps, index = rollout.outcome.steps, task(rollout.key.task).index
    fitting = [
        one
        for one in episodes
        if one.task == index
        and steps - _FEWER <= one.steps <= steps + ACTION_HORIZON
        and one.ended <= written + _LATER
    ]
    if not fitting:
        return None
    # the one that ended just before is nearer than one within the tolerance of clocks that ended after
    best = min(fitting, key=lambda one: abs(written - one.ended))
    episodes.remove(best)
    return best


def read_episodes(log: Path) -> Iterator[Episode]:
    """The episodes in the JSON log of a policy server, in the order in which they ended."""
    running: dict[tuple[Any, ...], Episode] = {}
    for row in _rows(log):
        try:
            key = row["session"], row["episode"], row["environment"]
            episode = running.setdefault(key, Episode())
            if str(row.get("rule", "")).startswith(_VOTES):
                continue
            if "rule" in row:
                episode.rules.append((int(row["step"]), str(row["rule"])))
            elif "predicted" in row:
                episode.calls.append((int(row["step"]), int(row["predicted"]), int(row["stage"])))
            elif "steps" in row:
                episode.task, episode.steps, episode.ended = int(row["task"]), int(row["steps"]), row["ended"]
                yield running.pop(key)
        except (KeyError, TypeError, ValueError):  # another kind of line
            continue


def _rows(log: Path) -> Iterable[dict[str, Any]]:
    if not log.is_file():
        return
    with log.open(errors="replace") as lines:
        for line in lines:
            if not line.startswith("{"):
                continue
            try:
                yield json.loads(line)
            except ValueError:  # the last line of a server that was killed
                continue
