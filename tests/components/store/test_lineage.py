"""Lineage chains: a flipped byte anywhere is found and named."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from components.errors import UserError
from components.store.artifact import Artifact
from components.store.champion import artifacts_of
from components.store.lineage import Dependency, chain, verify


@pytest.fixture
def top(make, tmp_path: Path) -> Artifact:
    raw = make(tmp_path, "raw")
    left = make(tmp_path, "left", raw)
    right = make(tmp_path, "right", raw, left)
    return make(tmp_path, "top", left, right)


def _files(top: Artifact) -> list[Path]:
    return sorted(p for p in (top.workspace / "artifacts").rglob("*") if p.is_file() and p.suffix != ".lock")


def _replace(old: Artifact, new: Artifact) -> None:
    """Put an artifact in the place of another."""
    old.path.rename(old.path.with_name("old"))
    new.path.rename(old.path)


def test_untouched_chain_verifies_and_reaches_the_raw_data(top: Artifact) -> None:
    folders, problems = verify(top.path)
    assert problems == []
    assert len(folders) == 4
    assert [n.depth for n in chain(top)] == [0, 1, 1, 2]


@pytest.mark.parametrize("place", [0, -2])
def test_every_flipped_byte_is_found_and_its_file_named(top: Artifact, place: int) -> None:
    files = _files(top)
    assert len(files) == 4 * 5
    for file in files:
        content = file.read_bytes()
        changed = bytearray(content)
        changed[place] ^= 1
        file.write_bytes(bytes(changed))
        _, problems = verify(top.path)
        named = {p.path for p in problems} | {p.path.parent / w for p in problems for w in p.message.split()}
        assert file in named, (file, problems)
        file.write_bytes(content)
    assert verify(top.path)[1] == []


def test_missing_and_added_files_are_named_but_not_leftovers(top: Artifact) -> None:
    (top.path / "episode.bin").unlink()
    (top.path / "meta" / "extra").write_text("x")
    (top.path / "meta" / ".info.json.7.partial").write_text("x")
    found = {p.path.relative_to(top.path).as_posix(): p.message for p in verify(top.path)[1]}
    assert found.keys() == {"episode.bin", "meta/extra"}
    assert found["episode.bin"].startswith("missing")
    assert found["meta/extra"].startswith("not recorded")


def test_missing_input_is_named_unless_only_the_artifact_is_verified(top: Artifact) -> None:
    raw = list(chain(top))[-1].path
    raw.rename(raw.with_name("elsewhere"))
    assert [p.path for p in verify(top.path)[1]] == [raw]
    assert verify(top.path, shallow=True) == ([top.path], [])
    (top.path / "episode.bin").write_text("x")
    assert [p.path for p in verify(top.path, shallow=True)[1]] == [top.path / "episode.bin"]


def test_other_weights_at_the_same_place_are_found(make, tmp_path: Path) -> None:
    weights = make(tmp_path, "weights")
    user = make(tmp_path, "user", weights)
    _replace(weights, make(tmp_path / "elsewhere", "weights", content="others"))
    assert {p.path.parent for p in verify(user.path)[1]} == {weights.path}
    assert make(tmp_path, "user", Artifact.load(weights.path)).path != user.path


def test_every_record_of_a_folder_counts(make, tmp_path: Path) -> None:
    """A diamond: an input was replaced between two stages that used it, so one of them saw other content."""
    raw = make(tmp_path, "raw")
    before = make(tmp_path, "before", raw)
    _replace(raw, make(tmp_path / "elsewhere", "raw", content="others"))
    after = make(tmp_path, "after", Artifact.load(raw.path))
    for inputs in ((before, after), (after, before)):
        folders, problems = verify(make(tmp_path, "top", *inputs).path)
        assert len(folders) == 4
        assert [p.path for p in problems] == [raw.path / "lineage.json"]
        assert str(before.path) in problems[0].message


def test_contradicting_records_without_digests_of_lineages_are_found(make, tmp_path: Path) -> None:
    raw = make(tmp_path, "raw")
    good = Dependency("raw", raw.uri, {"sha256": raw.digest})
    wrong = Dependency("raw", raw.uri, {"sha256": "0" * 64})
    users = [make(tmp_path, str(i), external=(one,)) for i, one in enumerate((good, wrong))]
    (problem,) = verify(make(tmp_path, "top", *users).path)[1]
    assert problem.path == raw.path
    assert str(users[1].path) in problem.message


def test_chain_goes_through_folders_in_artifacts_and_other_workspaces(make, tmp_path: Path) -> None:
    raw = make(tmp_path / "a b", "raw")
    policy = make(tmp_path / "a b", "policy", raw)
    here, there = (
        make(workspace, "next", external=(Dependency.of_folder("initial", policy.path / "meta", workspace),))
        for workspace in (tmp_path / "a b", tmp_path / "other")
    )
    for one in (here, there):
        (recorded,) = next(chain(one)).dependencies
        assert recorded["annotations"]["path"] == "meta"
        assert recorded["digest"] == {"sha256": policy.digest}
        assert [node.path for node in chain(one)] == [one.path, policy.path, raw.path]
        assert verify(one.path) == ([one.path, policy.path, raw.path], [])
    assert next(chain(here)).dependencies[0]["uri"] == policy.uri
    assert next(chain(there)).dependencies[0]["uri"].startswith("file:///")
    (raw.path / "episode.bin").write_text("x")
    assert [p.path for p in verify(there.path)[1]] == [raw.path / "episode.bin"]


def test_folders_that_are_no_artifacts_are_compared_while_they_exist(make, tmp_path: Path) -> None:
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    (folder / "weights").write_text("x")
    user = make(tmp_path, "user", external=(Dependency.of_folder("initial", folder, tmp_path),))
    assert verify(user.path) == ([user.path], [])
    (folder / "weights").write_text("y")
    assert [p.path for p in verify(user.path)[1]] == [folder]
    (folder / "weights").unlink()
    folder.rmdir()
    assert verify(user.path)[1] == []


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"subject": [{"digest": {"sha256": "0"}}]}'])
def test_damaged_lineage_ends_its_branch_as_a_problem(top: Artifact, text: str) -> None:
    left = list(chain(top))[1].path
    (left / "lineage.json").write_text(text)
    assert {p.path for p in verify(top.path)[1]} == {left / "lineage.json"}


def test_champion_is_verified_with_all_that_it_names(make, tmp_path: Path) -> None:
    policy, board = make(tmp_path, "policy"), make(tmp_path, "board")
    champion = tmp_path / "champion"
    champion.mkdir()
    assert artifacts_of(champion, tmp_path) == {}

    def record(*artifacts: Artifact) -> str:
        first, *others = ({"uri": a.uri, "digest": a.digest} for a in artifacts)
        return json.dumps({"leaderboard": first, "checkpoints": dict(enumerate(others))})

    (champion / "champion.json").write_text(record(board, policy))
    assert verify(artifacts_of(champion, tmp_path)) == ([board.path, policy.path], [])
    older = make(tmp_path, "older")
    (champion / "history.jsonl").write_text(f"{record(make(tmp_path, 'oldest'))}\n{record(older)}\n")
    assert set(artifacts_of(champion, tmp_path, former=1)) == {older.path, board.path, policy.path}
    (champion / "champion.json").write_text(record(board, replace(policy, digest="0" * 64)))
    assert [p.path for p in verify(artifacts_of(champion, tmp_path))[1]] == [policy.path]
    (champion / "champion.json").write_text('{"leaderboard": ')
    with pytest.raises(UserError, match="is no champion's record"):
        artifacts_of(champion, tmp_path)
