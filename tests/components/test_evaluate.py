"""Supervision of evaluators and policy servers, with real processes.

The evaluator is a command line, so a small program that crashes, hangs and writes half files stands in for
the simulator; the supervisor is the real one.
"""

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

from components.errors import UserError
from components.evaluate import stage as evaluate
from components.evaluate.config import Config, Inputs
from components.evaluate.server import log_file, policy_server, rule_counts
from components.evaluate.supervisor import Supervisor
from components.evaluate.watch import Limits
from components.evaluation.evaluator import Order
from components.evaluation.evaluators import find_evaluator
from components.evaluation.plan import Job, Plan, Policy
from components.evaluation.rollouts import ROLLOUTS, NoResultError, Outcome, load, save
from components.plan import config as plan_config
from components.plan.stage import STAGE as PLAN
from components.runtime.processes import ChildError
from components.runtime.progress import Progress
from household.video import write_rollout_video
from pi_behavior.policy.config import PolicyConfig

TASK = "turning_on_radio"
STANDINS = Path(__file__).parent / "standins"
DRIVER = """
    import sys
    sys.path.insert(0, {tests!r})
    from pathlib import Path
    from test_evaluate import Bench
    Bench(Path({folder!r})).supervisor().run()
"""


class Bench:
    """A worker with a small program in place of the simulator and another in place of the policy server."""

    limits = Limits(start=20.0, step=3.0, server=3.0)

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.output = folder / "output"

    def prepare(self, faults: dict) -> None:
        for program in STANDINS.glob("*.py"):
            shutil.copy(program, self.folder)
        (self.folder / "faults.json").write_text(json.dumps(faults))
        (self.folder / "outcome.json").write_text(outcome(666, 777))
        write_rollout_video(self.folder / "video.mp4", np.zeros((9, 32, 48, 3), np.uint8), 30)
        (self.folder / "artifacts" / "checkpoint").mkdir(parents=True)

    def evaluator(self, edition: str):
        program = (sys.executable, str(self.folder / "evaluator.py"))
        name = "household" if edition == "2026" else "omnigibson"
        return dataclasses.replace(find_evaluator(name, edition), program=program)

    def supervisor(self, *, edition: str = "2026", limits: Limits | None = None, **changes) -> Supervisor:
        job = Job(0, "common", TASK, "reported", (0, 1, 2), False, 1.0)
        video = dataclasses.replace(job, instances=(3,), video=True)
        values = {"jobs": (video, job), "rollouts": 1, "policy": PolicyConfig(), **changes}
        plan = Plan(
            edition=edition,
            evaluator="household" if edition == "2026" else "omnigibson",
            tasks=(TASK,),
            image_size=56,
            action_chunk_size=10,
            policies={"common": Policy("artifacts", "digest", "checkpoint")},
            **values,
        )
        return Supervisor(
            plan,
            0,
            self.evaluator(edition),
            lambda mapping, port: [
                sys.executable, str(self.folder / "server.py"), str(mapping), str(port)
            ],
            folder=self.output,
            workspace=self.folder,
            progress=Progress(),
            limits=limits or self.limits,
            cgroup=self.folder,
        )  # fmt: skip

    def starts(self) -> list[dict]:
        return [json.loads(line) for line in (self.folder / "starts").read_text().splitlines()]

    def file(self, instance: int) -> Path:
        return self.output / f"rollouts/common/reported/json/{TASK}_{instance}_0.json"


def outcome(instance: int, rollout: int) -> str:
    return json.dumps(
        {
            "task": TASK,
            "instance_id": instance,
            "rollout_id": rollout,
            "steps": 10,
            "success": False,
            "agent_distance": {"base": 2.0, "left": 1.5, "right": 1.2},
            "normalized_agent_distance": {"base": float("inf"), "left": 1.2, "right": 1.1},
            "q_score": {"final": 0.5},
            "time": {"simulator_steps": 10, "simulator_time": 0.3, "normalized_time": 1.6},
        }
    )


@pytest.fixture
def bench(tmp_path):
    return Bench(tmp_path)


def attempts(rollouts):
    return {r.instance: r.attempts for r in rollouts}


def faults(bench: Bench) -> dict[int, list[bool]]:
    """Whether the faults that the worker noted are the rollouts' own, by instance."""
    found = json.loads((bench.output / "faults.json").read_text())
    return {int(file.split("_")[-2]): [fault["own"] for fault in those] for file, those in found.items()}


def test_all_good(bench):
    bench.prepare({})
    rollouts = bench.supervisor(rollouts=2).run()
    assert attempts(rollouts) == {301: 1, 302: 1, 303: 1, 304: 1}
    assert len(rollouts) == 8
    assert all(r.q == 0.5 for r in rollouts)
    assert [s["indices"] for s in bench.starts()] == [[3], [0, 1, 2]]
    assert {r.instance for r in rollouts if r.video} == {304}
    save(rollouts, bench.output / ROLLOUTS)
    assert load(bench.output / ROLLOUTS) == rollouts


OWN = {
    "SIGSEGV": "signal SIGSEGV",
    "SIGKILL": "signal SIGKILL",
    "SIGSTOP": "the evaluator made no step for 3 s",
    "hang": "the evaluator made no step for 3 s",
    "exit": "the evaluator ended without a result",
    "torn json": "the evaluator ended without a result; its JSON is torn",
}
SERVERS = {
    "server-die": "the policy server ended with exit code 1",
    "server-SIGKILL": "the policy server ended with signal SIGKILL",
    "server-SIGSTOP": "the policy server did not answer",
    "server-stuck": "the policy server computed for 3 s without an answer",
    "server-error": "the policy server closed a session with an error",
    "policy failed": "the evaluator ended without a result; the evaluator says policy_connection_lost",
}


@pytest.mark.parametrize("fault", [*OWN, *SERVERS])
def test_one_fault_costs_one_more_attempt(bench, fault, capsys):
    bench.prepare({"302": [fault]})
    rollouts = bench.supervisor().run()
    assert attempts(rollouts) == {301: 1, 302: 2, 303: 1, 304: 1}
    assert all(r.q == 0.5 for r in rollouts)
    (reason,) = next(r for r in rollouts if r.instance == 302).reruns
    assert reason == {**OWN, **SERVERS}[fault]
    # the evaluator goes on after a result that is none; else the failed rollout comes after the others
    goes_on = fault in ("torn json", "policy failed")
    assert bench.starts()[-1]["indices"] == ([1] if goes_on else [2, 1])
    # another rollout that succeeds afterwards shows that it was not the machine; the server's are never charged
    assert faults(bench) == {302: [fault in OWN and not goes_on]}
    assert f"{TASK}_302_0: {reason}; it is started again" in capsys.readouterr().err


@pytest.mark.parametrize("fault", ["torn mp4", "no mp4"])
def test_a_result_needs_its_whole_video(bench, fault):
    bench.prepare({"304": [fault], "301": ["torn mp4"]})  # 301 has none
    rollouts = bench.supervisor().run()
    assert attempts(rollouts) == {301: 1, 302: 1, 303: 1, 304: 2}
    (reason,) = next(r for r in rollouts if r.instance == 304).reruns
    assert reason.endswith("its video is torn" if fault == "torn mp4" else "its video is missing")
    assert (bench.output / rollouts[0].video).read_bytes() == (bench.folder / "video.mp4").read_bytes()


def test_a_rollout_that_always_crashes_is_given_up(bench):
    bench.prepare({"301": ["SIGSEGV"] * 9})
    rollouts = bench.supervisor().run()
    assert attempts(rollouts) == {301: 4, 302: 1, 303: 1, 304: 1}
    (lost,) = [r for r in rollouts if r.outcome is None]
    assert (lost.instance, lost.q, lost.json) == (301, 0.0, None)
    assert lost.reruns == ("signal SIGSEGV",) * 4
    save(rollouts, bench.output / ROLLOUTS)
    assert [r.q for r in load(bench.output / ROLLOUTS)] == [0.5, 0.0, 0.5, 0.5]


def test_a_server_that_often_fails_is_charged_to_nobody(bench):
    bench.prepare({"302": ["server-die"] * 5, "303": ["server-error"] * 4})
    rollouts = bench.supervisor().run()
    assert all(r.q == 0.5 for r in rollouts)
    assert attempts(rollouts) == {301: 1, 302: 6, 303: 5, 304: 1}


@pytest.mark.parametrize("fault", ["SIGSEGV", "server-die"])
def test_a_machine_that_fails_makes_no_zeros(bench, fault):
    """After two rollouts all processes fail, also for a rollout that was finished before."""
    bench.prepare({str(i): [fault] * 3 for i in range(302, 305)})
    job = Job(0, "common", TASK, "reported", (0, 1, 2, 3), False, 1.0)
    supervisor = bench.supervisor(jobs=(job,))
    ask = f"{TASK}_301_0"
    test = bench.folder / "evaluator.py"
    test.write_text(test.read_text().replace('return ""', f'return "SIGSEGV" if name == "{ask}" and HERE.glob("fault-*") and (self.output / "json").parent.name == "control" else ""'))
    with pytest.raises(ChildError, match=r"failed 3 times in a row, and one that had succeeded fails too"):
        supervisor.run()
    assert bench.file(301).exists()
    assert faults(bench) == {302: [False], 303: [False], 304: [False]}
    # the next start continues with what is finished, and the earlier faults are nobody's
    (bench.folder / "faults.json").write_text("{}")
    rollouts = bench.supervisor(jobs=(job,)).run()
    assert attempts(rollouts) == {301: 1, 302: 2, 303: 2, 304: 2}
    assert all(r.q == 0.5 for r in rollouts)


def test_nothing_finished_is_a_failure_not_a_score(bench):
    bench.prepare({str(i): ["SIGSEGV"] * 3 for i in range(301, 305)})
    with pytest.raises(ChildError, match=r"none has succeeded(.|\n)*fault SIGSEGV"):
        bench.supervisor().run()
    assert not any(any(own) for own in faults(bench).values())


def test_a_result_that_is_not_understood_ends_the_stage(bench):
    bench.prepare({"302": ["unknown json"]})
    for _ in range(2):  # it is kept: the next start says the same
        with pytest.raises(UserError, match=rf"{TASK}_302_0.json is not understood: it has no 'q_score'"):
            bench.supervisor().run()
    assert "quality" in bench.file(302).read_text()
    assert not (bench.output / "faults.json").exists()
    bench.file(302).unlink()
    assert attempts(bench.supervisor().run()) == {301: 1, 302: 1, 303: 1, 304: 1}


def test_an_evaluator_that_leaks_is_started_again_between_rollouts(bench, capsys):
    bench.prepare({"seconds": 0.5})
    (bench.folder / "memory.max").write_text("100")
    (bench.folder / "memory.stat").write_text("file 0\nshmem 0\n")
    job = Job(0, "common", TASK, "reported", (0, 1, 2, 3), False, 1.0)
    rollouts = bench.supervisor(jobs=(job,)).run()
    assert attempts(rollouts) == {301: 1, 302: 1, 303: 1, 304: 1}
    assert [s["indices"] for s in bench.starts()] == [[0, 1, 2, 3], [3]]
    assert "holds 120% of its memory limit" in capsys.readouterr().err
    assert not (bench.output / "faults.json").exists()


EVALUATOR_2025 = """
    import csv, json, os, shutil, sys
    from pathlib import Path
    words = dict(word.split("=", 1) for word in sys.argv[1:])
    assert words["policy"] == "websocket" and words["headless"] == "true", words
    assert words["model.host"] == "127.0.0.1" and int(words["model.port"]) > 0, words
    task, output, here = words["task.name"], Path(json.loads(words["log_path"])), Path(__file__).parent
    data = Path(os.environ["OMNIGIBSON_DATA_PATH"], "2025-challenge-task-instances", "metadata")
    with (data / "test_instances.csv").open() as file:
        ids = next(row[2] for row in csv.reader(file) if row[1] == task).split(",")
    for folder in ("metrics", "videos"):
        (output / folder).mkdir(parents=True, exist_ok=True)
    for index in json.loads(words["eval_instance_ids"]):
        name = f"{task}_{int(ids[index])}_0"
        if index == 1 and not (here / "crashed").exists():
            (here / "crashed").touch()
            (output / "metrics" / f"{name}.json").write_text('{"agent_dist')
            os.kill(os.getpid(), 11)
        result = json.loads((here / "outcome.json").read_text())
        for key in ("task", "instance_id", "rollout_id", "steps", "success"):
            del result[key]
        (output / "metrics" / f"{name}.json").write_text(json.dumps(result))
        if words["write_video"] == "true":
            shutil.copy(here / "video.mp4", output / "videos" / f"{name}.mp4")
"""


def test_the_evaluator_of_2025(bench, monkeypatch):
    """Another command line, other file names, instance ids of its own, and JSONs that do not say theirs."""
    metadata = bench.folder / "data" / "2025-challenge-task-instances" / "metadata"
    metadata.mkdir(parents=True)
    ids = "245,111,7,90,68,12,13,14,15,16"
    (metadata / "test_instances.csv").write_text(
        f'Task ID,Task,Test Instance IDs\n0,{TASK},"{ids}"\n1,picking_up_trash,"1,2"\n'
    )
    monkeypatch.setenv("OMNIGIBSON_DATA_PATH", str(bench.folder / "data"))
    bench.prepare({})
    (bench.folder / "evaluator.py").write_text(textwrap.dedent(EVALUATOR_2025))
    rollouts = bench.supervisor(edition="2025").run()
    assert attempts(rollouts) == {245: 1, 111: 2, 7: 1, 90: 1}
    assert {r.json for r in rollouts} == {f"rollouts/common/reported/metrics/{r.name}.json" for r in rollouts}
    assert [r.video for r in rollouts if r.video] == [f"rollouts/common/reported/videos/{TASK}_90_0.mp4"]
    assert {(r.q, r.success, r.outcome.steps) for r in rollouts} == {(0.5, False, 10)}
    save(rollouts, bench.output / ROLLOUTS)
    assert load(bench.output / ROLLOUTS) == rollouts


def test_wrong_command_line_is_not_tried_again(bench):
    bench.prepare({"304": ["usage"] * 9})
    with pytest.raises(UserError, match=r"does not accept its command line(.|\n)*fault usage"):
        bench.supervisor().run()
    assert len(bench.starts()) == 1


@pytest.mark.parametrize("voting", ["off", "oracle"])
def test_the_true_stage_is_told_where_the_policy_expects_it(bench, voting):
    bench.prepare({})
    bench.supervisor(policy=PolicyConfig(voting=voting)).run()
    assert [s["oracle"] for s in bench.starts()] == [voting == "oracle"] * 2


def test_an_evaluator_that_does_not_end_is_ended(bench):
    bench.prepare({"linger": True})
    started = time.monotonic()
    supervisor = bench.supervisor(limits=dataclasses.replace(bench.limits, closing=0.5))
    assert attempts(supervisor.run()) == {301: 1, 302: 1, 303: 1, 304: 1}
    assert len(bench.starts()) == 2
    assert time.monotonic() - started < 30


def test_server_that_does_not_start(bench):
    bench.prepare({})
    (bench.folder / "broken").touch()
    with pytest.raises(ChildError, match=r"policy server of common ended(.|\n)*cannot load the checkpoint"):
        bench.supervisor().run()


def test_other_weights_than_those_that_were_planned_are_refused(factory):
    common = factory.model("common", (TASK,))
    plan = PLAN.execute(plan_config.Config(), plan_config.Inputs(common), factory.workspace).artifact
    other = factory.retrained(common, (TASK,))
    with pytest.raises(UserError, match=f"{other.digest}(.|\n)*{common.digest}.* Plan the evaluation again"):
        evaluate.STAGE.execute(Config(), Inputs(plan), factory.workspace)
    shutil.rmtree(other.path)
    with pytest.raises(UserError, match=f"{common.path} is not an artifact"):
        evaluate.STAGE.execute(Config(), Inputs(plan), factory.workspace)


def test_kill_9_and_again(bench):
    bench.prepare({"seconds": 0.5})
    tests = str(Path(__file__).parent)
    command = [sys.executable, "-c", textwrap.dedent(DRIVER.format(tests=tests, folder=str(bench.folder)))]
    worker = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    folder = bench.output / "rollouts" / "common" / "reported" / "json"
    deadline = time.monotonic() + 60
    while len(list(folder.glob("*.json"))) < 2:
        assert time.monotonic() < deadline
        assert worker.poll() is None
        time.sleep(0.05)
    children = psutil.Process(worker.pid).children(recursive=True)
    assert len(children) == 2
    os.kill(worker.pid, signal.SIGKILL)
    worker.wait()
    _, alive = psutil.wait_procs(children, timeout=10)
    assert not alive
    finished = {path: path.stat().st_mtime_ns for path in folder.glob("*.json")}
    assert 2 <= len(finished) < 4
    rollouts = bench.supervisor().run()
    assert attempts(rollouts) == {301: 1, 302: 1, 303: 1, 304: 1}
    assert all(path.stat().st_mtime_ns == then for path, then in finished.items())


def test_no_such_worker(bench):
    bench.prepare({})
    with pytest.raises(UserError, match="has no worker 0"):
        bench.supervisor(jobs=())
    with pytest.raises(ValueError, match="worker is -1; expected 0 or more"):
        Config(worker=-1)


def test_policy_server_takes_its_command_line(changed_policy):
    """The words that we give are options of the real server, and every field of the policy is among them."""
    import tyro

    from pi_behavior.policy.server import ServerConfig

    for policy in (PolicyConfig(), changed_policy):
        words = policy_server(policy)(Path("mapping.json"), Path("port"))
        assert words[1:3] == ["-m", "pi_behavior.policy.server"]
        given = {word.removeprefix("--policy.").removeprefix("no-") for word in words if "--policy." in word}
        assert given == {field.name.replace("_", "-") for field in dataclasses.fields(PolicyConfig)}
        config = tyro.cli(ServerConfig, args=list(words[3:]))
        assert config.policy == policy
        assert (config.mapping, config.port_file, config.port) == (Path("mapping.json"), Path("port"), 0)


def test_rules_are_counted_from_the_servers_logs(tmp_path):
    assert rule_counts(tmp_path) == {}
    log = log_file(tmp_path, "group:best")
    log.parent.mkdir()
    event = json.dumps({"message": "m", "task": 0, "stage": 1, "step": 2, "rule": "gripper"})
    log.write_text(f'{event}\nplain text\n{{"message": "no rule"}}\n{event}\n{{"rule": "gri')
    log_file(tmp_path, "common").write_text(event.replace("gripper", "radio") + "\n")
    assert rule_counts(tmp_path) == {"gripper": 2, "radio": 1}


def test_household_takes_its_command_line(tmp_path):
    """The words that we give are options of the real evaluator."""
    import tyro

    from household.eval import EvalConfig

    evaluator = find_evaluator("household", "2026")
    words = evaluator.command(
        Order(
            task=TASK,
            split="validation",
            indices=(100, 101),
            rollouts=2,
            video=True,
            host="localhost",
            port=1234,
            output=tmp_path,
            image_size=56,
            action_chunk_size=10,
            oracle_stage=True,
        )
    )
    config = tyro.cli(EvalConfig, args=words[3:])
    assert config.instance_ids() == evaluator.instance_ids(TASK, "validation", [100, 101])
    assert (config.task_name, config.host, config.port, config.num_rollouts) == (TASK, "localhost", 1234, 2)
    assert (config.mode, config.write_video, config.headless) == ("train", True, True)
    assert (config.image_size, config.action_chunk_size, config.output_dir) == (56, 10, tmp_path)
    assert config.oracle_stage


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"success": True}, "do not fit"),
        ({"q_score": {"final": 1.5}}, "do not fit"),
        ({"q_score": {}}, "not a whole result"),
        ({"instance_id": 5}, "expected"),
        ({"steps": -1}, "cannot be"),
        ({"normalized_agent_distance": {"base": 1}}, "not a whole result"),
    ],
)
def test_wrong_outcomes(tmp_path, change, message):
    path = tmp_path / "x.json"
    path.write_text(json.dumps({**json.loads(outcome(301, 0)), **change}))
    with pytest.raises(ValueError, match=message):
        Outcome.read(path, TASK, 301, 0)


def test_not_an_evaluation(tmp_path):
    with pytest.raises(UserError, match="give artifacts of the stages evaluate"):
        load(tmp_path / ROLLOUTS)
