"""Where the logs of a run come from, and what their lines say."""

import io
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from components.runtime.progress import Progress
from pipelines.cluster import run_state
from pipelines.cluster.connection import Connection
from pipelines.cluster.log_lines import progress, reason
from pipelines.cluster.logs import Kubeconfig, Logs
from pipelines.cluster.server import Server
from pipelines.cluster.workflow import read

RUN = "0f6d7a90-1c2b-4d3e-8f90-a1b2c3d4e5f6"


class Run:
    """A run on the server whose workflow changes from look to look."""

    def __init__(self, stub: Any) -> None:
        self._stub = stub
        stub.runs[RUN] = {"run_id": RUN, "display_name": "mine", "experiment_id": "experiment-0"}

    def becomes(self, *workflows: Any) -> None:
        self._stub.snapshots = [{"state": "RUNNING", "workflow": one.manifest()} for one in workflows]


@pytest.fixture
def run(stub: Any) -> Run:
    return Run(stub)


@pytest.fixture
def reached(kubernetes_stub: Any, tmp_path: Path) -> Iterator[tuple[str, ...]]:
    """Options with which pods are reached."""
    path = tmp_path / "kubeconfig"
    path.write_text(yaml.safe_dump(kubernetes_stub.kubeconfig()))
    return "--kubeconfig", str(path)


def _pod(kubernetes_stub: Any, node: str, log: str | None = None, run: str = RUN) -> None:
    name = f"pod-of-{node}"
    metadata = {
        "name": name,
        "namespace": "robots",
        "labels": {"pipeline/runid": run},
        "annotations": {"workflows.argoproj.io/node-id": node},
    }
    spec = {"containers": [{"name": "main", "image": "tool"}]}
    kubernetes_stub.put({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})
    if log is not None:
        kubernetes_stub.logs[name] = log


TRAIN = "0-root-0-train-0-executor-{}"


def test_logs_come_from_the_pods_where_they_are_reached(
    stub: Any, kubernetes_stub: Any, run: Run, reached: Any, argo: Any, b1k: Any
) -> None:
    workflow = argo.Workflow("Failed")
    workflow.task("train", "Failed", ("Failed", "pod deleted"), ("Failed", "main: Error (exit code 1)"))
    run.becomes(workflow)
    _pod(kubernetes_stub, TRAIN.format(0), "first\n")
    _pod(kubernetes_stub, TRAIN.format(1), "second\nit broke")
    _pod(kubernetes_stub, "another", "not this one", run="another")
    code, out, err = b1k("logs", RUN, *reached)
    assert (code, err) == (0, "")
    assert out.splitlines() == [
        "==> Train, attempt 1, 0-root-0-train-0-executor-retry-system-container-impl-0 <==",
        "first",
        "==> Train, attempt 2, 0-root-0-train-0-executor-retry-system-container-impl-1 <==",
        "second",
        "it broke",
    ]
    assert not [path for _, path in stub.requests if "/log" in path], "the server is not asked"
    assert "Error (exit code 1): it broke" in b1k("status", RUN, *reached)[1]


@pytest.mark.parametrize("trouble", ["gone", "forbidden", "not started", "wrong token", "nobody there"])
def test_logs_come_from_the_server_where_pods_are_not_reached(
    trouble: str, stub: Any, kubernetes_stub: Any, run: Run, reached: Any, argo: Any, b1k: Any
) -> None:
    run.becomes(argo.Workflow().task("train"))
    if trouble == "forbidden":
        kubernetes_stub.forbidden.add("pods")
    elif trouble == "not started":
        _pod(kubernetes_stub, TRAIN.format(0))
    elif trouble == "wrong token":
        kubernetes_stub.token = "another"
    elif trouble == "nobody there":
        kubernetes_stub.close()
        kubernetes_stub.close = lambda: None
    stub.logs[TRAIN.format(0)] = "from the server\n"
    code, out, err = b1k("logs", RUN, "train", *reached)
    assert (code, err) == (0, "")
    assert out.endswith("<==\nfrom the server\n")


@pytest.mark.parametrize("follow", [(), ("--follow",)])
def test_a_lost_connection_to_a_pod_that_has_ended_is_an_error(
    follow: tuple[str, ...],
    stub: Any,
    kubernetes_stub: Any,
    run: Run,
    reached: Any,
    argo: Any,
    b1k: Any,
) -> None:
    run.becomes(argo.Workflow().task("train"))
    _pod(kubernetes_stub, TRAIN.format(0), "first\nsecond\n")
    kubernetes_stub.broken.add(f"pod-of-{TRAIN.format(0)}")
    code, out, err = b1k("logs", RUN, "train", *follow, *reached)
    assert code == 2
    assert out.endswith("<==\nfirst\nsecond\n"), "what has come is shown"
    assert "the connection to the pod" in err
    assert "Try again" in err


def test_following_goes_on_after_a_lost_connection(
    stub: Any, kubernetes_stub: Any, run: Run, reached: Any, argo: Any, b1k: Any, monkeypatch: Any
) -> None:
    workflows = [
        argo.Workflow().loop("for-loop-1", "evaluate", [one] * 2) for one in ("Running", "Succeeded")
    ]
    run.becomes(workflows[0], workflows[0], workflows[1])
    pods = [node for node in workflows[0].nodes if "executor-0" in node]
    for number, node in enumerate(pods):
        _pod(kubernetes_stub, node, f"of {number}\n")
    assert len(pods) == 2
    kubernetes_stub.broken |= {f"pod-of-{node}" for node in pods}

    def mend(_: float) -> None:
        if len(stub.snapshots) == 1:
            kubernetes_stub.broken.clear()
            for number, node in enumerate(pods):
                kubernetes_stub.logs[f"pod-of-{node}"] = f"of {number}\nmore {number}\n"

    monkeypatch.setattr("pipelines.cluster.printing.time.sleep", mend)
    code, out, err = b1k("logs", RUN, "evaluate", "--follow", *reached)
    assert (code, err) == (0, "")
    assert [line for line in out.splitlines() if "==>" not in line] == ["of 0", "of 1", "more 0", "more 1"]


def test_following_waits_for_a_server_that_restarts(
    stub: Any, kfp_stub: Any, run: Run, argo: Any, b1k: Any
) -> None:
    run.becomes(argo.Workflow().task("train", "Running"), argo.Workflow().task("train"))
    stub.logs[TRAIN.format(0)] = "trained\n"

    def restart(handler: Any) -> None:
        stub.trouble("GET .*/v2beta1/runs/", (503, "upstream connect error"), times=2)
        kfp_stub.send(handler, 200, "trained\n", kind="text/plain")

    stub.trouble("GET .*/log", restart)
    code, out, err = b1k("logs", RUN, "train", "--follow", "--poll", "0.01")
    assert (code, err) == (0, "")
    assert out.endswith("<==\ntrained\n")
    assert not stub.troubles


def test_pods_that_are_gone_are_looked_for_once(
    stub: Any, kubernetes_stub: Any, reached: Any, argo: Any
) -> None:
    workflow = argo.Workflow("Failed").task("train", "Failed").task("plan", "Running")
    logs = Logs(Server(Connection(stub.host)), RUN, read(workflow.manifest()), Kubeconfig(reached[1]))
    nodes = run_state.tasks(read(workflow.manifest()), "running").nodes
    for _ in range(3):
        logs.explain(nodes["train"])
    assert len(kubernetes_stub.asked) == 1
    for _ in range(3):
        logs.explain(nodes["plan"])
    assert len(kubernetes_stub.asked) == 4, "it may begin"


def test_pods_that_are_not_ours_to_see_are_asked_for_once(
    stub: Any, kubernetes_stub: Any, reached: Any, argo: Any
) -> None:
    workflow = argo.Workflow().task("train", "Running").task("plan", "Running")
    kubernetes_stub.forbidden.add("pods")
    logs = Logs(Server(Connection(stub.host)), RUN, read(workflow.manifest()), Kubeconfig(reached[1]))
    for node in run_state.tasks(read(workflow.manifest()), "running").nodes.values():
        logs.explain(node)
    assert len(kubernetes_stub.asked) == 1


def test_a_task_is_named_as_status_shows_it(stub: Any, run: Run, argo: Any, b1k: Any) -> None:
    workflow = argo.Workflow("Failed").task("train", label="Train common")
    workflow.loop("for-loop-1", "evaluate", ["Succeeded"] * 3, label="Evaluate common")
    run.becomes(workflow)
    for node in workflow.nodes:
        stub.logs[node] = f"{node}\n"
    for name in ("Train common", "train_common", "train"):
        assert b1k("logs", RUN, name)[1].count("==>") == 1
    assert b1k("logs", RUN, "Evaluate common 2")[1].count("==>") == 1
    assert b1k("logs", RUN, "evaluate common")[1].count("==>") == 3
    code, _, err = b1k("logs", RUN, "promote")
    assert code == 2
    assert "no task 'promote' has started; started: 'Evaluate common', 'Train common'" in err


def test_before_a_workflow_there_are_no_logs(stub: Any, run: Run, b1k: Any) -> None:
    stub.runs[RUN]["state"] = "PENDING"
    assert "no task of the run" in b1k("logs", RUN)[2]


def test_following_ends_with_the_task(stub: Any, run: Run, argo: Any, b1k: Any) -> None:
    running = argo.Workflow().task("train", "Running")
    again = argo.Workflow().task("train", "Running", ("Error", "pod deleted"), ("Running", ""))
    ended = argo.Workflow().task("train", "Succeeded", ("Error", "pod deleted"), ("Succeeded", ""))
    run.becomes(running, running, again, ended)
    first, second = TRAIN.format(0), TRAIN.format(1)
    asked: list[int] = []

    def grow(handler: Any) -> None:
        asked.append(1)
        text = "".join(f"line {number}\n" for number in range(len(asked)))
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(text)))
        handler.end_headers()
        handler.wfile.write(text.encode())

    stub.trouble(f"GET .*/{first}/log", grow, times=3)
    stub.logs[second] = "again\n"
    code, out, err = b1k("logs", RUN, "--follow", "--poll", "0.01")
    assert (code, err) == (0, "")
    lines = [line for line in out.splitlines() if not line.startswith("==>")]
    assert lines == ["line 0", "line 1", "line 2", "again"], "each line once"
    assert "attempt 2" in out


def test_following_waits_for_a_task_that_has_not_begun(
    stub: Any, kubernetes_stub: Any, run: Run, reached: Any, argo: Any, b1k: Any
) -> None:
    run.becomes(
        argo.Workflow().task("train", "", driver="Running"),
        argo.Workflow().task("train", "Running", ("Pending", "ContainerCreating")),
        argo.Workflow().task("train"),
    )
    _pod(kubernetes_stub, TRAIN.format(0), "trained\n")
    code, out, _ = b1k("logs", RUN, "train", "--follow", "--poll", "0.01", *reached)
    assert code == 0
    assert out.endswith("<==\ntrained\n")


def test_following_a_loop_takes_in_items_that_begin_later(stub: Any, run: Run, argo: Any, b1k: Any) -> None:
    looks = (["Running"], ["Succeeded", "Running"], ["Succeeded", "Succeeded"])
    workflows = [
        argo.Workflow().loop("for-loop-1", "evaluate", one, total=2, label="Evaluate") for one in looks
    ]
    run.becomes(*workflows)
    for node in workflows[-1].nodes:
        stub.logs[node] = f"{node}\n"
    code, out, _ = b1k("logs", RUN, "evaluate", "--follow", "--poll", "0.01")
    assert code == 0
    assert [line.split(",")[0] for line in out.splitlines()[::2]] == ["==> Evaluate 0", "==> Evaluate 1"]


@given(
    st.text(st.characters(codec="ascii", exclude_categories=["C"]), min_size=1).map(str.strip).filter(bool),
    st.integers(1, 10**6),
    st.floats(0.01, 0.99),
    st.floats(2, 10**6),
    st.sampled_from(["", "loss 0.41", "task 1, instance 2"]),
)
def test_progress_is_read_as_it_is_written(
    description: str, total: int, share: float, elapsed: float, note: str
) -> None:
    now = 0.0
    stream = io.StringIO()
    task = Progress(stream, clock=lambda: now, line_interval=0).task(description, total)
    now = elapsed
    task.update(completed=max(1, int(share * total)), note=note)
    found = progress(stream.getvalue().splitlines())
    assert found["completed"] == task.completed
    assert (found["description"], found["total"], found["note"]) == (description, total, note)
    assert (found["left"] is None) == (task.left is None)
    assert task.left is None or abs(found["left"] - task.left) <= 0.5


def test_lines_that_are_no_progress() -> None:
    assert (
        progress(["I1127 21:01:08.557194 16 main.go:67] level: 4", "loaded 7 files", "", "done in 3 s"]) == {}
    )
    assert progress(["epoch 1/2 (50 %)", "saved"])["completed"] == 1


def test_the_reason_is_the_last_line_of_the_program() -> None:
    assert (
        reason(["one", "ValueError:  two\t", "E1127 21:01:08.991889 16 launcher_v2.go:449] exit"])
        == "ValueError: two"
    )
    assert reason(["one", "F1127 21:01:09.004168      16 main.go:59] failed: exit status 2"]) == "one"
    assert reason(["I1127 21:01:09.004168      16 main.go:59] level: 4"]) == ""
    assert reason([]) == ""


def test_a_launcher_or_driver_that_failed_says_why() -> None:
    uploading = "F1127 21:01:09.004168      16 main.go:59] failed to upload  the output: no such bucket"
    assert reason(["train: done: /workspace/x", uploading]) == "failed to upload the output: no such bucket"
    killed = "F1127 21:01:09.004168      16 main.go:59] failed to execute component: signal: killed"
    assert reason([killed]) == "failed to execute component: signal: killed", "the program has said nothing"


GIVEN_UP = "attempt 2 of 2 ended with {}; given up"
FULL = "attempt 2 is ended: it holds 96% of the pod's memory limit, where the kernel would kill the pod"


@pytest.mark.parametrize(
    ("program", "expected"),
    [
        ("print('step 7'); sys.exit('no space left on the disk')", "no space left on the disk"),
        ("sys.exit(75)", GIVEN_UP.format("exit code 75")),
        ("print('step 7'); os.kill(os.getpid(), 9)", GIVEN_UP.format("signal SIGKILL")),
        (f"print({FULL!r}); print('saved'); os.kill(os.getpid(), 15)", FULL),
        (f"print({FULL.replace('2', '1')!r}); os.kill(os.getpid(), 11)", GIVEN_UP.format("signal SIGSEGV")),
    ],
)
def test_the_reason_of_a_stage_that_was_given_up_is_what_it_said(program: str, expected: str) -> None:
    command = [sys.executable, "-c", f"import os, sys; {program}"]
    code = f"from components.runtime.attempts import run; run({command!r}, 2, pause=0.01)"
    done = subprocess.run(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=True
    )
    assert "given up" in done.stdout
    assert reason(done.stdout.splitlines()) == expected
