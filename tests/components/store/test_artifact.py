"""Artifacts on disk: found by folder, record or content; used, damaged, made again."""

import json
import os
from pathlib import Path

import pytest

from components.errors import UserError
from components.store.artifact import Artifact
from components.store.making import partial_of


def test_found_by_folder_by_record_and_by_what_lies_in_it(make, tmp_path: Path) -> None:
    artifact = make(tmp_path, "one")
    artifact.write_record(tmp_path / "record")
    (tmp_path / "link").symlink_to(artifact.path / "meta")
    for found in (
        Artifact.load(str(artifact.path)),
        Artifact.load(tmp_path / "record"),
        Artifact.containing(artifact.path),
        Artifact.containing(tmp_path / "link" / "not there"),
    ):
        assert found == artifact
    assert artifact.workspace == tmp_path
    assert artifact.uri == f"artifacts/shared/{artifact.fingerprint}"
    assert Artifact.containing(tmp_path / "artifacts") is None


def test_identity_is_content_and_origin(make, tmp_path: Path) -> None:
    one = make(tmp_path / "a", "one")
    again = make(tmp_path / "b", "one", days_old=1)
    assert again.identity == one.identity
    assert again.lineage_digest != one.lineage_digest
    assert make(tmp_path / "c", "one", content="other").identity != one.identity
    from_elsewhere = make(tmp_path / "d", "two", content="one")
    assert from_elsewhere.digest == one.digest
    assert from_elsewhere.identity != one.identity


def test_use_is_marked(make, tmp_path: Path) -> None:
    artifact = make(tmp_path, "one", days_old=9)
    before = artifact.path.stat().st_mtime
    Artifact.load(artifact.path)
    assert artifact.path.stat().st_mtime == before
    artifact.touch()
    assert artifact.path.stat().st_mtime > before + 8 * 86400


def test_use_on_a_read_only_file_system_is_not_marked(
    make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: object) -> None:
        raise OSError(30, "Read-only file system")

    artifact = make(tmp_path, "one")
    monkeypatch.setattr(os, "utime", refuse)
    artifact.touch()


def test_what_is_unfinished_is_no_artifact(make, tmp_path: Path) -> None:
    artifact = make(tmp_path, "one")
    partial = partial_of(artifact.path)
    artifact.path.rename(partial)
    assert Artifact.containing(partial / "meta") is None
    with pytest.raises(UserError, match="is not an artifact"):
        Artifact.load(partial)


@pytest.mark.parametrize("text", ["{", "{}", "[]", '{"subject": []}'])
@pytest.mark.parametrize("name", ["lineage.json", "result.json"])
def test_damage_is_named(make, name: str, text: str, tmp_path: Path) -> None:
    artifact = make(tmp_path, "one")
    (artifact.path / name).write_text(text)
    with pytest.raises(UserError, match=r"cannot be read as an artifact.*b1k lineage verify"):
        Artifact.load(artifact.path)


def test_record_says_what_kfp_passes(make, tmp_path: Path) -> None:
    artifact = make(tmp_path, "one")
    artifact.write_record(tmp_path)
    record = json.loads((tmp_path / "artifact.json").read_text())
    assert record["uri"] == str(artifact.path)
    assert record["digest"] == artifact.digest
