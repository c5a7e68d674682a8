"""Child processes: they end with us, are stopped for good, and errors show their log."""

import os
import signal
import subprocess
import sys
import textwrap
import time

import psutil
import pytest

from components.runtime.processes import Child, ChildError, describe_exit, is_healthy, log_tail, read_port


def python(code: str) -> list[str]:
    return [sys.executable, "-c", textwrap.dedent(code)]


def wait_gone(pid: int, seconds: float = 10.0) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
            return True
        time.sleep(0.05)
    return False


def test_child_dies_when_its_parent_is_killed(tmp_path):
    parent = subprocess.Popen(
        python(
            f"""
            import sys, time
            from pathlib import Path
            from components.runtime.processes import Child
            command = [sys.executable, "-c", "import time; time.sleep(100)"]
            child = Child("sleeper", command, Path("{tmp_path}/log"))
            print(child.pid, flush=True)
            time.sleep(100)
            """
        ),
        stdout=subprocess.PIPE,
        text=True,
    )
    with parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert psutil.pid_exists(pid)
        os.kill(parent.pid, signal.SIGKILL)
    assert wait_gone(pid)


def test_stop_is_polite_first(tmp_path):
    code = """
    import signal, sys, time
    signal.signal(signal.SIGTERM, lambda *_: (print("bye"), sys.exit(0)))
    print("ready", flush=True)
    time.sleep(100)
    """
    with Child("polite", python(code), tmp_path / "log") as child:
        child.wait_until(lambda: "ready" in (tmp_path / "log").read_text() or None, 20)
    assert child.poll() == 0
    assert "bye" in (tmp_path / "log").read_text()


def test_stop_kills_what_ignores_it_and_its_own_children(tmp_path):
    code = """
    import signal, subprocess, sys, time
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    grandchild = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(100)"])
    print(grandchild.pid, flush=True)
    time.sleep(100)
    """
    log = tmp_path / "log"
    child = Child("stubborn", python(code), log)
    child.wait_until(lambda: log.read_text().endswith("\n") or None, 20)
    child.stop(grace=0.3)
    assert child.poll() == -signal.SIGKILL
    assert wait_gone(int(log.read_text()))
    child.stop()  # once more does nothing


def test_end_before_ready_shows_the_log(tmp_path):
    log = tmp_path / "log"
    log.write_text("an earlier run\n")
    child = Child("server", python("print('no such checkpoint'); raise SystemExit(3)"), log)
    with (
        child,
        pytest.raises(ChildError, match=r"server ended with exit code 3(.|\n)*no such checkpoint") as error,
    ):
        child.wait_until(lambda: None, 20)
    assert "earlier" not in str(error.value)


def test_not_ready_in_time(tmp_path):
    with (
        Child("server", python("import time; time.sleep(100)"), tmp_path / "log") as child,
        pytest.raises(ChildError, match=r"not ready after 0 s; its log .* is empty"),
    ):
        child.wait_until(lambda: None, 0.3)


def test_missing_program(tmp_path):
    with pytest.raises(ChildError, match="cannot start '/no/such/program'"):
        Child("tool", ["/no/such/program"], tmp_path / "log")


def test_helpers(tmp_path):
    assert describe_exit(-signal.SIGSEGV) == "signal SIGSEGV"
    assert describe_exit(1) == "exit code 1"
    port = tmp_path / "port"
    assert read_port(port) is None
    port.write_text("80")
    assert read_port(port) is None
    port.write_text("8000\n")
    assert read_port(port) == 8000
    assert not is_healthy("127.0.0.1", 9)
    (tmp_path / "log").write_text("start\n 1%\r 2%\r 3%\nend\n")
    assert log_tail(tmp_path / "log", 2).endswith(" 3%\n    end")
