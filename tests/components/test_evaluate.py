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

from benchmarks import faults as benchmark
from benchmarks.faults import TASK, job, outcome
from components.errors import UserError
from components.evaluate import stage as evaluate
from components.evaluate.config import Config, Inputs, Limits
from components.evaluate.server import PolicyServer, log_file, policy_server, rule_counts
from components.evaluate.watch import StepLog
from components.evaluation.evaluator import Order
from components.evaluation.evaluators import find_evaluator
from components.evaluation.rollouts import (
    ROLLOUTS,
    NoResultError,
    Outcome,
    check_video,
    excerpt_of,
    load,
    save,
)
from components.plan import config as plan_config
from components.plan.stage import STAGE as PLAN
from components.runtime.processes import ChildError
from household.video import write_rollout_video
from pi_behavior.policy.config import PolicyConfig

DRIVER = """
    import sys
    sys.path.insert(0, {tests!r})
    from pathlib import Path
    from test_evaluate import Bench
    Bench(Path({folder!r})).supervisor().run()
"""


JOBS = (job((0, 1, 2, 3), videos=(3,)),)


class Bench(benchmark.Bench):
    """Four rollouts, the last one with a video."""

    limits = Limits(start=20.0, stalled=3.0, server=3.0)

    def supervisor(self, jobs=JOBS, **changes):
        return super().supervisor(jobs, **changes)

    def run(self, jobs=JOBS, **changes):
        return super().run(jobs, **changes)


@pytest.fixture
def bench(tmp_path):
    return Bench(tmp_path)


def attempts(rollouts):
    return {r.instance: r.attempts for r in rollouts}


def test_all_good(bench):
    bench.prepare({})
    rollouts = bench.run(rollouts=2)
    assert attempts(rollouts) == {301: 1, 302: 1, 303: 1, 304: 1}
    assert len(rollouts) == 8
    assert all(r.q == 0.5 for r in rollouts)
    assert [s["indices"] for s in bench.starts()] == [[0, 1, 2, 3]]
    assert {r.instance for r in rollouts if r.video} == {304}
    excerpts = [excerpt_of(Path(one.folder, one.json)).read_text() for one in rollouts]
    assert any(f"rollout {TASK}_301_0" in text for text in excerpts)
    save(rollouts, bench.output / "content" / ROLLOUTS)
    assert load(bench.output / "content" / ROLLOUTS) == rollouts


def test_faults_of_several_rollouts_of_an_instance(bench):
    bench.prepare({"302": ["SIGSEGV"]})
    rollouts = bench.run(rollouts=2)
    reruns = {(r.instance, r.key.rollout): len(r.reruns) for r in rollouts if r.reruns}
    assert reruns == {(302, 0): 1, (302, 1): 1}
    assert all(r.q == 0.5 for r in rollouts)


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
    rollouts = bench.run()
    assert attempts(rollouts) == {301: 1, 302: 2, 303: 1, 304: 1}
    assert all(r.q == 0.5 for r in rollouts)
    (reason,) = next(r for r in rollouts if r.instance == 302).reruns
    assert reason == {**OWN, **SERVERS}[fault]
    # the evaluator goes on after a result that is none; else the failed rollout comes after the others
    goes_on = fault in ("torn json", "policy failed")
    assert bench.starts()[-1]["indices"] == ([1] if goes_on else [2, 3, 1])
    # a rollout that succeeds afterwards shows that the machine works; the server's faults are never charged
    assert bench.own() == {302: [fault in OWN and not goes_on]}
    assert f"{TASK}_302_0: {reason}; it is started again" in capsys.readouterr().err


@pytest.mark.parametrize("fault", ["torn mp4", "no mp4"])
def test_a_result_needs_its_whole_video(bench, fault):
    bench.prepare({"304": [fault], "301": ["torn mp4"]})  # 301 has none
    rollouts = bench.run()
    assert attempts(rollouts) == {301: 1, 302: 1, 303: 1, 304: 2}
    (reason,) = next(r for r in rollouts if r.instance == 304).reruns
    assert reason.endswith("its video is torn" if fault == "torn mp4" else "its video is missing")
    (video,) = [bench.output / "content" / r.video for r in rollouts if r.video]
    assert video.read_bytes() == (bench.folder / "video.mp4").read_bytes()


def test_a_rollout_that_always_crashes_is_given_up(bench, capsys):
    bench.prepare({"301": ["SIGSEGV"] * 9})
    rollouts = bench.run()
    assert attempts(rollouts) == {301: 3, 302: 1, 303: 1, 304: 1}
    (lost,) = [r for r in rollouts if r.outcome is None]
    assert (lost.instance, lost.q, lost.json) == (301, 0.0, None)
    assert lost.reruns == ("signal SIGSEGV",) * 3
    # two of the faults came after all others were finished, so that one of those was done once more
    assert [s["indices"] for s in bench.starts()] == [[0, 1, 2, 3], [1, 2, 3, 0], [0], [1]]
    assert f"{TASK}_301_0 is given up and counts as 0" in capsys.readouterr().err
    save(rollouts, bench.output / "content" / ROLLOUTS)
    assert [r.q for r in load(bench.output / "content" / ROLLOUTS)] == [0.0, 0.5, 0.5, 0.5]


def test_a_server_that_often_fails_is_charged_to_nobody(bench):
    bench.prepare({"302": ["server-die"] * 5, "303": ["server-error"] * 4})
    rollouts = bench.run()
    assert all(r.q == 0.5 for r in rollouts)
    assert attempts(rollouts) == {301: 1, 302: 6, 303: 5, 304: 1}


@pytest.mark.parametrize("fault", ["SIGSEGV", "server-die"])
def test_a_machine_that_fails_makes_no_zeros(bench, fault):
    """After one rollout all others fail, and then the finished one when it is done once more."""
    bench.prepare({**{str(i): [fault] for i in range(302, 305)}, "control": [fault]})
    with pytest.raises(ChildError, match="fail one after the other, and one that had succeeded fails too"):
        bench.run((job(range(4)),))
    assert bench.own() == {302: [False], 303: [False], 304: [False]}
    finished = bench.file(301).stat().st_mtime_ns
    # the next start continues with what is finished, and those faults stay nobody's
    rollouts = bench.run((job(range(4)),))
    assert attempts(rollouts) == {301: 1, 302: 2, 303: 2, 304: 2}
    assert all(r.q == 0.5 for r in rollouts)
    assert bench.file(301).stat().st_mtime_ns == finished
    assert not any(any(own) for own in bench.own().values())


def test_nothing_finished_is_a_failure_not_a_score(bench):
    bench.prepare({str(i): ["SIGSEGV"] * 3 for i in range(301, 305)})
    with pytest.raises(ChildError, match=r"none has succeeded(.|\n)*fault SIGSEGV"):
        bench.run()
    assert not any(any(own) for own in bench.own().values())


def test_of_environments_together_the_one_that_crashes_is_found(bench):
    """A group that failed is done again in smaller ones, in the end each alone, which tells who it was."""
    bench.prepare({"302": ["SIGSEGV"] * 9})
    rollouts = bench.run((job(range(4)),), environments=4)
    starts = [(s["envs"], s["indices"]) for s in bench.starts()]
    assert all(envs == len(indices) for envs, indices in starts)
    assert [indices for _, indices in starts[:2]] == [[0, 1, 2, 3], [1, 2]]
    assert [r.instance for r in rollouts if r.outcome is None] == [302]
    own = bench.own()
    assert sum(own[302]) == 3
    assert not any(any(faults) for instance, faults in own.items() if instance != 302)
    reasons = {r.reruns[0] for r in rollouts if r.reruns}
    assert reasons == {"signal SIGSEGV, with 4 environments together"}


def test_a_result_that_is_not_understood_ends_the_stage(bench):
    bench.prepare({"302": ["unknown json"]})
    for _ in range(2):  # it is kept: the next start says the same
        with pytest.raises(UserError, match=rf"{TASK}_302_0.json is not understood: it has no 'q_score'"):
            bench.run()
    (kept,) = (bench.output / "refused").glob("*/*.json")
    assert "quality" in kept.read_text()
    assert not bench.own()
    kept.unlink()
    assert attempts(bench.run()) == {301: 1, 302: 1, 303: 1, 304: 1}


def test_an_evaluator_that_leaks_is_started_again_between_rollouts(bench, capsys):
    bench.prepare({"seconds": 0.5})
    bench.limit_memory()
    rollouts = bench.run((job(range(4)),))
    assert attempts(rollouts) == {301: 1, 302: 1, 303: 1, 304: 1}
    assert [s["indices"] for s in bench.starts()] == [[0, 1, 2, 3], [3]]
    assert "holds 120% of its memory limit" in capsys.readouterr().err
    assert not bench.own()


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
    rollouts = bench.run(edition="2025")
    assert attempts(rollouts) == {245: 1, 111: 2, 7: 1, 90: 1}
    places = {f"rollouts/common/reported/{r.name}/{r.name}" for r in rollouts}
    assert {r.json for r in rollouts} == {f"{place}.json" for place in places}
    assert [r.video for r in rollouts if r.video] == [f"rollouts/common/reported/{TASK}_90_0/{TASK}_90_0.mp4"]
    assert {(r.q, r.success, r.outcome.steps) for r in rollouts} == {(0.5, False, 10)}
    save(rollouts, bench.output / "content" / ROLLOUTS)
    assert load(bench.output / "content" / ROLLOUTS) == rollouts


def test_wrong_command_line_is_not_tried_again(bench):
    bench.prepare({"301": ["usage"] * 9})
    with pytest.raises(UserError, match=r"does not accept its command line(.|\n)*fault usage"):
        bench.run()
    assert len(bench.starts()) == 1


@pytest.mark.parametrize("voting", ["off", "oracle"])
def test_the_true_stage_is_told_where_the_policy_expects_it(bench, voting):
    bench.prepare({})
    bench.run(policy=PolicyConfig(voting=voting))
    assert [s["oracle"] for s in bench.starts()] == [voting == "oracle"]


def test_an_evaluator_that_does_not_end_is_ended(bench):
    bench.prepare({"linger": True})
    started = time.monotonic()
    rollouts = bench.run(limits=dataclasses.replace(bench.limits, closing=0.5))
    assert attempts(rollouts) == {301: 1, 302: 1, 303: 1, 304: 1}
    assert len(bench.starts()) == 1
    assert time.monotonic() - started < 30


def test_a_hang_takes_minutes_to_be_seen():
    """The official evaluator logs a step every 1,000 steps, about 67 s, and loads a scene in up to 300 s."""
    for name, edition in (("omnigibson", "2025"), ("omnigibson", "2026"), ("household", "2026")):
        limits = Limits().of(find_evaluator(name, edition))
        assert 2 * 67 < limits.stalled < 300
        assert 300 <= limits.start < 1200


def test_steps_in_a_log(tmp_path):
    path = tmp_path / "log"
    path.write_text("Current step: 1000\n")  # of an earlier process
    log = StepLog(path)
    moved = []
    for text in (
        "",
        "chat " * 99,
        "Current st",
        "ep: 1000\n",
        "again Current step: 1000\n",
        "Current step: 2000",
    ):
        with path.open("a") as file:
            file.write(text)
        moved.append(log.moved())
    assert moved == [False, False, False, True, False, True]
    assert not log.moved()


def test_server_that_does_not_start(bench):
    bench.prepare({})
    (bench.folder / "broken").touch()
    with pytest.raises(ChildError, match=r"policy server of common ended(.|\n)*cannot load the checkpoint"):
        bench.run()


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
    deadline = time.monotonic() + 60
    while len(bench.results()) < 2:
        assert time.monotonic() < deadline
        assert worker.poll() is None
        time.sleep(0.05)
    children = psutil.Process(worker.pid).children(recursive=True)
    assert len(children) == 2
    os.kill(worker.pid, signal.SIGKILL)
    worker.wait()
    _, alive = psutil.wait_procs(children, timeout=10)
    assert not alive
    finished = {path: path.stat().st_mtime_ns for path in bench.results()}
    assert 2 <= len(finished) < 4
    rollouts = bench.run()
    assert attempts(rollouts) == {301: 1, 302: 1, 303: 1, 304: 1}
    assert all(path.stat().st_mtime_ns == then for path, then in finished.items())


def test_no_such_worker():
    with pytest.raises(ValueError, match="worker is -1; expected 0 or more"):
        Config(worker=-1)


def test_policy_server_takes_its_command_line_and_mapping(tmp_path, changed_policy):
    """The words that we give are options of the real server, and the mapping has the policy's settings."""
    from pi_behavior.policy.server import _configure

    program = "import shutil, sys; shutil.copy(sys.argv[1], sys.argv[2]); sys.exit('no more')"
    mapping = tmp_path / "mapping.json"

    def command(mapping_file, port_file):
        return [sys.executable, "-c", program, str(mapping_file), str(mapping)]

    log = tmp_path / "log"
    with (
        PolicyServer("common", tmp_path, [TASK], changed_policy, command, log, 30.0) as server,
        pytest.raises(ChildError, match="no more"),
    ):
        server.ensure()
    words = policy_server(4)(mapping, Path("port"))
    assert words[1:3] == ["-m", "pi_behavior.policy.server"]
    config, entries = _configure(list(words[3:]))
    assert (config.policy, config.batch_sizes) == (changed_policy, (4,))
    assert (config.port_file, config.port) == (Path("port"), 0)
    assert [(entry.name, entry.path) for entry in entries] == [("common", tmp_path)]


def test_the_evaluator_gets_the_plans_wrapper_and_robot(tmp_path):
    own = tmp_path / "plan" / "own"
    own.mkdir(parents=True)
    (own / "mine.py").write_text("""
from pathlib import Path
class Wrapper:
    def __init__(self, robot):
        Path(__file__).with_name("seen").write_text(robot)
""")
    (own / "robot.yaml").write_text("name: robot_r1")
    bench = Bench(tmp_path / "bench")
    bench.prepare({})
    files = {"wrapper": "mine.py", "robot_config": "robot.yaml"}
    rollouts = bench.run((job((0,)),), wrapper="mine.Wrapper", own=files, files=tmp_path / "plan")
    assert [one.success for one in rollouts] == [False]
    assert (own / "seen").read_text() == "name: robot_r1"


def test_rules_are_counted_from_the_servers_logs(tmp_path):
    assert rule_counts(tmp_path) == {}
    log = log_file(tmp_path / "0", "group:best")
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
            videos=(100,),
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
    assert config.video_indices == (101,)
    assert (config.image_size, config.replay_action_chunk_size, config.output_dir) == (56, 10, tmp_path)
    assert config.oracle_stage


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"success": True}, "do not fit"),
        ({"q_score": {"final": 1.5}}, "do not fit"),
        ({"q_score": {}}, "it has no 'final'"),
        ({"q_score": 3}, "unknown form"),
        ({"instance_id": 5}, "expected"),
        ({"steps": -1}, "cannot be"),
        ({"normalized_agent_distance": {"base": 1}}, "unknown form"),
    ],
)
def test_results_that_are_not_understood(tmp_path, change, message):
    path = tmp_path / "x.json"
    path.write_text(json.dumps({**json.loads(outcome(301, 0)), **change}))
    with pytest.raises(ValueError, match=message) as raised:
        Outcome.read(path, TASK, 301, 0)
    assert raised.type is ValueError


@pytest.mark.parametrize("text", ["[]", "task: radio", "{'task': 'radio'}", '{"a": 1} {"b": 2}'])
def test_other_files_are_not_understood(tmp_path, text):
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(ValueError, match=r"it is not JSON|it holds a list") as raised:
        Outcome.read(tmp_path / "x.json", TASK, 301, 0)
    assert raised.type is ValueError


def test_a_cut_or_zeroed_result_is_none(tmp_path):
    path = tmp_path / "x.json"
    whole = json.dumps({**json.loads(outcome(301, 0)), "note": "a } brace"}).encode()
    for end in range(len(whole)):
        path.write_bytes(whole[:end])
        with pytest.raises(NoResultError, match="its JSON is torn"):
            Outcome.read(path, TASK, 301, 0)
        path.write_bytes(whole[:end] + bytes(len(whole) - end))
        with pytest.raises(NoResultError, match="its JSON is torn"):
            Outcome.read(path, TASK, 301, 0)
    path.write_bytes(whole)
    assert Outcome.read(path, TASK, 301, 0).q == 0.5


def test_a_cut_video_is_torn(tmp_path):
    path = tmp_path / "x.mp4"
    write_rollout_video(path, np.zeros((9, 32, 48, 3), np.uint8), 30)
    check_video(path)
    whole = path.read_bytes()
    for end in range(0, whole.index(b"udta") - 4, 7):  # what follows the index is the encoder's name
        path.write_bytes(whole[:end])
        with pytest.raises(NoResultError, match="its video is torn"):
            check_video(path)


def test_not_an_evaluation(tmp_path):
    with pytest.raises(UserError, match="give artifacts of the stages evaluate"):
        load(tmp_path / ROLLOUTS)
