from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.interpolate import interp1d

from benchmarks.control_loop import main as benchmark
from benchmarks.control_loop import replay, tasks_in
from pi_behavior.challenge import STAGE_COUNTS
from pi_behavior.layout import state_from_proprioception
from pi_behavior.policy.config import PolicyConfig
from pi_behavior.policy.control_loop import ControlLoop, Event, compress, gripper_moves
from pi_behavior.policy.interface import Prediction

GOLDEN = Path(__file__).parents[2] / "golden" / "control_loop.npz"


@pytest.fixture(scope="module")
def golden() -> dict[str, np.ndarray]:
    with np.load(GOLDEN) as archive:
        return dict(archive)


def make_loop(config: PolicyConfig, events: list[Event] | None = None) -> ControlLoop:
    return ControlLoop(config, lambda _: None, None if events is None else events.append)


def prediction(chunk: np.ndarray, stage: int = 0) -> Prediction:
    return Prediction(chunk.astype(np.float32), np.where(np.arange(15) == stage, 1.0, 0.0))


def smooth_chunk() -> np.ndarray:
    return np.sin(np.arange(30)[:, None] / 9 + np.arange(23)) * 0.1


@pytest.mark.parametrize("task", [0, 1, 33, 38, 41])
def test_golden_replay(golden, task):
    difference, counts = replay(golden, task)
    assert difference.calls == 60
    assert difference.action <= 1e-5
    assert difference.stage_steps == 0
    assert difference.initial_actions <= 1e-5
    assert counts["gripper"] > 0


def test_golden_has_all_tasks(golden):
    assert tasks_in(golden) == [0, 1, 33, 38, 41]


def test_benchmark_exit_codes(golden, tmp_path, capsys):
    few = {key: value for key, value in golden.items() if key.startswith("task1/")}
    np.savez(tmp_path / "same.npz", **few)
    few["task1/out/stage"] = few["task1/out/stage"] + 1
    np.savez(tmp_path / "other.npz", **few)
    for name, code in (("same", 0), ("other", 1), ("missing", 2)):
        with pytest.raises(SystemExit) as stopped:
            benchmark(tmp_path / f"{name}.npz")
        assert stopped.value.code == code
    assert "uncompressed" in capsys.readouterr().out


def published_policy(task: int, states, chunks, logits) -> dict[str, list]:
    """The published control loop written down once more, straight from its description."""
    never = {  # first stage at which a closed gripper is allowed; 15 is never
        "left": {0: 2, 41: 14, 46: 8, 49: 14},
        "right": {0: 2, 30: 6, 31: 8, 32: 5, 33: 11, 38: 0, 39: 0, 40: 4, 41: 14, 45: 10, 46: 8},
    }
    stage, history, saved, queue, call = 0, [], None, [], 0
    out: dict[str, list] = {"actions": [], "stage": [], "initial_actions": []}
    for x in states:
        if not queue:
            out["initial_actions"].append(np.full((4, 23), np.nan) if saved is None else saved)
            chunk = chunks[call].astype(np.float64)
            left, right = x[14] < -0.98, x[22] < -0.98
            opened, acted = [], False
            if task == 0 and stage >= 2:
                opened += [14] if left and (right or x[22] > 0.9) else []
                opened += [22] if right and (left or x[14] > 0.9) else []
                acted = bool(opened) or stage == 4
                if stage == 4:
                    stage, history = 2, []
            if not acted:
                opened += [14] if left and stage < never["left"].get(task, 15) else []
                opened += [22] if right and stage < never["right"].get(task, 15) else []
            if opened:
                chunk = np.tile(x.astype(np.float64), (30, 1))
                chunk[:, opened] = 1.0
            if any(chunk[:26, g].max() - chunk[:26, g].min() > 0.2 for g in (14, 22)):
                queue, saved = list(chunk[:20]), chunk[20:24]
            else:
                fast = interp1d(np.arange(26), chunk[:26], kind="cubic", axis=0)(np.linspace(0, 25, 20))
                fast[:, :3] *= 1.3
                queue, saved = list(fast), chunk[26:30]
            history = [*history, int(np.argmax(logits[call]))][-3:]
            if len(history) == 3:
                if history.count(stage + 1) >= 2 or history == [stage + 2] * 3:
                    stage, history = stage + 1, []
                elif history == [stage - 1] * 3:
                    stage, history = stage - 1, []
            call += 1
        out["actions"].append(queue.pop(0))
        out["stage"].append(stage)
    return out


@pytest.mark.parametrize("length", [1, 130, 400])
def test_replay_agrees_with_the_published_loop_on_every_task(length, tmp_path, capsys):
    """Also backward votes, skips, thresholds of every task, and lengths that no call ends with."""
    record, backward = {}, 0
    for task in range(50):
        rng = np.random.default_rng(task)
        calls = -(-length // 20)
        proprioception = rng.uniform(-1, 1, (length, 256)).astype(np.float32)
        for fingers in (slice(193, 195), slice(232, 234)):  # closed, open, or in between
            proprioception[:, fingers] = rng.choice([0.0, 0.0004, 0.03, 0.0499], (length, 1))
        chunks = rng.uniform(-1, 1, (calls, 30, 23)).astype(np.float32)
        chunks[:, :, [14, 22]] = rng.uniform(-1, 1, (calls, 1, 2)) + rng.uniform(0, 0.25, (calls, 30, 2))
        stages, start = STAGE_COUNTS[task], int(rng.integers(0, 3))
        walk = np.abs(start + np.repeat(rng.integers(-1, 3, calls).cumsum(), 3)[:calls]) % stages
        logits = np.full((calls, 15), -np.inf, np.float32)
        logits[:, :stages] = rng.normal(size=(calls, stages))
        logits[np.arange(calls), walk] = 9.0
        states = state_from_proprioception(proprioception)
        expected = published_policy(task, states, chunks, logits)
        backward += int((np.diff(expected["stage"]) < 0).sum())
        values = {"in/proprio": proprioception, "in/chunks": chunks, "in/stage_logits": logits}
        values |= {f"out/{name}": np.array(value) for name, value in expected.items()}
        record |= {f"task{task}/{name}": value for name, value in values.items()}
    np.savez(tmp_path / "record.npz", **record)
    with pytest.raises(SystemExit) as stopped:
        benchmark(tmp_path / "record.npz")
    assert stopped.value.code == 0, capsys.readouterr().out
    if length == 400:
        text = capsys.readouterr().out
        assert backward > 10
        assert all(rule in text for rule in ("radio", "gripper", "stage_back", "stage_skip", "uncompressed"))


@pytest.mark.parametrize("arrays", [{"x": np.zeros(3)}, {"task1/in/proprio": np.zeros((3, 256))}])
def test_other_files_are_refused(tmp_path, arrays, capsys):
    np.savez(tmp_path / "other.npz", **arrays)
    (tmp_path / "text.npz").write_text("no archive")
    for name in ("other", "text"):
        with pytest.raises(SystemExit) as stopped:
            benchmark(tmp_path / f"{name}.npz")
        assert stopped.value.code == 2
        assert "not a file of recorded control loops" in capsys.readouterr().err


def test_compression_is_exact_for_cubics_and_scales_the_base():
    time = np.arange(26.0)
    chunk = np.stack([0.001 * d * time**3 - time + d for d in range(23)], axis=1)
    at = np.linspace(0, 25, 20)
    expected = np.stack([0.001 * d * at**3 - at + d for d in range(23)], axis=1)
    expected[:, :3] *= 1.3
    np.testing.assert_allclose(compress(chunk, 20), expected, rtol=1e-9, atol=1e-9)


def test_gripper_motion_is_seen_in_either_hand():
    chunk = smooth_chunk()
    chunk[:, [14, 22]] = 0.0
    assert not gripper_moves(chunk, 0.2)
    for gripper in (14, 22):
        moved = chunk.copy()
        moved[10, gripper] = 0.21
        assert gripper_moves(moved, 0.2)


def test_compressed_and_uncompressed_chunks_keep_the_right_rows():
    events: list[Event] = []
    loop = make_loop(PolicyConfig(), events)
    chunk = smooth_chunk()
    chunk[:, [14, 22]] = 1.0
    loop.begin_step(7)
    assert loop.saved is None
    loop.plan(prediction(chunk), np.zeros(23))
    assert loop.remaining == 20
    np.testing.assert_array_equal(loop.saved, chunk[26:30].astype(np.float32))
    np.testing.assert_allclose(loop.act(), chunk[0] * np.where(np.arange(23) < 3, 1.3, 1.0), atol=1e-7)
    while loop.remaining:
        loop.act()
    chunk[25, 14] = 0.0
    loop.plan(prediction(chunk), np.zeros(23))
    np.testing.assert_array_equal(loop.saved, chunk[20:24].astype(np.float32))
    np.testing.assert_array_equal([loop.act() for _ in range(20)], chunk[:20].astype(np.float32))
    assert events == [Event(task=7, stage=0, step=20, rule="uncompressed")]


@given(st.data())
def test_without_compression_the_first_rows_are_played_as_they_are(data):
    execute = data.draw(st.integers(1, 30))
    keep = data.draw(st.integers(0, 30 - execute))
    inpainting = {"inpainting": "soft", "keep": keep} if keep else {"inpainting": "off"}
    loop = make_loop(PolicyConfig(execute=execute, compress_from=execute, **inpainting))
    chunk = np.random.default_rng(execute).normal(size=(30, 23)).astype(np.float32)
    loop.begin_step(1)
    loop.plan(prediction(chunk), np.zeros(23))
    played = np.array([loop.act() for _ in range(loop.remaining)])
    np.testing.assert_array_equal(played, chunk[:execute])
    if keep:
        np.testing.assert_array_equal(loop.saved, chunk[execute : execute + keep])
    else:
        assert loop.saved is None


def test_rules_see_the_stage_before_the_vote_and_events_say_where():
    events: list[Event] = []
    table = np.zeros((15, 2), bool)
    table[1] = True
    config = PolicyConfig(execute=10, compress_from=10)
    loop = ControlLoop(config, {2: table}.get, events.append)
    state = np.zeros(23, np.float32)
    state[14] = -1.0
    for _ in range(4):
        loop.begin_step(2)
        loop.plan(prediction(smooth_chunk(), stage=1), state)
        for _ in range(10):
            action = loop.act()
    rules = [(event.step, event.stage, event.rule) for event in events]
    assert rules == [(0, 0, "gripper"), (10, 0, "gripper"), (20, 0, "gripper"), (20, 0, "stage_forward")]
    assert loop.counts == {"gripper": 3, "stage_forward": 1}
    assert action[14] != 1.0, "stage 1 may be closed"


def test_a_changed_task_and_a_reset_restore_the_start():
    loop = make_loop(PolicyConfig(voting="off"))
    for restart in (lambda: loop.begin_step(4), loop.reset):
        loop.begin_step(3)
        loop.plan(prediction(smooth_chunk(), stage=6), np.zeros(23))
        loop.act()
        assert (loop.stage, loop.remaining, loop.calls) == (6, 19, 1)
        restart()
        assert (loop.stage, loop.remaining, loop.calls, loop.saved, loop.step) == (0, 0, 0, None, 0)
        loop.reset()


def test_clip_is_by_choice():
    chunk = np.full((30, 23), 9.0)
    for clip, largest in ((True, 3.1416), (False, 9.0)):
        loop = make_loop(PolicyConfig(execute=5, compress_from=5, clip=clip))
        loop.begin_step(1)
        loop.plan(prediction(chunk), np.zeros(23))
        assert loop.act().max() == pytest.approx(largest)


def test_broken_chunks_are_refused():
    loop = make_loop(PolicyConfig())
    loop.begin_step(1)
    chunk = smooth_chunk()
    chunk[3, 3] = np.nan
    with pytest.raises(ValueError, match="finite"):
        loop.plan(prediction(chunk), np.zeros(23))
    short = prediction(smooth_chunk())
    object.__setattr__(short, "chunk", chunk[:20])  # past the types that tests check
    with pytest.raises(ValueError, match="shape"):
        loop.plan(short, np.zeros(23))
    with pytest.raises(RuntimeError, match="plan first"):
        loop.act()


@pytest.mark.parametrize(
    "wrong",
    [
        {"execute": 0},
        {"execute": 21, "compress_from": 20},
        {"compress_from": 27},
        {"keep": 0},
        {"compress_from": 3, "execute": 2},
        {"num_steps": 0},
        {"seed": -1},
    ],
)
def test_config_refuses(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        PolicyConfig(**wrong)


def test_an_oracle_tells_the_stage_and_predictions_do_not_vote():
    loop = make_loop(PolicyConfig(voting="oracle"))
    loop.begin_step(3, oracle_stage=2)
    loop.plan(prediction(smooth_chunk(), stage=6), np.zeros(23))
    assert loop.stage == 2
    loop.begin_step(3, oracle_stage=4)
    assert loop.stage == 4
    assert not any(rule.startswith("stage") for rule in loop.counts)
    with pytest.raises(ValueError, match="has no stage"):
        loop.begin_step(3)
