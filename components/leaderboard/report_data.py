"""What the report's script reads: one JSON object in the page, and the traces in a script per task beside it.

Rollouts are columns of numbers, so that thousands of them take a few hundred kilobytes.
"""

import base64
import json
import zlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from components.evaluation.plan import REPORTED
from components.evaluation.records import Scores
from components.evaluation.rollouts import Rollout, RolloutKey, excerpt_of
from components.evaluation.traces import Trace, thinned
from components.leaderboard import causes
from components.leaderboard.scores import Rollouts, policy_order
from components.store.files import write_atomic
from pi_behavior.challenge import TASKS
from pi_behavior.layout import CONTROL_HZ

TRACES = "traces"
_WIDEST = 200
"""Characters of a line of a log."""
_MOST_CALLS = 48
"""Calls of the network that the page draws of one rollout."""
Labels = Mapping[str, Mapping[str, Any]]
"""Labels by rollout (POLICY/TASK/INSTANCE/NUMBER) and person: `causes`, `note`."""


def reported(table: Rollouts) -> list[Rollout]:
    """All reported rollouts, by task, policy and instance."""
    return [
        rollout
        for policies in table.values()
        for name in sorted(policies, key=policy_order)
        for rollout in policies[name].get(REPORTED, ())
    ]


def read_trace(rollout: Rollout) -> Trace | None:
    """The trace of a rollout; None where there is none."""
    path = Path(rollout.folder, rollout.trace) if rollout.trace else None
    return Trace.read(path) if path is not None and path.is_file() else None


def collect(
    scores: Scores,
    table: Rollouts,
    filmed: Collection[RolloutKey],
    traces: Mapping[int, Trace],
    matrices: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    """The object for the page; `traces` are by place in `reported`."""
    rollouts = reported(table)
    names = list(table)
    policies = sorted({one.key.policy for one in rollouts}, key=policy_order)
    documents = [read_json(Path(one.folder, str(one.json))) for one in rollouts]
    moved = list(map(causes.moved, documents))
    guesses = {
        place: causes.guess(one, documents[place], traces.get(place)) for place, one in enumerate(rollouts)
    }
    return {
        "hz": CONTROL_HZ,
        "tasks": [_task(name, scores) for name in names],
        "policies": policies,
        "causes": causes.catalogue(),
        "rollouts": {
            "task": [names.index(one.key.task) for one in rollouts],
            "policy": [policies.index(one.key.policy) for one in rollouts],
            "instance": [one.instance for one in rollouts],
            "number": [one.key.rollout for one in rollouts],
            "q": [round(one.q, 4) for one in rollouts],
            "steps": [one.outcome.steps if one.outcome else None for one in rollouts],
            "speed": [round(one.outcome.normalized_time, 3) if one.outcome else None for one in rollouts],
            "distance": [None if one is None else round(one["base"], 2) for one in moved],
            "video": [int(one.key in filmed) for one in rollouts],
            "trace": [int(place in traces) for place in range(len(rollouts))],
        },
        "reruns": {place: one.reruns for place, one in enumerate(rollouts) if one.reruns},
        "guesses": {place: (one.cause, one.reason) for place, one in guesses.items() if one},
        "labels": {},  # by people, who have not seen it yet
        "matrices": list(matrices),
    }


def _task(name: str, scores: Scores) -> dict[str, Any]:
    known, entry = TASKS.get(name), scores.tasks[name]
    shown = {policy: splits[REPORTED] for policy, splits in entry.policies.items() if REPORTED in splits}
    return {
        "name": name,
        "instruction": known.instruction if known else "",
        "duration": known.duration if known else 0,
        "stages": known.stages if known else 0,
        "chosen": entry.chosen,
        "scores": {
            policy: {kind: round(asdict(one)[kind], 4) for kind in ("q", "low", "high", "success", "n")}
            for policy, one in shown.items()
        },
    }


def as_script(data: Mapping[Any, Any]) -> str:
    """JSON for a script element: nothing in it can end the element."""
    text = json.dumps(data, separators=(",", ":"), ensure_ascii=False)
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def write_traces(page: Path, rollouts: Sequence[Rollout], traces: Mapping[int, Trace]) -> None:
    """Write `traces/TASK.js`, by number of the task, for all that have traces: JSON, compressed.

    Scripts, since a page that was opened from a file may load no JSON.
    """
    names = list(dict.fromkeys(one.key.task for one in rollouts))
    by_task: dict[str, dict[int, Any]] = {}
    for place, trace in traces.items():
        compact = {**_compact(trace), "log": _log(rollouts[place])}
        by_task.setdefault(rollouts[place].key.task, {})[place] = compact
    for name, found in by_task.items():
        number = names.index(name)
        packed = base64.b64encode(
            zlib.compress(json.dumps(found, separators=(",", ":")).encode(), 9)
        ).decode()
        write_atomic(page / TRACES / f"{number}.js", f'b1kTraces({number},"{packed}");\n')


def _log(rollout: Rollout) -> str:
    """The end of the evaluator's log of a rollout that failed, with long lines cut."""
    if rollout.success:
        return ""
    try:
        lines = excerpt_of(Path(rollout.folder, str(rollout.json))).read_text(errors="replace").splitlines()
    except OSError:
        return ""
    return "\n".join(line[:_WIDEST] for line in lines)


def _compact(trace: Trace) -> dict[str, Any]:
    calls, numbers, before = thinned(trace.calls, _MOST_CALLS), [], 0
    for step, predicted, stage in calls:
        numbers += [step - before, predicted, stage]
        before = step
    return {
        "steps": trace.steps,
        "calls": numbers,
        "rules": trace.rules,
        "goals": [
            {"name": name, "changes": [(step, int(holds)) for step, holds in changes]}
            for name, changes in trace.goals.items()
        ],
    }


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file; empty where there is none that can be read."""
    try:
        value = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}
