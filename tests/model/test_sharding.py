"""The step on eight devices: the same result on every placement, and what the devices exchange."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from pi_behavior.training.plan import collectives

SCRIPT = Path(__file__).with_name("sharded_runs.py")


def environment() -> dict[str, str]:
    """Eight devices instead of two, with enough threads for all of them to wait for each other."""
    flags = [one for one in os.environ["XLA_FLAGS"].split() if "device_count" not in one]
    return {**os.environ, "XLA_FLAGS": " ".join(flags), "NPROC": "64"}


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_every_placement_gives_the_result_of_one_device(tmp_path: Path) -> None:
    subprocess.run([sys.executable, str(SCRIPT), str(tmp_path / "runs.npz")], env=environment(), check=True)
    with np.load(tmp_path / "runs.npz") as file:
        found = {name: file[name] for name in file.files}
    assert len({tuple(name.split("/")[:2]) for name in found}) == 5 + 3
    for name, value in found.items():
        family, _, key = name.split("/", 2)
        np.testing.assert_allclose(value, found[f"{family}/one/{key}"], rtol=1e-5, atol=1e-5, err_msg=name)
    for family in ("winner", "lbm"):
        losses = found[f"{family}/one/metrics/loss"]
        assert losses.shape == (20,)
        assert losses[-1] != losses[0]


COLLECTIVES = """
import json, sys
import jax
jax.config.update("jax_num_cpu_devices", 8)
from pi_behavior.config import ModelConfig
from pi_behavior.training import plan
from pi_behavior.training.config import TrainConfig

size, accumulate, *batches = sys.argv[1:]
found = []
for batch in map(int, batches):
    config = TrainConfig(batch_size=batch, fsdp=8, accumulate=int(accumulate))
    program = plan.compile_step(ModelConfig.presets[size], config, 8)[0].as_text()
    found.append(sorted([one.kind, one.shape, one.times, one.sent] for one in plan.collectives(program)))
print(json.dumps(found))
"""


def exchanged(size: str, accumulate: int, *batches: int) -> list[list[tuple[str, str, int, int]]]:
    """Kind, type, times and bytes of what eight devices exchange in a step, for each batch size."""
    words = [size, str(accumulate), *map(str, batches)]
    command = [sys.executable, "-c", COLLECTIVES, *words]
    answer = subprocess.run(command, env=environment(), check=True, stdout=subprocess.PIPE, text=True)
    return [[tuple(one) for one in program] for program in json.loads(answer.stdout)]


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("accumulate", [1, 2])
def test_what_devices_exchange_at_full_size_is_weights_and_gradients(accumulate: int) -> None:
    small, large = exchanged("full", accumulate, 32, 64)
    assert small == large  # nothing grows with the batch
    sent: dict[str, int] = {}
    for kind, _, times, size in large:
        sent[kind] = sent.get(kind, 0) + times * size
    assert set(sent) == {"all-gather", "reduce-scatter", "all-reduce"}
    assert sum(sent.values()) < 20e9
    # gradients in float32, once, whatever the number of parts: 2.46e9 parameters are trained and read
    assert sent["reduce-scatter"] == pytest.approx(4 * 2.46e9 * 7 / 8, rel=0.02)
    assert sent["all-reduce"] < 50e6


def test_nothing_that_is_exchanged_grows_with_the_batch() -> None:
    small, large = exchanged("small", 1, 8, 16)
    assert small == large
    assert {kind for kind, *_ in small} == {"all-gather", "reduce-scatter", "all-reduce"}


PROGRAM = """HloModule jit_step

%body (arg: (s32[], bf16[8])) -> (s32[], bf16[8]) {
  %a = u16[16,4]{1,0} all-gather(%p), replica_groups={{0,1,2,3},{4,5,6,7}}, dimensions={0}
  ROOT %t = (s32[], bf16[8]) tuple(%x, %y)
}

%cond (arg: (s32[], bf16[8])) -> pred[] {
  ROOT %c = pred[] compare(%i, %n), direction=LT
}

ENTRY %main (p0: f32[8]) -> f32[] {
  %w = (s32[]) while(%init), condition=%cond, body=%body, backend_config={"known_trip_count":{"n":"5"}}
  %r = (f32[], /*index=1*/f32[100]{0}) all-reduce(%b), replica_groups=mesh['a'=1,'b'=8] {'b'}, to_apply=%add
  %s = f32[10,2]{1,0} reduce-scatter(%g), replica_groups=[1,8]<=[8], dimensions={0}, to_apply=%add
  %alone = f32[1000]{0} all-reduce(%d), replica_groups={{0},{1}}, to_apply=%add
}
"""


def test_exchanges_are_counted_with_their_loops() -> None:
    found = {one.kind: one for one in collectives(PROGRAM)}
    assert set(found) == {"all-gather", "all-reduce", "reduce-scatter"}
    gather, reduce, scatter = (found[kind] for kind in sorted(found))
    assert (gather.times, gather.size, gather.devices, gather.sent) == (5, 128, 4, 96)
    assert (reduce.times, reduce.size, reduce.sent) == (1, 404, 707)
    assert (scatter.size, scatter.devices, scatter.sent) == (640, 8, 560)
    with pytest.raises(ValueError, match="no known count"):
        collectives(PROGRAM.replace("known_trip_count", "unknown"))
