"""The command `b1k lineage`: an artifact's chain, or a champion's, as text, checked, and drawn."""

import importlib.util
import json
from itertools import pairwise
from pathlib import Path

import pydot
import pytest

from components.errors import UserError
from components.store.artifact import Artifact
from components.store.lineage import Dependency
from pipelines.tools.lineage import Graph, Show, Verify, draw, run

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
