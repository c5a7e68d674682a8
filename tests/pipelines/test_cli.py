"""The command `b1k`: help, exit codes, lazy imports, lineage."""

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pydot
import pytest

from components.runtime.stage import Result, Stage, Work
from components.store.artifact import Artifact
from pipelines import cli
from pipelines.tools import lineage as provenance


def _b1k(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setattr(sys, "argv", ["b1k", *words])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    return int(stop.value.code or 0)


def test_help_lists_every_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _b1k(monkeypatch, "--help") == 0
    text = capsys.readouterr().out
    for name, (summary, _) in cli.COMMANDS.items():
        assert name in text
        assert summary in text


@pytest.mark.parametrize(
    "command",
    ["run", "pipeline", "demo", "lineage", "doctor", "estimate", "checkpoint", "serve", *cli.STAGES],
)
def test_every_command_explains_itself(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _b1k(monkeypatch, command, "--help") == 0
    assert f"usage: b1k {command} " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("nonsense",), "there is no command 'nonsense'"),
        (("pipeline", "compile", "--profile", "h100"), "there is no profile 'h100'; expected one of laptop"),
        (("run", "--pipeline", "evalute", "--workspace", "W"), "there is no pipeline 'evalute'"),
        (("run", "--profile", "h200x8", "--workspace", "W"), "h200x8 is for a cluster (b1k pipeline submit)"),
        (("demo", "--profile", "h200x8", "--workspace", "W"), "h200x8 is for a cluster"),
        (("run", "--workspace", "W", "--set", "edition=2024"), "expected one of 2025, 2026"),
        (("lineage", "show", "nowhere"), "nowhere is not an artifact"),
        (("lineage", "verify", "nowhere"), "nowhere is not an artifact"),
    ],
)
def test_mistakes_end_in_one_line_and_code_2(
    words: tuple[str, ...],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert _b1k(monkeypatch, *words) == 2
    assert message in capsys.readouterr().err


def test_an_image_without_kfp_can_run_a_stage() -> None:
    program = (
        "import sys\nsys.modules['kfp'] = None\nsys.argv = ['b1k', 'plan', '--help']\n"
        "from pipelines import cli\ncli.main()"
    )
    answer = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=120
    )
    assert answer.returncode == 0, answer.stderr


@dataclass(frozen=True)
class Config:
    """Nothing but a text."""

    text: str = ""
    """Text."""


@dataclass(frozen=True)
class Inputs:
    """One artifact at most."""

    source: Artifact | None = None
    """Artifact."""


def _write(config: Config, inputs: Inputs, work: Work) -> Result:
    (work.path / "text").write_text(config.text)
    return Result()


@pytest.fixture
def artifacts(tmp_path: Path) -> tuple[Artifact, Artifact]:
    # the fingerprint looks at the source of components.<name>
    first = Stage("plan", Config, Inputs, _write, ()).execute(Config("one"), Inputs(), tmp_path)[0]
    second = Stage("group", Config, Inputs, _write, ()).execute(Config("two"), Inputs(first), tmp_path)[0]
    return first, second


def test_lineage_shows_the_chain(
    artifacts: tuple[Artifact, Artifact],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    first, second = artifacts
    assert _b1k(monkeypatch, "lineage", "show", str(second.path)) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"group: {second.uri}  sha256:{second.digest[:16]}")
    assert any(line.startswith(f"  source: {first.uri}") for line in lines)


def test_lineage_verify_names_the_changed_file(
    artifacts: tuple[Artifact, Artifact],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    first, second = artifacts
    assert _b1k(monkeypatch, "lineage", "verify", str(second.path)) == 0
    assert "2 artifacts are as their lineage says" in capsys.readouterr().out
    (first.path / "text").write_text("onE")
    assert _b1k(monkeypatch, "lineage", "verify", str(second.path)) == 1
    assert str(first.path / "text") in capsys.readouterr().err


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # pydot's use of pyparsing
def test_lineage_graph_has_every_artifact_and_arrow_in_both_forms(
    artifacts: tuple[Artifact, Artifact],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    first, second = artifacts
    assert _b1k(monkeypatch, "lineage", "graph", str(second.path)) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "flowchart LR"
    keys = {}
    for artifact in (first, second):
        (line,) = [line for line in lines if f"{artifact.stage} {artifact.path.name}" in line]
        assert f"sha256:{artifact.digest[:16]}" in line
        keys[artifact.stage] = line.split("[")[0].strip()
    assert f'  {keys["plan"]} -->|"source"| {keys["group"]}' in lines

    output = tmp_path / "chain.dot"
    assert _b1k(monkeypatch, "lineage", "graph", str(second.path), "--output", str(output)) == 0
    (graph,) = pydot.graph_from_dot_file(str(output))
    labels = {node.get_name(): node.get("label") for node in graph.get_nodes() if node.get_name() != "node"}
    assert len(labels) == 2
    (edge,) = graph.get_edges()
    assert first.path.name in labels[edge.get_source()]
    assert second.path.name in labels[edge.get_destination()]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # pydot's use of pyparsing
def test_lineage_graph_survives_any_text_in_parameters(tmp_path: Path) -> None:
    @dataclass(frozen=True)
    class Named:
        name: str = ""

    text = 'a"b<c>`#\\'
    artifact = Stage("plan", Named, Inputs, lambda *_: Result(), ()).execute(Named(text), Inputs(), tmp_path)[
        0
    ]
    (graph,) = pydot.graph_from_dot_data(provenance.draw(artifact, "dot"))
    (node,) = [node for node in graph.get_nodes() if node.get_name() != "node"]
    assert text in node.get("label").replace('\\"', '"').replace("\\\\", "\\")
    line = provenance.draw(artifact, "mermaid").splitlines()[1]
    assert "name a#quot;b#lt;c#gt;#96;#35;\\<br>" in line
    assert line.count('"') == 2
