"""Garbage collection: what anything needs stays, what nothing needs goes, and never by half."""

import json
import os
import shutil
import time
from dataclasses import replace
from pathlib import Path

import pytest

from components.errors import UserError
from components.runtime.outcomes import recorder
from components.statistics.reading import Cache, Sums
from components.store.artifact import Artifact
from components.store.garbage import Survey, remove, survey
from components.store.lineage import Dependency, verify
from components.store.making import exclusive, lock_of, partial_of

OLD = 100.0


def _survey(workspace: Path, days: float = 30, champions: int = 3, running: float | None = None) -> Survey:
    return survey(workspace, time.time(), days=days, champions=champions, running_since=running)


def _goes(workspace: Path, **rules) -> set[Path]:
    return {item.path for item in _survey(workspace, **rules).garbage}


def _champion(folder: Path, board: Artifact, *policies: Artifact) -> str:
    entry, *others = ({"uri": a.uri, "digest": a.digest} for a in (board, *policies))
    text = json.dumps({"leaderboard": entry, "checkpoints": dict(enumerate(others))})
    folder.mkdir(exist_ok=True)
    (folder / "champion.json").write_text(text)
    return text


def _age(path: Path, days: float) -> None:
    for one in (*path.rglob("*"), path):
        os.utime(one, (time.time() - days * 86400,) * 2)


def test_old_artifacts_go_unless_a_newer_one_was_made_from_them(make, tmp_path: Path) -> None:
    raw = make(tmp_path, "raw", days_old=OLD)
    left = make(tmp_path, "left", raw, days_old=OLD)
    right = make(tmp_path, "right", raw, days_old=OLD)
    new = make(tmp_path, "new", right, days_old=29)
    make(tmp_path, "unrelated", days_old=31)
    found = _survey(tmp_path)
    assert {item.path for item in found.garbage} == {
        left.path,
        *(p for p in (tmp_path / "artifacts/shared").iterdir() if p not in (raw.path, right.path, new.path)),
    }
    assert sum(found.kept.values()) == 3
    assert all(item.size > 100 for item in found.garbage)
    left.touch()
    assert left.path not in _goes(tmp_path)


def test_inputs_by_file_uri_stay(make, tmp_path: Path) -> None:
    policy = make(tmp_path, "policy", days_old=OLD)
    whole = Dependency.of_folder("initial", policy.path / "meta", tmp_path / "other workspace")
    assert whole.uri.startswith("file:")
    make(tmp_path, "new", external=(whole,))
    assert _goes(tmp_path) == set()


def test_champions_and_the_last_former_ones_stay(make, tmp_path: Path) -> None:
    raw = make(tmp_path, "raw", days_old=OLD)
    boards = [make(tmp_path, f"board{i}", raw, days_old=OLD) for i in range(6)]
    elsewhere = tmp_path / "elsewhere"
    lines = [_champion(tmp_path / "champion", board) for board in boards[:4]]
    (tmp_path / "champion" / "history.jsonl").write_text("\n".join(lines[:3]) + "\n")
    _champion(elsewhere, boards[4])
    judged = make(tmp_path, "judged", stage="promote", champion=str(elsewhere), days_old=OLD)
    last = make(tmp_path, "last", stage="promote", champion=str(elsewhere), days_old=OLD - 1)
    gone = {boards[5].path, judged.path}
    assert last.path not in _goes(tmp_path)
    assert _goes(tmp_path) == gone
    assert _goes(tmp_path, champions=1) == gone | {board.path for board in boards[:2]}
    assert _goes(tmp_path, champions=0) == gone | {board.path for board in boards[:3]}
    (tmp_path / "champion" / "champion.json").write_text("{")
    with pytest.raises(UserError, match="is no champion's record"):
        _goes(tmp_path)


def test_outputs_of_recent_runs_stay(make, tmp_path: Path) -> None:
    made = make(tmp_path, "made", days_old=OLD)
    record = tmp_path / "runs" / "1" / "run.json"
    record.parent.mkdir(parents=True)
    record.write_text(json.dumps({"outputs": {"task": made.uri}, "status": "running"}))
    assert _goes(tmp_path) == set()
    _age(record.parent, 31)
    assert _goes(tmp_path) == {made.path}


@pytest.mark.parametrize("name", [".lock", "artifacts/train/0a.lock"])
def test_what_was_used_since_a_running_run_began_stays(make, name: str, tmp_path: Path) -> None:
    before = make(tmp_path, "before", days_old=1)
    during = make(tmp_path, "during", days_old=0.001)
    assert _goes(tmp_path, days=0) == {before.path, during.path}
    with exclusive(tmp_path / name, "waiting"):
        _age(tmp_path / name, 0.01)
        assert _goes(tmp_path, days=0) == {before.path}
    assert _goes(tmp_path, days=0) == {before.path, during.path}
    assert _goes(tmp_path, days=0, running=time.time() - 900) == {before.path}


def test_leftovers_of_killed_work_go_when_nobody_holds_their_lock(make, tmp_path: Path) -> None:
    artifact = make(tmp_path, "one")
    old, new, held = (artifact.path.with_name(f"{i}.partial") for i in "abc")
    for path in (old, new, held):
        (path / "state").mkdir(parents=True)
        (path / "state" / "step").write_text("x" * 1000)
        _age(path, OLD)
    os.utime(new / "state" / "step")
    removed = artifact.path.with_name(".d.removed")
    removed.mkdir()
    with exclusive(lock_of(artifact.path.with_name("c")), "waiting"):
        found = _survey(tmp_path)
        assert {item.path for item in found.garbage} == {old, removed}
        assert [ok for _, ok in remove(found)] == [True, True]
    assert {p.name for p in artifact.path.parent.iterdir()} == {
        artifact.path.name,
        new.name,
        held.name,
        "c.lock",
    }


def test_columns_go_with_their_dataset(make, tmp_path: Path) -> None:
    kept = make(tmp_path, "kept", stage="dataset")
    gone = make(tmp_path, "gone", stage="dataset", days_old=OLD)
    folders = [tmp_path / "columns" / digest[:16] for digest in (kept.digest, gone.digest, "0" * 64)]
    for folder in folders:
        folder.mkdir(parents=True)
        (folder / "task-0000.npy").write_text("x")
        _age(folder, OLD)
    assert _goes(tmp_path) == {gone.path, *folders[1:]}
    list(remove(_survey(tmp_path)))
    assert sorted(p.name for p in (tmp_path / "columns").iterdir()) == [folders[0].name]


def test_sums_of_statistics_go_when_they_were_not_read_for_long(make, tmp_path: Path) -> None:
    make(tmp_path, "one")
    kept = Cache(tmp_path / "statistics", "0123456789ab")
    for task, key in ((0, "a"), (0, "b"), (1, "a")):
        kept.keep(task, replace(Sums.empty(absolute=False), episodes=frozenset(key)), absolute=False)
    _age(tmp_path / "statistics", OLD)
    assert kept.find(0, frozenset("ac"), absolute=False).episodes == frozenset("a")
    gone = _goes(tmp_path)
    assert len(gone) == 4
    assert all(ok for _, ok in remove(_survey(tmp_path)))
    assert _goes(tmp_path) == set()
    assert [kept.find(0, frozenset(key), absolute=False).episodes for key in "ab"] == [frozenset("a"), set()]
    assert len(list((tmp_path / "statistics").iterdir())) == 2


def test_records_of_runs_that_told_nobody_go(make, tmp_path: Path) -> None:
    make(tmp_path, "one")
    for run in ("old", "new"):
        recorder(tmp_path, run, "train", "")(1, "no memory")
    _age(tmp_path / "outcomes" / "old", 31)
    assert _goes(tmp_path) == {tmp_path / "outcomes" / "old"}
    list(remove(_survey(tmp_path)))
    assert [path.name for path in (tmp_path / "outcomes").iterdir()] == ["new"]


def test_damaged_lineage_of_what_is_needed_stops_it(make, tmp_path: Path) -> None:
    damaged = make(tmp_path, "damaged")
    (damaged.path / "lineage.json").write_text("{")
    with pytest.raises(UserError, match=f"{damaged.path} is needed .* lineage is damaged"):
        _goes(tmp_path)
    _age(damaged.path, OLD)
    assert _goes(tmp_path) == {damaged.path}


def test_folder_that_is_no_workspace_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has no artifacts; give the --workspace"):
        _goes(tmp_path)


def test_what_comes_into_use_after_the_survey_stays_with_its_inputs(make, tmp_path: Path) -> None:
    raw = make(tmp_path, "raw", days_old=OLD)
    left = make(tmp_path, "left", raw, days_old=OLD)
    right = make(tmp_path, "right", raw, days_old=OLD)
    third = make(tmp_path, "third", days_old=OLD)
    found = _survey(tmp_path)
    assert len(found.garbage) == 4
    left.touch()
    with exclusive(lock_of(third.path), "waiting"):
        gone = {item.path for item, removed in remove(found) if removed}
    assert gone == {right.path}
    assert verify(left.path) == ([left.path, raw.path], [])
    assert third.path.is_dir()


def _chain(make, workspace: Path) -> list[Path]:
    raw = make(workspace, "raw", days_old=OLD)
    middle = make(workspace, "middle", raw, days_old=OLD)
    end = make(workspace, "end", middle, days_old=OLD)
    partial = partial_of(end.path.with_name("killed"))
    (partial / "state").mkdir(parents=True)
    (partial / "state" / "step").write_text("x")
    _age(partial, OLD)
    return [raw.path, middle.path, end.path]


def test_kill_leaves_every_artifact_whole_or_gone(make, killed_at, tmp_path: Path) -> None:
    points = 0
    while True:
        workspace = tmp_path / str(points)
        artifacts = _chain(make, workspace)
        found = _survey(workspace)
        killed = killed_at(points, lambda: list(remove(found)))  # noqa: B023
        for path in artifacts:
            assert not path.exists() or verify(path)[1] == []
        if not killed:
            break
        list(remove(_survey(workspace)))
        assert [p for p in workspace.glob("artifacts/*/*") if p.suffix != ".lock"] == []
        shutil.rmtree(workspace)
        points += 1
    assert points > 40
