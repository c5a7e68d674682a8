"""The tree of tasks from events, and how it is shown."""

import io

import pytest

from pipelines.definitions.compiling import compile_pipeline
from pipelines.display import Display
from pipelines.tree import CACHED, CANCELLED, DONE, FAILURE, SKIPPED, STARTED, WAITING, Node, Tasks, Tree


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> dict:
    return compile_pipeline("train_and_evaluate", "smoke", tmp_path_factory.mktemp("ir") / "pipeline.yaml")


@pytest.fixture
def tree(spec: dict) -> Tree:
    return Tree(spec)


def _start(tree: Tree, task: str, time: float, detail: str = "") -> None:
    tree.update({"time": time, "task": task, "event": "started", "log": "/l", "detail": detail})


def _finish(tree: Tree, task: str, time: float, code: int = 0, cached: bool = False) -> None:
    event = {"time": time, "task": task, "event": "finished", "code": code, "cached": cached}
    tree.update({**event, "artifact": f"artifacts/{task}"})


def test_a_task_waits_runs_and_is_done(tree: Tree) -> None:
    node = tree.nodes["dataset"]
    assert node.state == WAITING
    _start(tree, "dataset", 10.0)
    assert node.state == STARTED
    _finish(tree, "dataset", 14.0)
    assert (node.state, node.seconds(99.0), node.artifact) == (DONE, 4.0, "artifacts/dataset")


def test_a_loop_has_the_state_of_its_iterations(tree: Tree) -> None:
    loop = tree.nodes["for-loop-1"]
    for index in (0, 1):
        _start(tree, f"for-loop-1-iteration-{index}/evaluate", 10.0 + index, f"worker {index}")
    assert [child.label for child in loop.children.values()] == ["worker 0", "worker 1"]
    _finish(tree, "for-loop-1-iteration-0/evaluate", 20.0)
    assert loop.state == STARTED
    _finish(tree, "for-loop-1-iteration-1/evaluate", 30.0)
    _start(tree, "group", 31.0)
    assert (loop.state, loop.seconds(99.0)) == (DONE, 20.0)


def test_between_iterations_a_loop_still_runs(tree: Tree) -> None:
    _start(tree, "for-loop-2-iteration-0/train-2", 10.0, "best")
    _finish(tree, "for-loop-2-iteration-0/train-2", 20.0)
    assert tree.nodes["for-loop-2"].state == STARTED


def test_a_cached_loop_and_a_failed_one(tree: Tree) -> None:
    _start(tree, "for-loop-1-iteration-0/evaluate", 1.0)
    _finish(tree, "for-loop-1-iteration-0/evaluate", 2.0, cached=True)
    assert tree.nodes["for-loop-1"].state == CACHED
    _start(tree, "for-loop-2-iteration-0/train-2", 3.0)
    _finish(tree, "for-loop-2-iteration-0/train-2", 4.0, code=1)
    assert tree.nodes["for-loop-2"].state == FAILURE
    assert [node.key for node in tree.failures()] == ["for-loop-2-iteration-0/train-2"]


def test_the_end_of_a_run_closes_what_was_open(tree: Tree) -> None:
    _start(tree, "dataset", 1.0)
    _finish(tree, "dataset", 2.0)
    _start(tree, "statistics", 3.0)
    tree.update(
        {"time": 8.0, "task": "statistics", "description": "x", "completed": 1, "total": 2, "note": ""}
    )
    tree.close()
    states = {key: node.state for key, node in tree.nodes.items()}
    assert (states["dataset"], states["statistics"], states["train"]) == (DONE, FAILURE, SKIPPED)
    assert tree.nodes["statistics"].seconds(1e9) == 5.0, "until the last that was heard of it"


def test_events_of_other_tasks_are_left_out(tree: Tree) -> None:
    assert tree.update({"time": 1.0, "task": "someone-else", "event": "started", "log": ""}) is None


def test_the_tree_shows_progress_and_text_as_it_is(tree: Tree) -> None:
    stream = io.StringIO()
    display = Display(tree, "title", stream)
    _start(tree, "train", 1.0)
    event = {"time": 2.0, "task": "train", "description": "steps", "completed": 5, "total": 10}
    tree.update({**event, "note": "loss [bold]0.5"})
    display.console.print(display.render())
    shown = stream.getvalue()
    for text in ("Train common", "steps", "5/10", "loss [bold]0.5", "Promote", "waiting"):
        assert text in shown


def test_without_a_terminal_progress_lines_are_rare(tree: Tree) -> None:
    stream = io.StringIO()
    with Display(tree, "title", stream) as display:
        _start(tree, "train", 1.0)
        display.changed(tree.nodes["train"], "started")
        for step in range(50):
            node = tree.update(
                {"time": 2.0, "task": "train", "description": "s", "completed": step, "total": 50, "note": ""}
            )
            display.changed(node, "progress")
    assert len(stream.getvalue().splitlines()) == 3


def test_a_terminal_gets_a_live_tree_and_no_lines(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setenv("TERM", "xterm")
    stream = Terminal()
    with Display(tree, "title", stream) as display:
        _start(tree, "dataset", 1.0)
        display.changed(tree.nodes["dataset"], "started")
        _finish(tree, "dataset", 2.0)
    assert "\x1b[" in stream.getvalue()
    assert "Dataset: running" not in stream.getvalue()


def test_states_are_said_with_their_reasons() -> None:
    stream = io.StringIO()
    display = Display(Tasks(), "title", stream)
    for state, fields, said in (
        (WAITING, {"message": "no node fits"}, "waiting: no node fits"),
        (
            STARTED,
            {"started": 1e10, "attempt": 2, "message": "attempt 1 failed"},
            "attempt 2 (attempt 1 failed)",
        ),
        (DONE, {"started": 1.0, "ended": 61.0, "count": "2 of 2"}, "done 1:00, 2 of 2"),
        (FAILURE, {"started": 1.0, "ended": 6.0, "message": "it broke"}, "failed after 0:05: it broke"),
        (FAILURE, {"message": "refused"}, "failed: refused"),
        (CANCELLED, {"started": 1.0, "ended": 6.0}, "cancelled after 0:05"),
        (SKIPPED, {"started": 1.0, "message": "its condition is false"}, "skipped: its condition is false"),
    ):
        display.changed(Node("task", "Task", state, **fields), state)
        assert stream.getvalue().splitlines()[-1].endswith(said)


def test_of_many_iterations_those_are_shown_that_matter() -> None:
    loop = Node("loop", "Loop", STARTED, is_loop=True)
    states = [DONE] * 20 + [FAILURE, STARTED, WAITING]
    loop.children = {str(n): Node(str(n), f"item {n}", state) for n, state in enumerate(states)}
    loop.children["3"].message = "attempt 1 failed"
    tasks, stream = Tasks(), io.StringIO()
    tasks.nodes["loop"] = loop
    display = Display(tasks, "title", stream)
    display.console.print(display.render())
    assert [line.split()[3] for line in stream.getvalue().splitlines() if "item" in line] == ["3", "20", "21"]
