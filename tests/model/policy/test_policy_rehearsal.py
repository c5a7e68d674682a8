"""The rehearsal finds what an official client would not put up with."""

import dataclasses
import http
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from itertools import islice
from typing import Any

import numpy as np
import pytest
from websockets.sync.server import ServerConnection, serve

from benchmarks.serving import random_statistics, serving, write_random_checkpoint
from pi_behavior.challenge import EDITIONS
from pi_behavior.config import ModelConfig
from pi_behavior.layout import PROPRIOCEPTION_KEY
from pi_behavior.policy import protocol
from pi_behavior.policy.config import PolicyConfig, Serving
from pi_behavior.policy.rehearsal import CHUNK_SIZES, Rehearsal, rehearse
from pipelines.tools import rehearse as command

PLAN = Rehearsal(
    host="127.0.0.1",
    port=0,
    ports=1,
    environments=3,
    edition=EDITIONS["2026"],
    task=0,
    max_steps=300,
    sides=(32, 16),
    depth=True,
    gpu_gib=24.0,
    queries=2,
    query_seconds=5.0,
)


def problems(port: int, **changes: Any) -> dict[str, str]:
    found = rehearse(dataclasses.replace(PLAN, port=port, **changes))
    return {finding.check: finding.problem for finding in found if finding.problem}


@pytest.mark.parametrize("edition", ["2025", "2026"])
def test_our_server_passes(serve, formula, edition) -> None:
    with serve(formula(), ports=3) as port:
        assert problems(port, ports=3, edition=EDITIONS[edition]) == {}


def test_the_command_b1k_serve_passes(tmp_path) -> None:
    """With a network of random weights, which says that it was trained in 2025."""
    statistics = dataclasses.replace(random_statistics(), proprioception=256)
    folder = write_random_checkpoint(tmp_path / "c", ModelConfig.presets["tiny"], statistics)
    words = ("--checkpoint", str(folder), "--ports", "64", "--policy.num-steps", "1", "--batch-sizes", "1")
    with serving(tmp_path, *words) as server:
        assert problems(server.wait(), ports=64, environments=10) == {}
        log = server.log.read_text()
    assert "demonstrations of 2025" in log
    assert log.count("the base part of its states is replaced by the training mean") == 1
    assert log.count("chunks of 30 actions are not given") == 1


class Faulty:
    """A server with one fault, which answers zeros."""

    def __init__(self, fault: str) -> None:
        self.fault, self.connections = fault, 0

    def http(self, connection: ServerConnection, request: Any) -> Any:
        if request.path == "/healthz":
            good = self.fault != "no health check"
            return connection.respond(http.HTTPStatus.OK if good else http.HTTPStatus.NOT_FOUND, "")
        return None

    def handle(self, connection: ServerConnection) -> None:
        serving = Serving({"c": ModelConfig.presets["tiny"]}, (1,), 1, "auto", "auto")
        told = {"serving": asdict(serving), "settings": asdict(PolicyConfig(num_steps=1))}
        connection.send(protocol.pack(told if "memory" in self.fault else {}))
        in_episode = False
        for frame in connection:
            message = protocol.unpack(frame)
            if message.get("reset"):
                in_episode = True
                continue
            if self.fault == "no answer after a reconnection" and not in_episode:
                continue
            if self.fault == "slow first answer" and in_episode:
                time.sleep(1.0)
            if self.fault == "error":
                connection.send("Traceback\nValueError: 61 values are new to me")
                return
            lead = message[PROPRIOCEPTION_KEY].shape[:-1]
            answer = {"action": np.zeros((*lead, 23), np.float32)}
            if self.fault == "wrong shape":
                answer["action"] = np.zeros(23, np.float32)
            size = message.get("__action_chunk_size__", 0)
            if size and self.fault == "short chunk":
                answer["action_chunk"] = np.zeros((*lead, size - 1, 23), np.float32)
            if size and self.fault == "other chunk":
                answer["action_chunk"] = np.ones((*lead, size, 23), np.float32)
            connection.send(protocol.pack(answer))
            if self.fault == "slow answers":
                time.sleep(0.05)

    @contextmanager
    def running(self) -> Iterator[int]:
        with serve(self.handle, "127.0.0.1", 0, process_request=self.http, compression=None) as server:
            thread = threading.Thread(target=server.serve_forever)
            thread.start()
            try:
                yield server.socket.getsockname()[1]
            finally:
                server.shutdown()
                thread.join(20)


CHUNKS = {f"replayed chunks of {size}" for size in CHUNK_SIZES}


@pytest.mark.parametrize(
    ("fault", "checks", "text"),
    [
        ("none", set(), ""),
        ("no health check", {"health of 1 ports", "reconnection in mid-episode"}, "answers 404"),
        ("short chunk", CHUNKS, "expected (2, 7, 23) or none"),
        ("other chunk", CHUNKS, "is not action"),
        ("no answer after a reconnection", {"reconnection in mid-episode"}, "no action within 0.7 s"),
        ("wrong shape", {"a batch of 2"} | CHUNKS, "expected an array (2, 23)"),
        ("error", {"one environment, no batch"}, "ValueError: 61 values are new to me"),
        ("slow first answer", {"first answer and budget of a rollout"}, "no action within 0.7 s"),
    ],
)
def test_faults_are_found(fault: str, checks: set[str], text: str) -> None:
    with Faulty(fault).running() as port:
        found = problems(port, query_seconds=0.7)
    if fault in ("wrong shape", "error", "slow first answer"):
        assert checks <= found.keys()
    else:
        assert found.keys() == checks
    assert any(text in problem for problem in found.values()) == bool(found)


@pytest.mark.parametrize(("gibibytes", "problem"), [(0.1, ""), (0.005, "batches of 1 need 0.0")])
def test_networks_that_are_too_large_for_the_gpu_are_found(gibibytes: float, problem: str) -> None:
    with Faulty("memory").running() as port:
        found = problems(port, gpu_gib=gibibytes)
    assert [problem in one for one in found.values()] == [True] * bool(problem)


def test_a_slow_server_exceeds_the_budget(serve, formula) -> None:
    class Slow(formula):
        def predict(self, requests):
            time.sleep(1.2)
            return super().predict(requests)

    with serve(Slow()) as port:
        findings = list(islice(rehearse(dataclasses.replace(PLAN, port=port, max_steps=1)), 3))
    assert "The budget of a rollout is 1 s" in findings[2].problem


def test_a_missing_port_is_named(serve, formula) -> None:
    with serve(formula(), ports=2) as port:
        found = problems(port, ports=3)
    assert found.keys() == {
        "health of 3 ports",
        "connection to 3 ports",
        "an environment at each of 3 ports",
    }
    assert f"1 of 3 ports, from {port + 2} on" in found["health of 3 ports"]


def test_the_command(serve, formula, capsys) -> None:
    with serve(formula()) as port:
        options = command.Options(f"127.0.0.1:{port}", ports=1, environments=2, queries=2)
        assert command.run(options) == 0
        assert "reconnection in mid-episode ... good" in capsys.readouterr().out
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        address = f"ws://127.0.0.1:{taken.getsockname()[1]}"
        assert command.run(command.Options(address, ports=1)) == 1
    assert "checks failed" in capsys.readouterr().err
    for wrong in ("nowhere", "https://x:1", "ws://x:99999"):
        with pytest.raises(command.UserError):
            command.run(command.Options(wrong))
