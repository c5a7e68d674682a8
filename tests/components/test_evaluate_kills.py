"""SIGKILL and SIGSTOP in mid-episode, under the supervisor, with the real policy server and simulator."""

import os
import signal
import threading
import urllib.error
import urllib.request
from itertools import product
from pathlib import Path

import psutil
import pytest

from benchmarks.serving import write_random_checkpoint
from components.evaluate.config import Limits
from components.evaluate.server import policy_server, rule_counts
from components.evaluate.supervisor import Supervisor, conclude
from components.evaluation.evaluators import find_evaluator
from components.evaluation.plan import Job, Plan, Policy
from components.runtime.processes import read_port
from components.runtime.progress import Progress
from pi_behavior.config import ModelConfig
from pi_behavior.policy.config import PolicyConfig

INSTANCES = (0, 1, 2)
SERVER, EVALUATOR = "pi_behavior.policy.server", "household.eval"


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("workspace")
    write_random_checkpoint(folder / "artifacts" / "checkpoint", ModelConfig.presets["tiny"])
    return folder


class Killer(threading.Thread):
    """Signals a process once, when one rollout is done and the policy was asked for more."""

    def __init__(self, output: Path, module: str, number: signal.Signals) -> None:
        super().__init__()
        self.output, self.module, self.number = output, module, number
        self.port_file: Path | None = None
        self.done = 0
        """Finished rollouts when it sent the signal."""
        self.stopped = threading.Event()

    def requests(self) -> float:
        """Requests that the policy server answered."""
        port = read_port(self.port_file) if self.port_file else None
        if port is None:
            return 0.0
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
                rows = [line.split() for line in answer.read().decode().splitlines()]
        except (urllib.error.URLError, OSError):
            return 0.0
        return next(float(row[1]) for row in rows if row[0] == "policy_requests_total")

    def run(self) -> None:
        victims, at_first = [], 0.0
        while not self.stopped.wait(0.01):
            done = list(self.output.glob("content/rollouts/*/*/[!.]*/*_*.json"))
            if len(done) == 1 and not victims:
                at_first = self.requests()
                victims = [
                    child
                    for child in psutil.Process().children(recursive=True)
                    if self.module in (words := child.cmdline()) and "-c" not in words
                ]
            elif victims and self.requests() >= at_first + 5:
                (victim,) = victims
                os.kill(victim.pid, self.number)
                self.done = len(done)
                return


def evaluate(
    workspace: Path, output: Path, module: str | None, number: signal.Signals = signal.SIGKILL
) -> tuple[dict[str, bytes], dict[int, int]]:
    """The rollouts' files and attempts; `module` names the process that gets the signal."""
    job = Job("common", "turning_on_radio", "reported", INSTANCES)
    plan = Plan(
        edition="2026",
        evaluator="household",
        tasks=("turning_on_radio",),
        rollouts=1,
        image_size=56,
        action_chunk_size=1,  # many requests, so that a kill hits the middle
        policy=PolicyConfig(num_steps=2),
        policies={"common": Policy("artifacts", "digest", "checkpoint")},
        jobs=(job,),
    )
    killer = Killer(output, module, number) if module else None

    def command(mapping: Path, port_file: Path) -> list[str]:
        if killer:
            killer.port_file = port_file
        return list(policy_server()(mapping, port_file))

    supervisor = Supervisor(
        plan,
        0,
        find_evaluator("household", "2026"),
        command,
        folder=output,
        workspace=workspace,
        progress=Progress(),
        limits=Limits(start=120.0, stalled=30.0, server=15.0),
    )
    if killer:
        killer.start()
    try:
        supervisor.run()
    finally:
        if killer:
            killer.stopped.set()
            killer.join()
    if killer:
        assert 1 <= killer.done < len(INSTANCES), "killed in between"
    rollouts, _ = conclude(plan, find_evaluator("household", "2026"), output, print)
    assert sum(rule_counts(output / "logs").values()) > 0, "events are in the server's log"
    files = {path.name: path.read_bytes() for path in output.glob("content/rollouts/*/*/*/*_*.json")}
    return files, {rollout.key.index: rollout.attempts for rollout in rollouts}


@pytest.mark.slow
def test_results_equal_those_of_a_run_that_nobody_killed(workspace: Path, tmp_path: Path) -> None:
    expected, attempts = evaluate(workspace, tmp_path / "calm", None)
    assert len(expected) == len(INSTANCES)
    assert set(attempts.values()) == {1}
    for number, module in product((signal.SIGKILL, signal.SIGSTOP), (SERVER, EVALUATOR)):
        folder = tmp_path / f"{module}-{number.name}"
        files, attempts = evaluate(workspace, folder, module, number)
        assert sorted(attempts.values()) == [1, 1, 2], folder
        assert files == expected, folder
