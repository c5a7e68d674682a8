"""The command `b1k lineage`: an artifact's chain, or a champion's, as text, checked, signed, and drawn."""

import importlib.util
import json
import shutil
import subprocess
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import pydot
import pytest

from components.errors import UserError
from components.store.artifact import Artifact
from components.store.lineage import Dependency
from components.store.sums import ENVELOPE, LINEAGE, SUMS, format_sums, hash_files, tree_digest
from pipelines.tools.lineage import Graph, Show, Sign, Verify, draw, run

HELPER = Path(__file__).parents[1] / "components" / "store" / "small_artifacts.py"
_spec = importlib.util.spec_from_file_location("small_artifacts", HELPER)
_artifacts = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_artifacts)


@pytest.fixture
def chain(tmp_path: Path) -> tuple[Artifact, Artifact, Artifact]:
    """A dataset of another workspace, a policy, a leaderboard."""
    revision = Dependency("demonstrations", "dvc+repository#data", {"gitCommit": "c" * 40, "md5": "0" * 32})
    commit = Dependency("commit", "git+file:.", {"gitCommit": "d" * 40})
    raw = _artifacts.make(tmp_path / "shared", "raw", stage="dataset", external=(revision,))
    parameters = {
        "name": "common",
        "steps": 20,
        "tasks": ["turning_on_radio", "picking_up_trash", "hiding_Easter_eggs"],
        "learning_rate": {"peak": 0.5, "final": 0.1},
        "model": {"width": 128, "depth": 3, "vision": {"width": 96}},
        "seed": 0,
    }
    policy = _artifacts.make(
        tmp_path / "w", "policy", raw, stage="train", external=(commit,), parameters=parameters
    )
    board = _artifacts.make(tmp_path / "w", "board", policy, stage="leaderboard")
    return raw, policy, board


@pytest.fixture
def champion(chain: tuple[Artifact, Artifact, Artifact]) -> Path:
    _, policy, board = chain
    other = _artifacts.make(board.workspace, "other", stage="train")
    folder = board.workspace / "champion"
    folder.mkdir()
    named = [{"uri": a.uri, "digest": a.digest} for a in (board, policy, other)]
    record = {"leaderboard": named[0], "checkpoints": {"common": named[1], "group:a": named[2]}}
    (folder / "champion.json").write_text(json.dumps(record))
    return folder


def test_shows_the_chain(chain, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    raw, policy, board = chain
    board.write_record(tmp_path / "record")
    assert run(Show(tmp_path / "record")) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"leaderboard: {board.uri}  sha256:{board.digest[:16]}  ")
    assert lines[1].startswith(f"  sources[0]: {policy.uri}  ")
    assert lines[2] == "    - commit: git+file:.  gitCommit:" + "d" * 16
    assert lines[3].startswith(f"    sources[0]: {raw.path}  ")
    assert lines[4].endswith("- demonstrations: dvc+repository#data  gitCommit:" + "c" * 16)
    assert len(lines) == 5


def test_verifies_the_chain_or_the_artifact_alone(chain, capsys: pytest.CaptureFixture[str]) -> None:
    raw, _, board = chain
    assert run(Verify(board.path)) == 0
    assert capsys.readouterr().out == "3 artifacts are as their lineage says, up to the raw demonstrations\n"
    (raw.path / "episode.bin").write_text("x")
    assert run(Verify(board.path)) == 1
    assert str(raw.path / "episode.bin") in capsys.readouterr().err
    assert run(Verify(board.path, shallow=True)) == 0
    assert capsys.readouterr().out == "1 artifacts are as their lineage says\n"


def test_damaged_artifact_can_be_verified(chain, capsys: pytest.CaptureFixture[str]) -> None:
    (chain[2].path / "lineage.json").unlink()
    assert run(Verify(chain[2].path)) == 1
    assert "lineage.json: cannot be read" in capsys.readouterr().err


def test_champion_stands_for_its_leaderboard_and_policies(
    chain, champion: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(Verify(champion)) == 0
    assert capsys.readouterr().out.startswith("4 artifacts ")
    assert run(Show(champion)) == 0
    shown = [line.strip() for line in capsys.readouterr().out.splitlines() if "run test" in line]
    assert [line.partition(":")[0] for line in shown] == ["leaderboard", "train", "train", "sources[0]"]
    assert run(Graph(champion)) == 0
    assert capsys.readouterr().out.count("sha256:") == 4
    moved = champion.rename(tmp_path / "moved")
    assert run(Verify(moved, workspace=chain[2].workspace)) == 0
    (chain[1].path / "episode.bin").write_text("x")
    assert run(Verify(moved, workspace=chain[2].workspace)) == 1


def test_what_is_no_artifact_is_named(tmp_path: Path) -> None:
    for command in (Show, Verify, Graph):
        with pytest.raises(UserError, match="is not an artifact"):
            run(command(tmp_path))


def new_key(folder: Path, name: str) -> tuple[Path, Path]:
    private, public = folder / f"{name}.pem", folder / f"{name}.pub"
    subprocess.run(["openssl", "genpkey", "-algorithm", "ed25519", "-out", private], check=True)
    subprocess.run(["openssl", "pkey", "-in", private, "-pubout", "-out", public], check=True)
    return private, public


@dataclass(frozen=True)
class Generations:
    """Two generations of a policy with their leaderboards, signed with one key."""

    made: dict[str, Artifact]
    key: Path
    public: Path

    @property
    def workspace(self) -> Path:
        return self.made["raw"].workspace

    def verify(self, *keys: Path) -> int:
        return run(Verify(self.made["second board"].path, key=keys or (self.public,)))


@pytest.fixture
def generations(tmp_path: Path) -> Generations:
    workspace, make = tmp_path / "w", _artifacts.make
    raw = make(workspace, "raw", stage="dataset")
    first = make(workspace, "first", raw, stage="train")
    board = make(workspace, "board", first, stage="leaderboard", content="first zip")
    more = make(workspace, "more", stage="dataset")
    second = make(workspace, "second", more, first, stage="train")
    last = make(workspace, "second board", second, board, stage="leaderboard", content="second zip")
    made = {one.path.name: one for one in (raw, first, board, more, second, last)}
    names = ("raw", "first", "board", "more", "second", "second board")
    key, public = new_key(tmp_path, "ours")
    assert run(Sign(last.path, key=key)) == 0
    return Generations(dict(zip(names, made.values(), strict=True)), key, public)


def test_a_submission_is_followed_to_the_raw_episodes_of_two_generations(
    generations: Generations, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    submission = generations.made["second board"].path / "episode.bin"
    assert run(Show(digest=str(submission), workspace=generations.workspace)) == 0
    (line,) = capsys.readouterr().out.splitlines()
    found = Path(line.split("  ")[0])
    assert (found, line.split("  ")[-1]) == (submission.parent, "episode.bin")
    assert generations.verify() == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == "6 artifacts are as their lineage says, all signed, up to the raw demonstrations"
    assert {line.split(": signed by ours.pub (")[0] for line in lines[:-1]} == {
        str(one.path) for one in generations.made.values()
    }
    assert run(Verify(found)) == 0
    assert "signatures, which were not checked" in capsys.readouterr().out


def _edit_file(folder: Path, **_: Path) -> None:
    (folder / "episode.bin").write_text("x")


def _edit_file_and_its_sums(folder: Path, **_: Path) -> None:
    _edit_file(folder)
    (folder / SUMS).write_text(format_sums(hash_files(folder)))


def _edit_statement(folder: Path, **_: Path) -> None:
    file = folder / LINEAGE
    file.write_text(file.read_text().replace('"text"', '"other"'))


def _rewrite_history(folder: Path, **_: Path) -> None:
    """All that one who has no key can make fit: the content, its digest in the statement, and the sums."""
    _edit_file(folder)
    statement = json.loads((folder / LINEAGE).read_text())
    statement["subject"][0]["digest"]["sha256"] = tree_digest(hash_files(folder))
    (folder / LINEAGE).write_text(json.dumps(statement, indent=2) + "\n")
    (folder / SUMS).write_text(format_sums(hash_files(folder)))


def _remove_signature(folder: Path, **_: Path) -> None:
    (folder / ENVELOPE).unlink()


def _sign_with_another_key(folder: Path, foreign: Path, **_: Path) -> None:
    _remove_signature(folder)
    assert run(Sign(folder, key=foreign, shallow=True)) == 0


def _rewrite_and_sign_with_another_key(folder: Path, foreign: Path, **_: Path) -> None:
    _rewrite_history(folder)
    _sign_with_another_key(folder, foreign)


def _take_the_envelope_of(folder: Path, other: Path, **_: Path) -> None:
    shutil.copy(other / ENVELOPE, folder / ENVELOPE)


def _swap_for(folder: Path, other: Path, **_: Path) -> None:
    shutil.rmtree(folder)
    shutil.copytree(other, folder)


def _damage_the_envelope(folder: Path, **_: Path) -> None:
    (folder / ENVELOPE).write_text("{}")


def _change_the_signature(folder: Path, **_: Path) -> None:
    envelope = json.loads((folder / ENVELOPE).read_text())
    signature = envelope["signatures"][0]["sig"]
    envelope["signatures"][0]["sig"] = ("B" if signature[0] == "A" else "A") + signature[1:]
    (folder / ENVELOPE).write_text(json.dumps(envelope))


def _remove_the_folder(folder: Path, **_: Path) -> None:
    shutil.rmtree(folder)


@pytest.mark.parametrize("of", ["raw", "first", "board"])
@pytest.mark.parametrize(
    ("plant", "words"),
    [
        (_edit_file, "episode.bin: changed"),
        (_edit_file_and_its_sums, "lineage.json: names the digest"),
        (_edit_statement, "is not the statement that was signed"),
        (_rewrite_history, "is not the statement that was signed"),
        (_remove_signature, "lineage.json: is not signed"),
        (_sign_with_another_key, "a key that was not given"),
        (_rewrite_and_sign_with_another_key, "a key that was not given"),
        (_take_the_envelope_of, "is not the statement that was signed"),
        (_swap_for, "is the lineage of artifacts/dataset/"),
        (_damage_the_envelope, "envelope that cannot be read"),
        (_change_the_signature, "has a wrong signature of ours.pub"),
        (_remove_the_folder, "the folder is missing"),
    ],
)
def test_what_was_changed_is_named(  # type: ignore[no-untyped-def]
    generations: Generations, tmp_path: Path, of: str, plant, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    foreign, _ = new_key(tmp_path, "foreign")
    folder = generations.made[of].path
    plant(folder, other=generations.made["more"].path, foreign=foreign)
    capsys.readouterr()
    assert generations.verify() == 1
    said = capsys.readouterr().err
    about = [line for line in said.splitlines() if str(folder) in line]
    assert any(words in line for line in about), said


def test_a_renewed_key_is_told_from_the_earlier_one(
    generations: Generations, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    key, public = new_key(tmp_path, "new")
    assert run(Sign(generations.made["second board"].path, key=key, shallow=True)) == 0
    assert generations.verify(public, generations.public) == 0
    said = capsys.readouterr().out
    assert said.count("signed by the earlier key ours.pub (") == 6
    assert said.count(" and new.pub (") == 1
    assert generations.verify(public) == 1
    assert capsys.readouterr().err.count("a key that was not given") == 5
    assert run(Sign(generations.made["second board"].path, key=key)) == 0
    assert generations.verify(public) == 0


def test_nothing_is_signed_in_a_chain_that_is_not_as_recorded(
    generations: Generations, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    key, _ = new_key(tmp_path, "new")
    _edit_file(generations.made["first"].path)
    assert run(Sign(generations.made["second board"].path, key=key)) == 1
    _, problems = capsys.readouterr()
    assert "episode.bin: changed" in problems
    assert all(
        "new" not in (one.path / ENVELOPE).read_text()
        and (one.path / ENVELOPE).read_text().count('"sig"') == 1
        for one in generations.made.values()
    )


def test_artifacts_of_a_run_and_with_a_digest_are_found(
    chain, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, policy, board = chain
    record = tmp_path / "w" / "runs" / "20261128-050041" / "run.json"
    record.parent.mkdir(parents=True)
    record.write_text(json.dumps({"outputs": {"train": policy.uri, "loop/train": [policy.uri, board.uri]}}))
    for name in ("20261128-050041", "2026", "test"):
        assert run(Show(name, workspace=tmp_path / "w")) == 0
        lines = capsys.readouterr().out.splitlines()
        assert {Path(line.split("  ")[0]) for line in lines} == {policy.path, board.path}
    for digest in (policy.digest, policy.digest[:12], f"sha256:{policy.digest}"):
        assert run(Show(digest=digest, workspace=tmp_path / "w")) == 0
        assert capsys.readouterr().out.startswith(f"{policy.path}  ")
    with pytest.raises(UserError, match=r"neither a folder nor a run of .*, which has 20261128-050041, test"):
        run(Show("yesterday", workspace=tmp_path / "w"))
    second = record.parents[1] / "20261128-060000" / "run.json"
    second.parent.mkdir()
    second.write_text("{}")
    with pytest.raises(
        UserError, match=r"the beginning of several runs of .*, which has 20261128-050041, 20"
    ):
        run(Show("20261128", workspace=tmp_path / "w"))
    with pytest.raises(UserError, match=r"no artifact of .* holds sha256:0000"):
        run(Show(digest="0" * 64, workspace=tmp_path / "w"))
    with pytest.raises(UserError, match="neither a file nor 8 to 64 hex digits"):
        run(Show(digest="abc", workspace=tmp_path / "w"))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # pydot's use of pyparsing
def test_draws_every_artifact_and_arrow_in_both_forms(
    chain, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    board = chain[-1]
    assert run(Graph(board.path)) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "flowchart LR"
    keys = []
    for artifact in chain:
        (line,) = [line for line in lines if f"{artifact.stage} {artifact.path.name}" in line]
        assert f"sha256:{artifact.digest[:16]}" in line
        keys.append(line.split("[")[0].strip())
    for source, target in pairwise(keys):
        assert f'  {source} -->|"sources[0]"| {target}' in lines
    (external,) = [line for line in lines if '[("' in line]
    assert f'demonstrations<br>dvc+repository#35;data<br>gitCommit:{"c" * 16}"' in external
    (policy,) = [line for line in lines if "name common" in line]
    for words in (
        "model.width 128",
        "model.depth 3",
        "learning_rate.peak 0.5",
        f"commit gitCommit:{'d' * 16}",
    ):
        assert f"<br>{words}" in policy
    assert "tasks turning_on_radio picking_up_trash hidin…<br>" in policy
    assert "vision" not in policy

    output = tmp_path / "chain.dot"
    assert run(Graph(board.path, output=output)) == 0
    (graph,) = pydot.graph_from_dot_file(str(output))
    labels = {node.get_name(): node.get("label") for node in graph.get_nodes() if node.get_name() != "node"}
    assert len(labels) == 4
    assert len(graph.get_edges()) == 3
    with pytest.raises(UserError, match="cannot be written"):
        run(Graph(board.path, output=output / "below a file"))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # pydot's use of pyparsing
def test_graph_survives_any_text_in_parameters(tmp_path: Path) -> None:
    text = 'a"b<c>`#\\'
    artifact = _artifacts.make(tmp_path, "any", parameters={"name": text})
    (graph,) = pydot.graph_from_dot_data(draw([artifact], "dot"))
    (node,) = [node for node in graph.get_nodes() if node.get_name() != "node"]
    assert text in node.get("label").replace('\\"', '"').replace("\\\\", "\\")
    line = draw([artifact], "mermaid").splitlines()[1]
    assert "name a#quot;b#lt;c#gt;#96;#35;\\<br>" in line
    assert line.count('"') == 2
