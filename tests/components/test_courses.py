"""Traces of rollouts from a policy server's log and an evaluator's files."""

import itertools
import json
import os

from hypothesis import given
from hypothesis import strategies as st

from components.evaluate.courses import read_episodes, write_traces
from components.evaluation.rollouts import Distances, Outcome, Rollout, RolloutKey
from components.evaluation.traces import Trace, thinned

RADIO, TRASH = "turning_on_radio", "picking_up_trash"


def rows(session, episode, task, steps, ended, stages=(), rules=()):
    """The lines that a server logs of an episode; without `steps` it was killed before its end."""
    head = {"time": "t", "message": "trace", "session": session, "episode": episode, "environment": 0}
    found = [{**head, "task": task, "step": s, "predicted": p, "stage": v} for s, p, v in stages]
    found += [{**head, "task": task, "stage": 0, "step": step, "rule": rule} for step, rule in rules]
    return found + ([{**head, "task": task, "steps": steps, "ended": ended}] if steps else [])


def log(folder, found, policy="common"):
    path = folder / "logs" / f"{policy}-server.log"
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = ["a warning", *map(json.dumps, found), '{"session": "torn']
    path.write_text("\n".join(lines))
    return path


def rollout(folder, instance, steps, written, task=RADIO):
    key = RolloutKey("common", "reported", task, instance - 301, 0)
    name = f"{task}_{instance}_0"
    place = folder / "rollouts" / "common" / "reported" / name / f"{name}.json"
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text("{}")
    os.utime(place, (written, written))
    outcome = Outcome(0.0, False, steps, 1.0, Distances(None, None, None))
    return Rollout(key, instance, 1, str(place.relative_to(folder)), None, outcome, str(folder))


def traces(folder, rollouts):
    return write_traces(folder, rollouts, {one.key: folder / "logs" for one in rollouts})


def read(folder, one):
    return Trace.read(folder / one.trace)


def test_failures_of_the_same_length_are_told_apart(tmp_path):
    found = [
        *rows("a", 0, 0, 90, 1000.0, [(0, 1, 0)]),
        # killed after its last step, before its JSON was written; then done again
        *rows("a", 1, 0, 90, 1010.0, [(0, 2, 0)]),
        *rows("b", 0, 0, None, None, [(0, 9, 9)]),
        *rows("b", 1, 0, 92, 1050.0, [(0, 3, 0)], [(20, "gripper"), (40, "stage_forward")]),
        *rows("b", 2, 1, 90, 1051.0, [(0, 4, 0)]),
    ]
    log(tmp_path, found)
    rollouts = [
        rollout(tmp_path, 301, 90, 1001.0),
        rollout(tmp_path, 302, 90, 1053.0),
        rollout(tmp_path, 303, 50, 1060.0),
    ]
    first, second, none = traces(tmp_path, rollouts)
    assert read(tmp_path, first) == Trace(90, [(0, 1, 0)], [], {})
    assert read(tmp_path, second) == Trace(90, [(0, 3, 0)], [(20, "gripper")], {})
    assert none.trace is None
    again = traces(tmp_path, rollouts)
    assert [one.trace for one in again] == [first.trace, second.trace, None]
    assert read(tmp_path, again[1]) == read(tmp_path, second)


def test_what_the_evaluator_tells_is_kept(tmp_path):
    one = rollout(tmp_path, 301, 90, 1001.0)
    place = (tmp_path / one.json).with_suffix(".jsonl")
    Trace(0, [], [], {"toggled_on radio": [(0, False), (80, True)]}).write(place)
    for _ in range(2):  # a worker that was killed writes it again
        (done,) = traces(tmp_path, [one])
        assert read(tmp_path, done) == Trace(90, [], [], {"toggled_on radio": [(0, False), (80, True)]})
    place.write_text('{"step": "x", "predicate": 1, "holds": 0}\n[]\nnot JSON\n{"steps": 4}\n')
    assert Trace.read(place) == Trace(4)


def test_environments_of_a_batched_evaluator(tmp_path):
    head = {"session": "a", "episode": 0, "task": 1}
    found = [{**head, "environment": e, "step": 0, "predicted": e, "stage": 0} for e in (0, 1)]
    found += [{**head, "environment": e, "steps": 40 + e, "ended": 5.0} for e in (0, 1)]
    episodes = list(read_episodes(log(tmp_path, found)))
    assert [(one.steps, one.calls) for one in episodes] == [(40, [(0, 0, 0)]), (41, [(0, 1, 0)])]


_calls = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 14), st.integers(0, 14)), max_size=300)


@given(_calls, st.integers(1, 50))
def test_thinned_keeps_the_stages(moves, most):
    step, calls = 0, []
    for by, predicted, stage in moves:
        step += by
        calls.append((step, predicted, stage))
    kept = thinned(calls, most)
    assert set(kept) <= set(calls)
    changes = [b for a, b in itertools.pairwise(calls) if a[2] != b[2]]
    assert set(changes) <= set(kept)
    assert len(kept) <= most + len(changes) + 1
    assert kept[-1:] == calls[-1:]
