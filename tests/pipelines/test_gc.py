"""The command `b1k gc`: what it says, and that it removes only when asked to."""

import importlib.util
import os
import time
from pathlib import Path

import pytest

from components.errors import UserError
from components.store.making import exclusive, lock_of
from pipelines.tools.garbage import Options, run

HELPER = Path(__file__).parents[1] / "components" / "store" / "small_artifacts.py"
_spec = importlib.util.spec_from_file_location("small_artifacts", HELPER)
_artifacts = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_artifacts)


def test_lists_first_and_removes_when_asked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old, held = (
        _artifacts.make(tmp_path, text, content=text * 2000, days_old=40) for text in ("old", "held")
    )
    base = _artifacts.make(tmp_path, "base", days_old=40)
    new = _artifacts.make(tmp_path, "new", base)
    assert run(Options(tmp_path)) == 0
    listed = capsys.readouterr().out
    for artifact in (old, held):
        assert f"kB  {artifact.uri}  (last used " in listed
        assert artifact.path.is_dir()
    assert base.uri not in listed
    assert "1 kept: used or made since" in listed
    assert "1 kept: what those were made from" in listed
    assert "--delete would free 4" in listed

    with exclusive(lock_of(held.path), "waiting"):
        os.utime(lock_of(held.path), (time.time() - 90 * 86400,) * 2)
        assert run(Options(tmp_path, days=39, delete=True)) == 0
    said = capsys.readouterr().out
    assert "(stays: in use)" not in said
    assert old.path.is_dir()  # a run that began 90 days ago may use it

    assert run(Options(tmp_path, delete=True)) == 0
    assert "freed 4" in capsys.readouterr().out
    assert not old.path.exists()
    assert not held.path.exists()
    assert new.path.is_dir()
    assert base.path.is_dir()


def test_mistakes_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="expected 0 or more"):
        Options(tmp_path, days=-1)
    with pytest.raises(UserError, match="has no artifacts"):
        run(Options(tmp_path))
