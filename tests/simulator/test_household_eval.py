"""`household.eval` against a real websocket server that replays the expert's actions or holds still."""

import http
import json
import math
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import mujoco
import numpy as np
import pytest
import tyro
from websockets.http11 import Request, Response
from websockets.sync.server import ServerConnection, serve

from household import cli, robot
from household.episode import Odometer, record
from household.eval import EvalConfig, evaluate
from household.experts import make_expert
from household.goals import Goal
from household.instances import make_instance
from household.oracle import Oracle, steps_to_goal
from household.protocol import PolicyError, pack, unpack, wait_until_healthy
from household.simulation import Simulation
from household.tasks import TASKS
from pi_behavior.challenge import task as challenge_task
from pi_behavior.layout import ORACLE_STAGE_KEY
from pi_behavior.statistics import stage_of_frame

RADIO = TASKS["turning_on_radio"]
Answer = Callable[[dict[str, Any], int], dict[str, Any]]


class PolicyServer:
    """A policy server that answers with what a function of observation and step number says."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.requests: list[dict[str, Any]] = []
        self.resets = 0
        self._server = serve(
            self._session, "127.0.0.1", 0, process_request=self._health, compression=None, max_size=None
        )
        self.port = self._server.socket.getsockname()[1]
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()

    def _health(self, connection: ServerConnection, request: Request) -> Response | None:
        return connection.respond(http.HTTPStatus.OK, "OK\n") if request.path == "/healthz" else None

    def _session(self, connection: ServerConnection) -> None:
        connection.send(pack({"server": "test"}))
        step = 0
        for frame in connection:
            assert isinstance(frame, bytes)
            message = unpack(frame)
            if message.get("reset"):
                self.resets += 1
                step = 0
                continue
            self.requests.append(message)
            try:
                answer = self.answer(message, step)
            except RuntimeError as error:
                connection.send(f"Traceback: {error}")
                connection.close(1011)
                return
            step += len(answer.get("action_chunk", [0]))
            connection.send(pack(answer))

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()


def hold(message: dict[str, Any], step: int) -> dict[str, Any]:
    del step
    action = robot.state_from_proprioception(message[robot.PROPRIOCEPTION_KEY].astype(float))
    action[:3] = 0
    answer: dict[str, Any] = {"action": action.astype(np.float32), "server_timing": {"infer_ms": 1.0}}
    if "__action_chunk_size__" in message:
        answer["action_chunk"] = np.repeat(answer["action"][None], message["__action_chunk_size__"], axis=0)
    return answer


@pytest.fixture(scope="module")
def expert_actions() -> np.ndarray:
    simulation = Simulation(RADIO)
    simulation.reset(make_instance(RADIO, 301))
    goal, expert = Goal(simulation), make_expert(simulation)
    actions = []
    while not goal.satisfied():
        actions.append(expert.act().action.astype(np.float32))
        simulation.step(actions[-1])
    return np.array(actions)


@pytest.fixture
def server() -> Iterator[Callable[[Answer], PolicyServer]]:
    servers: list[PolicyServer] = []

    def start(answer: Answer) -> PolicyServer:
        servers.append(PolicyServer(answer))
        return servers[-1]

    yield start
    for one in servers:
        one.close()


def config(port: int, output: Path, **changes: Any) -> EvalConfig:
    base = EvalConfig(RADIO.name, output, port=port, instance_indices=(0,), image_size=32, connect_timeout=20)
    return replace(base, **changes)


def test_the_experts_actions_score_one_and_the_files_are_the_challenges(
    server: Callable[[Answer], PolicyServer], expert_actions: np.ndarray, tmp_path: Path
) -> None:
    policy = server(lambda _, step: {"action": expert_actions[step]})
    (path,) = evaluate(config(policy.port, tmp_path, write_video=True))
    assert path == tmp_path / "json" / "turning_on_radio_301_0.json"
    result = json.loads(path.read_text())
    steps = len(expert_actions)
    assert list(result) == [
        *("task", "instance_id", "rollout_id", "steps", "success"),
        *("agent_distance", "normalized_agent_distance", "q_score", "time"),
    ]
    assert (result["task"], result["instance_id"], result["rollout_id"]) == (RADIO.name, 301, 0)
    assert (result["steps"], result["success"], result["q_score"]) == (steps, True, {"final": 1.0})
    distance = result["agent_distance"]
    normalised = result["normalized_agent_distance"]
    assert normalised["base"] == pytest.approx(RADIO.human.distance_traveled / distance["base"])
    assert normalised["right"] == pytest.approx(RADIO.human.right_eef_displacement / distance["right"])
    assert result["time"]["simulator_time"] == pytest.approx(steps / 30)
    assert result["time"]["normalized_time"] == pytest.approx(RADIO.human.length / steps)
    with av.open(str(tmp_path / "videos" / "turning_on_radio_301_0.mp4")) as video:
        frames = [f.to_ndarray(format="rgb24") for f in video.decode(video=0)]
    assert len(frames) == steps
    assert frames[0].shape == (448, 672, 3)


def test_observations_follow_the_protocol(server: Callable[[Answer], PolicyServer], tmp_path: Path) -> None:
    policy = server(hold)
    evaluate(config(policy.port, tmp_path, max_steps=2))
    first = policy.requests[0]
    assert policy.resets == 1
    assert first[robot.PROPRIOCEPTION_KEY].shape == (61,)
    assert first[robot.PROPRIOCEPTION_KEY].dtype == np.float32
    assert (first["task_id"].dtype, first["task_id"].tolist()) == (np.int64, [0])
    for key in robot.CAMERA_OBSERVATION_KEYS.values():
        assert (first[key].shape, first[key].dtype) == ((32, 32, 4), np.uint8)
    assert first[robot.CAMERA_POSES_KEY].shape == (21,)


def test_chunks_are_replayed_without_asking_and_change_nothing(
    server: Callable[[Answer], PolicyServer], expert_actions: np.ndarray, tmp_path: Path
) -> None:
    def answer(message: dict[str, Any], step: int) -> dict[str, Any]:
        size = message.get("__action_chunk_size__")
        chunk = expert_actions[step : step + size] if size else None
        reply: dict[str, Any] = {"action": expert_actions[step]}
        return reply if chunk is None else {**reply, "action_chunk": chunk}

    one, many = server(answer), server(answer)
    (a,) = evaluate(config(one.port, tmp_path / "a"))
    (b,) = evaluate(config(many.port, tmp_path / "b", replay_action_chunk_size=10))
    assert json.loads(a.read_text()) == json.loads(b.read_text())
    assert len(one.requests) == len(expert_actions)
    assert len(many.requests) == math.ceil(len(expert_actions) / 10)


def test_simulator_and_policy_mean_the_same_stages() -> None:
    """Neither imports the other, so each has its own table."""
    assert robot.ORACLE_STAGE_KEY == ORACLE_STAGE_KEY
    for task in TASKS.values():
        theirs = challenge_task(task.name)
        assert (task.index, task.stages) == (theirs.index, theirs.stages)


@pytest.mark.parametrize("name", ["turning_on_radio", "picking_up_trash"])
def test_a_clean_demonstrations_true_stages_are_its_labels(name: str) -> None:
    simulation = Simulation(TASKS[name])
    length = len(record(simulation, 2, image_size=None, style="clean", seed=0).actions)
    stages = simulation.task.stages
    simulation.reset(make_instance(simulation.task, 2))
    expert, oracle = make_expert(simulation), Oracle(simulation)
    found = []
    for step in range(length):
        found.append(oracle.stage(step))
        simulation.step(expert.act().action)
    np.testing.assert_array_equal(found, stage_of_frame(np.arange(length), length, stages))
    assert set(found) == set(range(stages))


def test_the_true_stage_stays_low_where_the_expert_would_need_long() -> None:
    simulation = Simulation(TASKS["picking_up_trash"])
    simulation.reset(make_instance(simulation.task, 2))
    needed = steps_to_goal(simulation)
    assert 60 < needed < simulation.task.time_limit
    start = simulation.model.jnt_qposadr[simulation.model.body("can__of__soda.n.01_1").jntadr[0]]
    simulation.data.qpos[start : start + 3] = (5.0, 5.0, 0.1)  # where the hand never comes
    mujoco.mj_forward(simulation.model, simulation.data)
    assert steps_to_goal(simulation) == simulation.task.time_limit
    assert Oracle(simulation).stage(needed) < simulation.task.stages / 2


def test_the_true_stage_is_told_on_demand(
    server: Callable[[Answer], PolicyServer], expert_actions: np.ndarray, tmp_path: Path
) -> None:
    policy = server(lambda _, step: {"action": expert_actions[step]})
    evaluate(config(policy.port, tmp_path / "with", oracle_stage=True))
    told = [message[ORACLE_STAGE_KEY] for message in policy.requests]
    assert {(stage.dtype, stage.shape) for stage in told} == {(np.dtype(np.int64), (1,))}
    numbers = [int(stage[0]) for stage in told]
    assert numbers == sorted(numbers)
    assert set(numbers) == set(range(RADIO.stages))
    count = len(told)
    evaluate(config(policy.port, tmp_path / "without"))
    assert not any(ORACLE_STAGE_KEY in message for message in policy.requests[count:])


def test_only_missing_rollouts_are_done_again(
    server: Callable[[Answer], PolicyServer], tmp_path: Path
) -> None:
    policy = server(hold)
    asked = config(policy.port, tmp_path, instance_indices=(0, 1), num_rollouts=2, max_steps=3)
    paths = evaluate(asked)
    assert len(paths) == 4
    assert policy.resets == 4
    assert json.loads(paths[0].read_text())["q_score"]["final"] == 0.0
    whole = paths[0].read_bytes()
    paths[0].write_bytes(whole[: len(whole) // 2])
    paths[3].unlink()
    stamps = [paths[i].stat().st_mtime_ns for i in (1, 2)]
    evaluate(asked)
    assert policy.resets == 6
    assert [paths[i].stat().st_mtime_ns for i in (1, 2)] == stamps
    assert paths[0].read_bytes() == whole  # deterministic


def test_the_modes_choose_the_instances(tmp_path: Path) -> None:
    def ids(mode: str, *indices: int) -> list[int]:
        return replace(config(1, tmp_path), mode=mode, instance_indices=indices).instance_ids()  # type: ignore[arg-type]

    assert ids("public_test", 0, 19) == [301, 320]
    assert ids("hidden_test", 0, 19) == [321, 340]
    assert ids("train", 1, 101) == [1, 101]
    with pytest.raises(cli.UserError, match="do not exist in public_test"):
        ids("public_test", 20)


def test_a_policy_that_fails_or_answers_nonsense_is_an_error(
    server: Callable[[Answer], PolicyServer], tmp_path: Path
) -> None:
    def failing(message: dict[str, Any], step: int) -> dict[str, Any]:
        raise RuntimeError("out of memory")

    with pytest.raises(PolicyError, match="out of memory"):
        evaluate(config(server(failing).port, tmp_path))
    with pytest.raises(ConnectionError, match="not finite"):
        evaluate(config(server(lambda *_: {"action": np.full(23, np.nan, np.float32)}).port, tmp_path))
    with pytest.raises(ConnectionError, match="no 'action'"):
        evaluate(config(server(lambda *_: {"actions": 1}).port, tmp_path))
    assert not list(tmp_path.rglob("*.json"))


def eval_command(port: int, output: Path) -> list[str]:
    command = [sys.executable, "-m", "household.eval", "--task-name", RADIO.name, "--port", str(port)]
    command += ["--instance-indices", "0", "--num-rollouts", "1", "--max-steps", "4"]
    return [*command, "--output-dir", str(output), "--headless", "--image-size", "32"]


@pytest.mark.parametrize("fault", ["crash", "hang"])
def test_the_command_fails_once_on_demand_and_then_finishes(
    server: Callable[[Answer], PolicyServer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    marker = tmp_path / "failed"
    monkeypatch.setenv("HOUSEHOLD_FAULTS", f"{fault}@2")
    monkeypatch.setenv("HOUSEHOLD_FAULT_MARKER", str(marker))
    command = eval_command(server(hold).port, tmp_path)
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        if fault == "crash":
            assert process.wait(60) == 139
        else:
            deadline = time.monotonic() + 60
            while not marker.exists() and time.monotonic() < deadline:
                time.sleep(0.05)
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(1)
            process.kill()
    assert marker.read_text() == f"{fault} at step 2\n"
    assert not list(tmp_path.rglob("*.json"))
    assert subprocess.run(command, capture_output=True, check=False).returncode == 0
    assert len(list(tmp_path.rglob("*.json"))) == 1


def test_the_command_logs_its_steps_as_the_challenges_does(
    server: Callable[[Answer], PolicyServer], tmp_path: Path
) -> None:
    command = [
        *eval_command(server(hold).port, tmp_path),
        "--max-steps",
        "250",
        "--replay-action-chunk-size",
        "50",
    ]
    answer = subprocess.run(command, capture_output=True, text=True, check=True)
    lines = [line for line in answer.stderr.splitlines() if "step" in line]
    assert lines[:2] == ["Current step: 100", "Current step: 200"]


LEAK = """
import os
from pathlib import Path
from household.faults import Faults

faults = Faults()
for _ in range(3):
    print(int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20)
    faults.rollout()
"""


def test_memory_leaks_on_demand_after_every_rollout() -> None:
    # a process of its own: in this one other tests' memory is freed at any time
    environment = os.environ | {"HOUSEHOLD_FAULTS": "leak=64"}
    answer = subprocess.run(
        [sys.executable, "-c", LEAK], env=environment, capture_output=True, text=True, check=True
    )
    before, once, twice = map(float, answer.stdout.split())
    assert 60 < once - before < 80
    assert 60 < twice - once < 80


def test_unknown_faults_are_a_mistake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOUSEHOLD_FAULTS", "explode@3")
    with pytest.raises(cli.UserError, match="expected crash@STEP, hang@STEP or leak=MEGABYTES"):
        evaluate(config(1, tmp_path))


def test_same_policy_same_result(server: Callable[[Answer], PolicyServer], tmp_path: Path) -> None:
    """A policy that moves by what it sees: one picture's bit of difference would show."""

    def wander(message: dict[str, Any], step: int) -> dict[str, Any]:
        answer = hold(message, step)
        pictures = [message[key][..., :3] for key in robot.CAMERA_OBSERVATION_KEYS.values()]
        answer["action"][7:14] += 0.05 * np.sin(np.float32([p.astype(float).sum() for p in pictures]).sum())
        return answer

    port = server(wander).port
    results = []
    for name in ("first", "second"):
        assert subprocess.run(eval_command(port, tmp_path / name), check=False).returncode == 0
        results.append((tmp_path / name / "json" / "turning_on_radio_301_0.json").read_bytes())
    assert results[0] == results[1]


def test_mistakes_exit_with_two_and_a_missing_server_with_one(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "household.eval", "--output-dir", str(tmp_path), "--task-name"]
    unknown = subprocess.run([*command, "cooking"], capture_output=True, text=True, check=False)
    assert unknown.returncode == 2
    assert "turning_on_radio" in unknown.stderr
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
        late = [*command, RADIO.name, "--port", port, "--connect-timeout", "0.3"]
        absent = subprocess.run(late, capture_output=True, text=True, check=False)
    assert absent.returncode == 1
    assert "no policy server" in absent.stderr
    with pytest.raises(PolicyError, match="no policy server"):
        wait_until_healthy("127.0.0.1", int(port), 0.1)


def test_arrays_survive_the_wire_and_objects_are_refused() -> None:
    message = {"a": np.arange(6, dtype=np.int16).reshape(2, 3), "s": np.float32(1.5), "t": "text", "n": None}
    back = unpack(pack(message))
    np.testing.assert_array_equal(back["a"], message["a"])
    assert back["a"].dtype == np.int16
    assert (back["s"], back["t"], back["n"]) == (np.float32(1.5), "text", None)
    with pytest.raises(ValueError, match="cannot be sent"):
        pack({"a": np.array([object()])})
    with pytest.raises(ValueError, match="not a msgpack message"):
        unpack(b"\xc1")


def test_the_odometer_adds_up_paths() -> None:
    simulation = Simulation(RADIO)
    simulation.reset(make_instance(RADIO, 1))
    odometer = Odometer(simulation)
    action = robot.state_from_proprioception(simulation.proprioception())
    for sign in (1, -1):
        action[:3] = (0.4 * sign, 0, 0)
        for _ in range(30):
            simulation.step(action)
            odometer.update()
    base, left, right = odometer.total
    assert 0.45 < base < 0.65
    assert left == pytest.approx(base, abs=0.06)
    assert right == pytest.approx(base, abs=0.06)


def test_the_official_evaluators_command_line(tmp_path: Path) -> None:
    words = ["--task-name", "turning_on_radio", "--output-dir", str(tmp_path)]
    assert tyro.cli(EvalConfig, args=words).instance_ids() == [301]
    given = [*words, "--replay-action-chunk-size", "16", "--mode", "hidden_test", "--no-headless"]
    config = tyro.cli(EvalConfig, args=[*given, "--instance-indices", "0", "19"])
    assert (config.replay_action_chunk_size, config.instance_ids()) == (16, [321, 340])
    # in the mode train the numbers are ids, from 1
    train = tyro.cli(EvalConfig, args=[*words, "--mode", "train", "--instance-indices", "1", "200"])
    assert train.instance_ids() == [1, 200]
    with pytest.raises(cli.UserError, match="expected 1 to 200"):
        replace(train, instance_indices=(0,)).instance_ids()


def test_wrapper_and_robot_config_decide_what_the_policy_is_sent(
    server: Callable[[Answer], PolicyServer], tmp_path: Path
) -> None:
    def still(message: dict[str, Any], step: int) -> dict[str, Any]:
        state = robot.state_from_proprioception(message["robot::proprio"].astype(float))
        return {"action": np.where(np.arange(23) < 3, 0, state).astype(np.float32)}

    policy, file = server(still), tmp_path / "robot.yaml"
    file.write_text("# ours\nmodel: r1pro\nname: robot\n")
    wrapper = "omnigibson.eval.wrappers.RGBDFullResWrapper"
    evaluate(config(policy.port, tmp_path, max_steps=1, env_wrapper=wrapper, robot_config=file))
    (sent,) = policy.requests
    assert {key.split("::")[0] for key in sent} == {"robot", "task_id"}
    for link, side in (("zed_link", 720), ("left_realsense_link", 480), ("right_realsense_link", 480)):
        key = f"robot::robot:{link}:Camera:0::"
        assert (sent[key + "rgb"].shape, sent[key + "rgb"].dtype) == ((side, side, 4), np.uint8)
        depth = sent[key + "depth_linear"]
        assert (depth.shape, depth.dtype) == ((side, side), np.float32)
        # the wrists look at the table before the robot, the head into a room of a few metres
        assert 0.05 < depth.min() < 1.5
        assert (1.5 if side == 720 else 0.5) < depth.max() < 20
    file.write_text("model: r1pro\n")
    with pytest.raises(cli.UserError, match="has no line `name: ROBOT`"):
        config(policy.port, tmp_path, robot_config=file).view()
    with pytest.raises(cli.UserError, match="No such file"):
        config(policy.port, tmp_path, robot_config=tmp_path / "none.yaml").view()
