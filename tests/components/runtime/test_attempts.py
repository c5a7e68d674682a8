"""A stage that crashes is started again: by real processes, with real signals."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from components.runtime.attempts import memory_share

LIMIT = 2**30
DRIVER = """
    import sys
    from pathlib import Path
    from components.runtime.attempts import run
    command = [sys.executable, "-c", sys.argv[1]]
    sys.exit(run(command, 4, pause=float(sys.argv[2]), cgroup=Path("cgroup")))
"""
# appends the number of its attempt to the file `log`
PROGRAM = """
    import os, signal, sys, time
    attempt = int(os.environ["B1K_ATTEMPT"])
    with open("log", "a") as log:
        log.write(f"{attempt}\\n")
"""


def _start(folder: Path, program: str, pause: float = 0.05) -> "subprocess.Popen[str]":
    code = textwrap.dedent(PROGRAM) + textwrap.dedent(program)
    command = [sys.executable, "-c", textwrap.dedent(DRIVER), code, str(pause)]
    return subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def _run(folder: Path, program: str) -> tuple[int, int, str]:
    """The exit code, how often the program was started, and what was printed."""
    with _start(folder, program) as process:
        printed, errors = process.communicate(timeout=60)
    return process.returncode, len((folder / "log").read_text().split()), printed + errors


def _wait(condition: Callable[[], Any], seconds: float = 30.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.02)


@pytest.mark.parametrize(
    "crash", ["sys.exit(1)", "sys.exit(75)", "os._exit(77)", "os.kill(os.getpid(), signal.SIGSEGV)"]
)
def test_a_crash_is_followed_by_another_attempt(crash: str, tmp_path: Path) -> None:
    code, starts, said = _run(tmp_path, f"if attempt == 1: {crash}\nprint('done by', attempt)")
    assert (code, starts) == (0, 2)
    assert "attempt 1 of 4 ended with " in said
    assert "done by 2" in said


@pytest.mark.parametrize("code", [0, 2, 130])
def test_an_end_that_another_attempt_would_not_change_is_the_end(code: int, tmp_path: Path) -> None:
    assert _run(tmp_path, f"sys.exit({code})")[:2] == (code, 1)


@pytest.mark.parametrize(
    ("end", "code", "starts"),
    [("sys.exit(75)", 75, 4), ("os.kill(os.getpid(), signal.SIGKILL)", 137, 4), ("sys.exit(1)", 1, 2)],
)
def test_attempts_come_to_an_end(end: str, code: int, starts: int, tmp_path: Path) -> None:
    found = _run(tmp_path, end)
    assert found[:2] == (code, starts)
    assert found[2].rstrip().endswith("given up")


def test_pauses_grow(tmp_path: Path) -> None:
    said = _run(tmp_path, "sys.exit(75)")[2]
    assert [line.split("begins in ")[1].split()[0] for line in said.splitlines() if "begins" in line] == [
        "0",
        "0",
        "1",
    ]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_reaches_the_program_and_ends_it_for_good(number: signal.Signals, tmp_path: Path) -> None:
    program = """
    def told(number, frame):
        print("told", number, flush=True)
        sys.exit(9)
    signal.signal(signal.SIGTERM, told)
    signal.signal(signal.SIGINT, told)
    open("ready", "w").close()
    time.sleep(100)
    """
    with _start(tmp_path, program) as process:
        _wait((tmp_path / "ready").exists)
        process.send_signal(number)
        printed, _ = process.communicate(timeout=30)
    assert (process.returncode, printed) == (9, f"told {number}\n")
    assert (tmp_path / "log").read_text() == "1\n"


def test_a_signal_in_a_pause_ends_it(tmp_path: Path) -> None:
    with _start(tmp_path, "sys.exit(75)", pause=500) as process:
        assert process.stderr is not None
        assert "the next begins in 500 s" in process.stderr.readline()
        process.terminate()
        assert process.wait(30) == 128 + signal.SIGTERM
    assert (tmp_path / "log").read_text() == "1\n"


def test_a_killed_parent_takes_the_program_along(tmp_path: Path) -> None:
    program = "open('pid', 'w').write(f'{os.getpid()}\\n')\ntime.sleep(100)"
    with _start(tmp_path, program) as process:
        _wait(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text().endswith("\n"))
        pid = int((tmp_path / "pid").read_text())
        assert psutil.pid_exists(pid)
        process.kill()
    _wait(lambda: not psutil.pid_exists(pid))


def _group(folder: Path, version: int, used: int, limit: str, **stat: int) -> Path:
    """A control group's figures; what they mean is in the kernel's cgroup-v1/memory.rst and cgroup-v2.rst."""
    place = folder if version == 2 else folder / "memory"
    place.mkdir(parents=True, exist_ok=True)
    names = {2: ("memory.current", "memory.max"), 1: ("memory.usage_in_bytes", "memory.limit_in_bytes")}
    texts = {names[version][1]: limit, "memory.stat": "".join(f"{name} {n}\n" for name, n in stat.items())}
    for name, text in {**texts, names[version][0]: f"{used}\n"}.items():
        (place / f".{name}").write_text(text)
        (place / f".{name}").replace(place / name)
    return folder


def test_memory_that_the_kernel_can_free_does_not_count(tmp_path: Path) -> None:
    assert memory_share(tmp_path / "none") == 0.0
    assert memory_share(_group(tmp_path / "a", 2, LIMIT, "max\n", anon=LIMIT)) == 0.0
    stat = {"anon": LIMIT // 4, "file": LIMIT // 2, "shmem": LIMIT // 8, "slab_reclaimable": LIMIT // 8}
    two = _group(tmp_path / "b", 2, 7 * LIMIT // 8, f"{LIMIT}\n", **stat)
    assert memory_share(two) == 3 / 8
    assert memory_share(_group(tmp_path / "c", 1, LIMIT // 2, f"{2**63 - 4096}\n", cache=0)) < 1e-6
    old = {"cache": 7, "total_cache": LIMIT // 2, "total_shmem": LIMIT // 8}
    assert memory_share(_group(tmp_path / "d", 1, LIMIT, f"{LIMIT}\n", **old)) == 5 / 8


def test_a_program_that_fills_the_memory_is_started_again(tmp_path: Path) -> None:
    group = tmp_path / "cgroup"
    _group(group, 2, LIMIT // 2, f"{LIMIT}\n", file=0)
    with _start(tmp_path, "if attempt == 1:\n    open('ready', 'w').close()\n    time.sleep(100)") as process:
        _wait((tmp_path / "ready").exists)
        _group(group, 2, LIMIT, f"{LIMIT}\n", file=LIMIT // 25)
        assert process.stderr is not None
        assert "attempt 1 is ended: it holds 96% of the pod's memory limit" in process.stderr.readline()
        _group(group, 2, LIMIT // 2, f"{LIMIT}\n", file=0)
        assert "attempt 1 of 4 ended with signal SIGTERM" in process.stderr.readline()
        assert process.wait(30) == 0
    assert (tmp_path / "log").read_text() == "1\n2\n"


STAGE = """
    import os
    from pathlib import Path
    from dataclasses import dataclass
    from components.runtime.declaration import Declaration
    from components.runtime.stage import Result, Stage

    @dataclass(frozen=True)
    class Config:
        "none"

    @dataclass(frozen=True)
    class Inputs:
        "none"

    def run(config, inputs, work):
        "Crashes where there is a file `crash`, once."
        (work.path / "mine").write_text("x")
        parent = Path(f"/proc/{os.getppid()}/cmdline").read_text().split("\\0")
        Path("parent").write_text(" ".join(parent))
        if Path("crash").exists():
            Path("crash").unlink()
            raise ConnectionResetError("the server is gone")
        return Result(metrics={"q": 0.5})

    Stage(Declaration("shared", Config, Inputs), run).main()
"""


@pytest.mark.parametrize(
    ("variables", "attempts"),
    [
        ({"B1K_ATTEMPTS": "3"}, 2),
        ({"B1K_ATTEMPTS": "3", "JAX_COORDINATOR_ADDRESS": "localhost:1"}, 0),
        ({}, 0),
    ],
    ids=["cluster", "one of several processes", "local"],
)
def test_a_task_of_a_cluster_tells_its_attempts(
    variables: dict[str, str], attempts: int, tmp_path: Path
) -> None:
    (tmp_path / "stage.py").write_text(textwrap.dedent(STAGE))
    (tmp_path / "crash").touch()
    request = {
        "inputs": {"parameterValues": {"sections": "shared", "run_id": "r", "task_id": "1"}},
        "outputs": {
            "artifacts": {
                "artifact_metrics": {"artifacts": [{"name": "m", "uri": str(tmp_path / "metrics")}]}
            },
            "outputFile": str(tmp_path / "output.json"),
        },
    }
    words = ["--executor-input", json.dumps(request), "--workspace", str(tmp_path / "w")]
    done = subprocess.run(
        [sys.executable, "stage.py", *words],
        cwd=tmp_path,
        env={**os.environ, **variables},
        umask=0,
        capture_output=True,
        text=True,
        check=False,
    )
    parent = (tmp_path / "parent").read_text()
    assert ("components.runtime.attempts" in parent) == bool(attempts)
    assert "ConnectionResetError: the server is gone" in done.stderr
    if not attempts:
        assert done.returncode == os.EX_TEMPFAIL
        return
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "metrics").read_text()) == {"q": 0.5, "attempts": attempts}
    (statement,) = tmp_path.glob("w/artifacts/shared/*/lineage.json")
    run = json.loads(statement.read_text())["predicate"]["runDetails"]["metadata"]
    assert (run["b1k_attempts"], run["invocationId"]) == (attempts, "r/1")
    assert "attempts" not in (statement.parent / "result.json").read_text()
    assert not [path for path in tmp_path.glob("w/**/*") if path.stat().st_mode & 0o027]
