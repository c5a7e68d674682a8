"""Saved states: damage, space, time, SIGTERM, other numbers of devices, and kills at random moments."""

import dataclasses
import importlib.util
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest

from pi_behavior.files import NoSpaceError
from pi_behavior.training import saving
from pi_behavior.training.errors import NonFiniteError, PreemptedError
from pi_behavior.training.loop import train

_spec = importlib.util.spec_from_file_location(
    "small_training", Path(__file__).with_name("small_training.py")
)
small = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(small)
MODEL, TRAIN, batches, statistics = small.MODEL, small.TRAIN, small.batches, small.statistics
CrashError, parameters = small.CrashError, small.parameters
SCRIPT = [sys.executable, small.__file__]
LONGER = dataclasses.replace(TRAIN, steps=8, save_every=2)


def equal(one: Path, other: Path) -> bool:
    a, b = parameters(one / "checkpoint"), parameters(other / "checkpoint")
    return all(np.array_equal(a[name], b[name]) for name in a)


def run_until(work: Path, step: int, config=LONGER) -> None:
    def crash(now: int, _: object) -> None:
        if now == step:
            raise CrashError

    with pytest.raises(CrashError):
        train(MODEL, config, statistics(), batches, work, hooks=[crash])


def steps_of(work: Path) -> list[int]:
    return sorted(int(path.name) for path in (work / "state").iterdir() if path.name.isdigit())


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> Path:
    work = tmp_path_factory.mktemp("undisturbed")
    train(MODEL, LONGER, statistics(), batches, work)
    return work


@pytest.mark.parametrize("damage", ["truncated", "flipped", "missing", "unsealed"])
def test_a_damaged_state_is_left_out_and_the_one_before_is_used(
    tmp_path: Path, undisturbed: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    run_until(tmp_path, 7)
    assert steps_of(tmp_path) == [4, 6]
    state = tmp_path / "state" / "6"
    victim = max((f for f in state.rglob("*") if f.is_file()), key=lambda f: f.stat().st_size)
    data = victim.read_bytes()
    if damage == "truncated":
        victim.write_bytes(data[: len(data) // 2])
    elif damage == "flipped":
        victim.write_bytes(data[:-100] + bytes([data[-100] ^ 1]) + data[-99:])
    elif damage == "missing":
        victim.unlink()
    else:
        (state / "sums.json").unlink()
    seen: list[int] = []
    train(MODEL, LONGER, statistics(), batches, tmp_path, hooks=[lambda step, _: seen.append(step)])
    assert seen == [5, 6, 7, 8]
    assert "the saved state of step 6" in caplog.text
    assert ("was not written to its end" if damage == "unsealed" else victim.name) in caplog.text
    assert equal(tmp_path, undisturbed)


def test_every_few_a_state_is_kept_and_time_saves_too(tmp_path: Path) -> None:
    run_until(tmp_path / "kept", 8, dataclasses.replace(LONGER, save_every=1, keep_every=3))
    assert steps_of(tmp_path / "kept") == [3, 6, 7]
    run_until(tmp_path / "time", 8, dataclasses.replace(LONGER, save_every=1000, save_minutes=1e-6))
    assert steps_of(tmp_path / "time") == [6, 7]


def test_a_state_that_is_not_finite_is_never_saved_and_the_last_good_one_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = saving.SavedStates.save

    def poisoned(self: saving.SavedStates, step: int, state):  # type: ignore[no-untyped-def]
        broken = state.average
        if step == 4:
            broken["action_in"]["bias"].set_value(broken["action_in"]["bias"].get_value() * jnp.nan)
        made(self, step, dataclasses.replace(state, average=broken))

    monkeypatch.setattr(saving.SavedStates, "save", poisoned)
    with pytest.raises(NonFiniteError, match=r"state after step 4 .* last good state is that of step 2, in "):
        train(MODEL, LONGER, statistics(), batches, tmp_path)
    assert steps_of(tmp_path) == [2]


def test_space_is_looked_at_before_a_run_and_before_a_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    free = [10**5]
    monkeypatch.setattr(saving.shutil, "disk_usage", lambda _: SimpleNamespace(free=free[0]))
    with pytest.raises(NoSpaceError, match=r"needs .* GB more for 3 saved states and the checkpoint"):
        train(MODEL, LONGER, statistics(), batches, tmp_path)
    free[0] = 10**12

    def fill(step: int, _: object) -> None:
        free[0] = 10**12 if step < 3 else 0

    train(MODEL, LONGER, statistics(), batches, tmp_path, hooks=[fill])
    assert "state after step 4 is not saved" in caplog.text
    assert "last good state is that of step 2" in caplog.text
    assert (tmp_path / "checkpoint").is_dir()


def test_sigterm_saves_the_step_and_the_next_run_goes_on(tmp_path: Path, undisturbed: Path) -> None:
    def tell(step: int, _: object) -> None:
        if step == 5:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(PreemptedError, match=r"after step 5; the last good state is that of step 5"):
        train(MODEL, LONGER, statistics(), batches, tmp_path, hooks=[tell])
    assert 5 in steps_of(tmp_path)
    seen: list[int] = []
    train(MODEL, LONGER, statistics(), batches, tmp_path, hooks=[lambda step, _: seen.append(step)])
    assert seen == [6, 7, 8]
    assert equal(tmp_path, undisturbed)


def start(work: Path, devices: int, steps: int, until: int = 0) -> subprocess.Popen[bytes]:
    """The training in a process of its own, with so many devices; it ends itself after a step, if given."""
    flags = [one for one in os.environ["XLA_FLAGS"].split() if "device_count" not in one]
    flags.append(f"--xla_force_host_platform_device_count={devices}")
    environment = {**os.environ, "XLA_FLAGS": " ".join(flags), "NPROC": "64"}
    return subprocess.Popen([*SCRIPT, str(work), str(steps), str(until)], env=environment)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_run_continues_on_other_numbers_of_devices(tmp_path: Path) -> None:
    for number, devices in enumerate((8, 4, 1, 8)):
        until = 0 if number == 3 else 2 * number + 2
        assert start(tmp_path / "moved", devices, 8, until).wait() == (75 if until else 0)
    assert start(tmp_path / "one", 1, 8).wait() == 0
    moved, one = parameters(tmp_path / "moved/checkpoint"), parameters(tmp_path / "one/checkpoint")
    for name in one:
        # Adam makes of a gradient near zero, which is all rounding, a part of a step; a step too many or too
        # few would show as 1e-3 almost everywhere
        difference = np.abs(moved[name] - one[name])
        assert difference.max() < 5e-4, name
        # A key's bias adds the same to all scores of a query, which softmax drops: its gradient is rounding
        if not name.endswith("key_bias"):
            assert np.mean(difference > 1e-5) < 2e-3, name


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_twenty_kills_at_random_moments_end_bit_for_bit_as_undisturbed(tmp_path: Path) -> None:
    steps = 60
    begun = time.monotonic()
    assert start(tmp_path / "one", 1, steps).wait() == 0
    whole = time.monotonic() - begun
    rng = random.Random(0)
    kills = 0
    while kills < 20:
        process = start(tmp_path / "two", 1, steps)
        try:
            process.wait(rng.uniform(0.2, 1.1) * whole)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            kills += 1
            continue
        assert process.returncode == 0
        assert equal(tmp_path / "one", tmp_path / "two")
        shutil.rmtree(tmp_path / "two")  # it came through: again from the start
    assert start(tmp_path / "two", 1, steps).wait() == 0
    assert equal(tmp_path / "one", tmp_path / "two")
