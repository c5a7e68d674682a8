"""Files that appear whole, and the names of those that did not."""

import os
from pathlib import Path

import pytest

from components.store.files import files_below, is_leftover, remove_leftovers, sync_tree, write_atomic


@pytest.mark.parametrize(
    "name",
    [
        ".plan.json.4711.partial",
        ".stats.partial",
        "metrics.partial",
        ".episode_1.7.partial.parquet",
        "0a1b2c3d4e5f6071.partial",
        ".0a1b2c3d4e5f6071.removed",
    ],
)
def test_names_of_unfinished_work(name: str) -> None:
    assert is_leftover(Path("somewhere.partial") / name)


@pytest.mark.parametrize("name", ["plan.json", ".dvc", "partial.json", "a.partial.json", "partial"])
def test_other_names(name: str) -> None:
    assert not is_leftover(Path("somewhere.partial") / name)


def test_write_replaces_whole_files(tmp_path: Path) -> None:
    path = tmp_path / "new" / "file"
    write_atomic(path, "é\n")
    write_atomic(path, b"second")
    assert path.read_bytes() == b"second"
    assert [p.name for p in path.parent.iterdir()] == ["file"]


def test_leftovers_are_neither_listed_nor_kept(tmp_path: Path) -> None:
    (tmp_path / "data" / ".tokens.7.partial").mkdir(parents=True)
    for name in ("a", ".tokens.7.partial/half", ".b.7.partial", "c.partial", ".d.partial.gz"):
        (tmp_path / "data" / name).write_text("x")
    (tmp_path / "data" / "link").symlink_to("a")
    (tmp_path / "data" / "dangling").symlink_to("nowhere")
    kept = {tmp_path / "data" / "a", tmp_path / "data" / "link"}
    assert set(files_below(tmp_path)) == kept
    remove_leftovers(tmp_path)
    assert {p.name for p in tmp_path.rglob("*")} == {"data", "a", "link", "dangling"}


def test_sync_reaches_every_file_and_folder_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tree" / "deep" / "deeper").mkdir(parents=True)
    for name in ("tree/a", "tree/deep/b", "tree/deep/deeper/c", "outside"):
        (tmp_path / name).write_text("x")
    synced = set()
    real = os.fsync
    monkeypatch.setattr(os, "fsync", lambda handle: (synced.add(os.fstat(handle).st_ino), real(handle)))
    sync_tree(tmp_path / "tree")
    expected = {tmp_path / "tree", *(tmp_path / "tree").rglob("*")}
    assert synced == {path.stat().st_ino for path in expected}
