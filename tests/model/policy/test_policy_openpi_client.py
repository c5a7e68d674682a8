"""The published client, in an environment of its own, plays an episode against `b1k serve`."""

import io
import os
import shutil
import struct
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.serving import serving, write_random_checkpoint
from household.faults import Faults
from household.instances import make_instance
from household.protocol import PolicyClient
from household.rollout import View, roll_out
from household.simulation import Simulation
from household.tasks import TASKS
from pi_behavior.config import ModelConfig

VERSION = "0.1.2"
UNREACHABLE = ("Connection", "connection", "Temporary failure in name resolution", "timed out", "ProxyError")
# messages between the two environments are .npz files with their length before them: NumPy's types differ
CLIENT = """
    import io, struct, sys
    import numpy as np
    from openpi_client.websocket_client_policy import WebsocketClientPolicy
    assert np.__version__.startswith("1."), np.__version__
    client = WebsocketClientPolicy("127.0.0.1", int(sys.argv[1]))
    def send(arrays):
        file = io.BytesIO()
        np.savez(file, **arrays)
        sys.stdout.buffer.write(struct.pack("<q", len(file.getvalue())) + file.getvalue())
        sys.stdout.buffer.flush()
    metadata = client.get_server_metadata()
    send({"dim": metadata["action"]["dim"], "digest": metadata["checkpoints"]["checkpoint"]["digest"]})
    while header := sys.stdin.buffer.read(8):
        message = np.load(io.BytesIO(sys.stdin.buffer.read(*struct.unpack("<q", header))))
        answer = client.infer({key: message[key] for key in message.files})
        assert answer["server_timing"]["infer_ms"] > 0
        send({"action": answer["action"]})
"""


@pytest.fixture(scope="session")
def python(pytestconfig: pytest.Config) -> Path:
    """Interpreter of an environment with the client from the package index; kept for the next run."""
    folder = Path(pytestconfig.rootpath, ".pytest_cache", f"openpi-client-{VERSION}")
    interpreter = folder / "bin" / "python"
    if not (folder / "complete").exists():
        shutil.rmtree(folder, ignore_errors=True)
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        command = [interpreter, "-m", "pip", "install", "--quiet", f"openpi-client=={VERSION}"]
        command += ["typing_extensions"]  # which the client imports and does not ask for
        installed = subprocess.run(command, capture_output=True, text=True, check=False)
        if installed.returncode and any(sign in installed.stderr for sign in UNREACHABLE):
            pytest.skip(f"the package index cannot be reached: {installed.stderr.splitlines()[-1]}")
        assert installed.returncode == 0, installed.stderr
        (folder / "complete").touch()
    return interpreter


class PublishedClient:
    """The client's process as a policy; like the client, it does nothing at a reset."""

    def __init__(self, process: "subprocess.Popen[bytes]") -> None:
        self.process = process
        self.answers: list[np.ndarray] = []
        self.metadata = self._receive()

    def _receive(self) -> dict[str, Any]:
        assert self.process.stdout
        (size,) = struct.unpack("<q", self.process.stdout.read(8))
        with np.load(io.BytesIO(self.process.stdout.read(size))) as arrays:
            return dict(arrays)

    def reset(self) -> None:
        pass

    def infer(self, observation: dict[str, Any]) -> dict[str, Any]:
        assert self.process.stdin
        file = io.BytesIO()
        np.savez(file, **observation)
        self.process.stdin.write(struct.pack("<q", len(file.getvalue())) + file.getvalue())
        self.process.stdin.flush()
        answer = self._receive()
        self.answers.append(answer["action"])
        return answer


@pytest.fixture
def client(python: Path, tmp_path: Path) -> Iterator[tuple[PublishedClient, int]]:
    checkpoint = write_random_checkpoint(tmp_path / "checkpoint", ModelConfig.presets["tiny"])
    words = ("--checkpoint", str(checkpoint), "--batch-sizes", "1", "--policy.num-steps", "2")
    script = tmp_path / "client.py"
    script.write_text(textwrap.dedent(CLIENT))
    with serving(tmp_path, *words) as server:
        port = server.wait()
        variables = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        command = [str(python), str(script), str(port)]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=variables)
        with process:
            yield PublishedClient(process), port


@pytest.mark.slow
def test_the_published_client_plays_a_full_episode(client: tuple[PublishedClient, int]) -> None:
    published, port = client
    assert published.metadata["dim"] == 23
    assert len(str(published.metadata["digest"])) == 64
    task = TASKS["turning_on_radio"]
    simulation = Simulation(task)
    options = {
        "max_steps": task.time_limit,
        "view": View(56, 56),
        "films": [None],
        "faults": Faults(),
        "is_batch": False,
    }

    def play(policy: Any, chunk_size: int | None) -> Any:
        instances = [make_instance(task, 301)]
        (outcome,) = roll_out([simulation], instances, policy, chunk_size=chunk_size, **options)
        return outcome

    try:
        outcome = play(published, None)
        assert len(published.answers) == outcome.steps
        assert {(a.dtype.name, a.shape) for a in published.answers} == {("float32", (23,))}
        # the evaluator's own client, that replays chunks, comes to the same end
        with PolicyClient("127.0.0.1", port, 20.0, 60.0) as own:
            again = play(own, 20)
    finally:
        simulation.close()
    assert (outcome.steps, outcome.success, outcome.q) == (again.steps, again.success, again.q)
    np.testing.assert_array_equal(outcome.distances, again.distances)
