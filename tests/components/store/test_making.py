"""Locks across processes, and publishing that a kill at any point cannot break."""

import errno
import fcntl
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from components.errors import UserError
from components.store.lineage import verify
from components.store.making import exclusive, is_held, lock_of, partial_of, publish, supports_locks

HOLDER = """
import sys
from pathlib import Path
from components.store.making import exclusive
with exclusive(Path(sys.argv[1]), "waiting"):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path: Path):
    """A process that holds a lock until its standard input ends."""
    lock = tmp_path / "artifacts" / "x.lock"
    command = [sys.executable, "-c", HOLDER, str(lock)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "held\n"
        yield lock, process


def test_second_waits_and_says_for_whom(holder, capsys: pytest.CaptureFixture[str]) -> None:
    lock, process = holder
    assert is_held(lock)
    with exclusive(lock, None) as ours:
        assert not ours
    threading.Timer(0.3, process.stdin.close).start()
    with exclusive(lock, "train: waiting") as ours:
        assert ours
        said = json.loads(lock.read_text())
        assert said["pid"] == os.getpid()
        assert said.keys() == {"host", "pid", "since"}
    text = capsys.readouterr().out
    assert text.startswith("train: waiting (")
    assert f'"pid": {process.pid}' in text
    assert not is_held(lock)


def test_kill_frees_the_lock(holder, capsys: pytest.CaptureFixture[str]) -> None:
    lock, process = holder
    process.kill()
    process.wait()
    with exclusive(lock, "waiting"):
        pass
    assert capsys.readouterr().out == ""


def test_lock_file_that_its_holder_removed_is_not_shared(tmp_path: Path) -> None:
    lock = tmp_path / "x.lock"
    with exclusive(lock, "first"):
        entered = threading.Event()

        def wait() -> None:
            with exclusive(lock, "second"):
                assert is_held(lock)
                entered.set()

        thread = threading.Thread(target=wait)
        thread.start()
        assert not entered.wait(0.3)
        lock.unlink()
    thread.join()
    assert entered.is_set()
    assert lock.exists()


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL])
def test_file_system_without_locks_is_named(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(file: object, how: int) -> None:
        raise OSError(number, os.strerror(number))

    assert supports_locks(tmp_path)
    monkeypatch.setattr(fcntl, "flock", refuse)
    assert not supports_locks(tmp_path)
    with pytest.raises(UserError, match=f"{tmp_path} has no file locks .*local_lock=flock.*b1k doctor"):  # noqa: SIM117
        with exclusive(tmp_path / "x.lock", "waiting"):
            pass


def test_other_errors_of_locks_are_not_hidden(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(file: object, how: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(fcntl, "flock", fail)
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        supports_locks(tmp_path)


def _fill(partial: Path) -> None:
    (partial / "sub").mkdir(parents=True)
    for name in ("a", "sub/b", ".c.77.partial"):
        (partial / name).write_text(name)


def _statement(digest: str) -> dict:
    return {
        "subject": [{"name": "x", "digest": {"sha256": digest}}],
        "predicate": {"buildDefinition": {"resolvedDependencies": []}},
    }


def test_publishing_survives_a_kill_at_any_point(killed_at, tmp_path: Path) -> None:
    points = 0
    while True:
        final = tmp_path / f"x{points}"
        partial = partial_of(final)
        _fill(partial)
        killed = killed_at(points, lambda: publish(partial, final, _statement))  # noqa: B023
        assert final.exists() != partial.exists()
        if not final.exists():
            publish(partial, final, _statement)
        assert verify(final) == ([final], [])
        names = {p.relative_to(final).as_posix() for p in final.rglob("*")}
        assert names == {"a", "sub", "sub/b", "lineage.json", "SHA256SUMS"}
        if not killed:
            break
        points += 1
    assert points > 15


def test_names_of_an_artifacts_neighbours(tmp_path: Path) -> None:
    assert partial_of(tmp_path / "0a").name == "0a.partial"
    assert lock_of(tmp_path / "0a").name == "0a.lock"
