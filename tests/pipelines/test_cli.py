"""The command `b1k`: help, exit codes, lazy imports, lineage."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines import cli


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
    assert "2 a mistake in the input, 75 an error that passes" in text
    texts = {name: summary for name, (summary, _) in cli.COMMANDS.items()} | cli.STAGES
    for name, summary in texts.items():
        assert re.search(rf"^  {name} +{re.escape(summary)}$", text, re.MULTILINE)


@pytest.mark.parametrize(
    "command",
    [*cli.COMMANDS, *cli.STAGES],
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
        (("run", "--set", "best=1.5"), "best is 1.5"),
        (("run", "--set", "team=a.b", "--set", "steps=x"), "2 mistakes"),
        (("run", "--resume"), "no unfinished run"),
        (("demo", "--profile", "nonsense"), "there is no profile"),
        (("lineage", "show", "nowhere"), "'nowhere' is neither a folder nor a run"),
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
    assert not list(tmp_path.iterdir()), "a refused command leaves nothing"


def test_an_image_without_kfp_can_run_a_stage() -> None:
    program = (
        "import sys\nsys.modules['kfp'] = None\nsys.argv = ['b1k', 'plan', '--help']\n"
        "from pipelines import cli\ncli.main()"
    )
    answer = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=120
    )
    assert answer.returncode == 0, answer.stderr
