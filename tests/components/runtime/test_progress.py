"""Progress: bars, plain lines, events."""

import io
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.runtime.progress import Progress, append_json_line, format_count, format_seconds


class Clock:
    def __init__(self) -> None:
        self.time = 0.0

    def __call__(self) -> float:
        return self.time


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def _events(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_plain_lines_are_rate_limited_and_end_with_the_last_state() -> None:
    stream, clock = io.StringIO(), Clock()
    progress = Progress(stream, clock=clock, line_interval=10.0)
    for _ in progress.track(range(100), "steps"):
        clock.time += 1.0
    lines = stream.getvalue().splitlines()
    assert lines[0] == "steps 0/100 (0%)"
    assert lines[-1] == "steps 100/100 (100%)"
    assert 10 <= len(lines) <= 13


def test_a_line_says_how_long_is_left_and_the_note() -> None:
    clock = Clock()
    task = Progress(io.StringIO(), clock=clock).task("steps", 100)
    clock.time = 60.0
    task.update(completed=25, note="loss 0.5")
    assert task.line() == "steps 25/100 (25%), 3:00 left, loss 0.5"


def test_events_are_rate_limited_and_keep_the_first_and_last_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, path = Clock(), tmp_path / "events.jsonl"
    monkeypatch.setenv("B1K_EVENTS", str(path))
    monkeypatch.setenv("B1K_TASK", "train")
    progress = Progress(io.StringIO(), clock=clock, event_interval=0.5)
    with progress.task("steps", 1000) as task:
        for step in range(1000):
            clock.time += 0.01
            task.advance(note=f"loss {step}")
    events = _events(path)
    assert events[-1].keys() == {"time", "task", "description", "completed", "total", "left", "note"}
    assert (events[0]["completed"], events[-1]["completed"]) == (0, 1000)
    assert (events[-1]["note"], events[-1]["left"]) == ("loss 999", None)
    assert {event["task"] for event in events} == {"train"}
    assert any(event["left"] == pytest.approx(5, abs=0.5) for event in events)
    assert 18 <= len(events) <= 23


def test_argo_is_told_in_whole_numbers_of_which_the_first_is_never_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = tmp_path / "progress"
    monkeypatch.setenv("ARGO_PROGRESS_FILE", str(told))
    progress = Progress(io.StringIO(), line_interval=0)
    with progress.task("frames"):
        assert not told.exists(), "without a total there is nothing that Argo could show"
    umask = os.umask(0o027)  # as stages set it
    try:
        with progress.task("steps", 7.5) as task:
            for completed, said in ((0, "0/8"), (3.9, "3/8"), (9, "8/8")):
                task.update(completed)
                assert told.read_text() == f"{said}\n"
    finally:
        os.umask(umask)
    assert told.stat().st_mode & 0o777 == 0o644, "Argo reads it as another user"
    monkeypatch.setenv("ARGO_PROGRESS_FILE", str(told / "not a folder" / "progress"))
    stream = io.StringIO()
    Progress(stream).task("steps", 2).close()
    assert stream.getvalue() == "steps 0/2 (0%)\n" * 2, "the work goes on"


def test_the_total_may_be_known_late() -> None:
    with Progress(io.StringIO()).task("shards") as task:
        assert task.line() == "shards 0"
        task.update(completed=3, total=4)
        assert task.line() == "shards 3/4 (75%)"


def test_a_terminal_gets_a_bar_that_ends_with_the_last_task() -> None:
    stream = Terminal()
    progress = Progress(stream)
    with progress.task("decode [b]", 2) as first, progress.task("other", 2):
        first.advance(2, note="[red]")
    shown = stream.getvalue()
    assert "decode [b]" in shown
    assert "[red]" in shown  # text, not markup
    assert "2/2" in shown
    assert shown.count("\x1b[?25h") == 1, "the cursor is back once"


def test_a_closed_task_says_nothing_more() -> None:
    stream = io.StringIO()
    task = Progress(stream).task("steps", 2)
    task.close()
    before = stream.getvalue()
    task.advance()
    task.close()
    assert stream.getvalue() == before


def test_threads_count_together() -> None:
    task = Progress(io.StringIO()).task("steps", 4000)
    threads = [threading.Thread(target=lambda: [task.advance() for _ in range(1000)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert task.completed == 4000


def test_processes_append_whole_lines_to_one_file(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    program = (
        "from pathlib import Path\nimport sys\nfrom components.runtime.progress import append_json_line\n"
        "for i in range(300): append_json_line(Path(sys.argv[1]), {'who': sys.argv[2], 'text': 'x' * 500})"
    )
    processes = [subprocess.Popen([sys.executable, "-c", program, str(path), who]) for who in "ab"]
    assert [process.wait() for process in processes] == [0, 0]
    whose = [event["who"] for event in _events(path)]
    assert (whose.count("a"), whose.count("b")) == (300, 300)


def test_a_line_that_json_cannot_hold_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        append_json_line(tmp_path / "events.jsonl", {"completed": float("nan")})


@given(st.integers(0, 10**6))
def test_seconds_read_back(seconds: int) -> None:
    parts = [int(part) for part in format_seconds(seconds).split(":")]
    assert sum(part * 60**place for place, part in enumerate(reversed(parts))) == seconds


@pytest.mark.parametrize(("value", "text"), [(3, "3"), (12000.0, "12,000"), (0.5, "0.5")])
def test_counts(value: float, text: str) -> None:
    assert format_count(value) == text
