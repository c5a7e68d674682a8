"""Traces of rollouts: what the policy predicted and did, and which parts of the goal held, step by step.

`TASK_INSTANCE_ROLLOUT.jsonl` lies beside the evaluator's JSON. Each line is one record: a call of the
network whose predicted or voted stage changed, an application of a rule, a change of a goal predicate, or the
number of control steps.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from components.store.files import write_atomic


@dataclass(frozen=True)
class Trace:
    """What is known of a rollout between its start and its end. Steps are control steps, from 0."""

    steps: int = 0
    """Control steps taken."""
    calls: list[tuple[int, int, int]] = field(default_factory=list)
    """Step, predicted stage and stage after the vote, of calls at which one of the two changed."""
    rules: list[tuple[int, str]] = field(default_factory=list)
    """Step and name of every rule that was applied."""
    goals: dict[str, list[tuple[int, bool]]] = field(default_factory=dict)
    """Changes of the goal's predicates, by the predicate: step, and whether it holds from then on."""

    def write(self, path: Path) -> None:
        """Write it as JSON lines."""
        rows: list[dict[str, Any]] = [{"step": s, "predicted": p, "stage": v} for s, p, v in self.calls]
        rows += [{"step": step, "rule": rule} for step, rule in self.rules]
        rows += goal_rows(self.goals)
        rows.sort(key=lambda row: row["step"])
        rows.append({"steps": self.steps})
        write_atomic(path, "".join(json.dumps(row) + "\n" for row in rows))

    @classmethod
    def read(cls, path: Path) -> "Trace":
        """Read a trace; what is not understood in it is left out, as no score depends on it."""
        steps, calls, rules = 0, [], []
        goals: dict[str, list[tuple[int, bool]]] = {}
        for row in _rows(path):
            try:
                if "steps" in row:
                    steps = int(row["steps"])
                elif "predicted" in row:
                    calls.append((int(row["step"]), int(row["predicted"]), int(row["stage"])))
                elif "rule" in row:
                    rules.append((int(row["step"]), str(row["rule"])))
                elif "predicate" in row:
                    change = int(row["step"]), bool(row["holds"])
                    goals.setdefault(str(row["predicate"]), []).append(change)
            except (KeyError, TypeError, ValueError):
                continue
        return cls(steps, calls, rules, goals)


def goal_rows(goals: dict[str, list[tuple[int, bool]]]) -> list[dict[str, Any]]:
    """The records of goal predicates."""
    return [
        {"step": step, "predicate": name, "holds": holds}
        for name, changes in goals.items()
        for step, holds in changes
    ]


def thinned(calls: Sequence[tuple[int, int, int]], most: int) -> list[tuple[int, int, int]]:
    """At most about `most` calls of a long rollout; those that changed the voted stage are kept."""
    if len(calls) <= most:
        return list(calls)
    every = -(-len(calls) // most)
    return [
        call
        for place, call in enumerate(calls)
        if place % every == 0 or call[2] != calls[place - 1][2] or place == len(calls) - 1
    ]


def _rows(path: Path) -> Iterable[dict[str, Any]]:
    try:
        lines = path.read_text(errors="replace").splitlines()
    except OSError:
        return
    for line in lines:
        try:
            row = json.loads(line)
        except ValueError:  # a line that a kill cut off
            continue
        if isinstance(row, dict):
            yield row
