"""The contract of a stage: fingerprint, resume, record, KFP adapter, exit codes."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from components.runtime.errors import UserError
from components.runtime.executor import KfpTask
from components.runtime.stage import Result, Stage, Work
from components.store.artifact import Artifact
from components.store.identity import code_digest


@dataclass(frozen=True)
class Config:
    """Parameters of the test's stage."""

    steps: int = 3
    """Steps."""
    tasks: tuple[str, ...] = ()
    """Tasks."""
    loud: bool = False
    """Loud."""

    def __post_init__(self) -> None:
        if self.steps < 0:
            raise ValueError(f"steps is {self.steps}; expected at least 0")


@dataclass(frozen=True)
class Inputs:
    """Artifacts of the test's stage."""

    first: Artifact | None = None
    """Optional."""
    many: tuple[Artifact, ...] = ()
    """Any number."""


CALLS: list[Config] = []


def run(config: Config, inputs: Inputs, work: Work) -> Result:
    """Write what was asked."""
    CALLS.append(config)
    (work.path / "sub").mkdir(exist_ok=True)
    (work.path / "sub" / "steps.txt").write_text(f"{config.steps} {config.tasks} {config.loud}\n")
    return Result(metrics={"q": 0.5}, parameters={"Output": [{"worker": "0"}]}, html="<p>done</p>")


STAGE = Stage("shared", Config, Inputs, run, ("components.runtime.errors",))


def _main(*arguments: str) -> int:
    with pytest.raises(SystemExit) as stop:
        STAGE.main(arguments)
    return int(stop.value.code or 0)


def test_second_call_returns_the_first_artifact(tmp_path: Path) -> None:
    before = len(CALLS)
    first, _, cached = STAGE.execute(Config(steps=4), Inputs(), tmp_path)
    again, result, cached_again = STAGE.execute(Config(steps=4), Inputs(), tmp_path)
    assert (cached, cached_again) == (False, True)
    assert first == again
    assert result.metrics == {"q": 0.5}
    assert len(CALLS) == before + 1


def test_configuration_inputs_and_code_change_the_fingerprint(tmp_path: Path) -> None:
    made, _, _ = STAGE.execute(Config(), Inputs(), tmp_path)
    keys = {
        STAGE.fingerprint(Config(), Inputs()),
        STAGE.fingerprint(Config(steps=5), Inputs()),
        STAGE.fingerprint(Config(), Inputs(first=made)),
        STAGE.fingerprint(Config(), Inputs(many=(made,))),
        Stage("shared", Config, Inputs, run, ("components.store.lineage",)).fingerprint(Config(), Inputs()),
    }
    assert len(keys) == 5
    assert code_digest(("components.shared",)) == code_digest(("components.shared",))


def test_shell_call_writes_the_record(tmp_path: Path) -> None:
    record = tmp_path / "record"
    assert _main("--workspace", str(tmp_path / "w"), "--config.steps", "7", "--output", str(record)) == 0
    artifact = Artifact.load(record)
    assert (artifact.path / "sub" / "steps.txt").read_text() == "7 () False\n"
    assert json.loads((artifact.path / "lineage.json").read_text())["predicate"]["buildDefinition"][
        "externalParameters"
    ] == {"steps": 7, "tasks": [], "loud": False}


def _executor_input(tmp_path: Path, parameters: dict[str, object], artifacts: dict[str, list[Path]]) -> str:
    out = tmp_path / "out"
    return json.dumps(
        {
            "inputs": {
                "parameterValues": parameters,
                "artifacts": {
                    n: {"artifacts": [{"name": n, "uri": str(p)} for p in group]}
                    for n, group in artifacts.items()
                },
            },
            "outputs": {
                "artifacts": {
                    n: {"artifacts": [{"name": n, "uri": str(out / n)}]}
                    for n in ("artifact", "metrics", "html")
                },
                "parameters": {"Output": {"outputFile": str(out / "Output")}},
                "outputFile": str(out / "executor_output.json"),
            },
        }
    )


def test_kfp_call_reads_floats_texts_and_lists_and_writes_all_outputs(tmp_path: Path) -> None:
    made, _, _ = STAGE.execute(Config(), Inputs(), tmp_path / "w")
    made.write_record(tmp_path / "in")
    document = _executor_input(
        tmp_path, {"steps": 6.0, "tasks": "a b", "loud": True}, {"many": [tmp_path / "in", made.path]}
    )
    (tmp_path / "out" / "artifact").mkdir(parents=True)
    (tmp_path / "out" / "artifact" / "stale").write_text("of a failed attempt")
    assert _main("--executor-input", document, "--workspace", str(tmp_path / "w"), "--run-id", "r1") == 0
    artifact = Artifact.load(tmp_path / "out" / "artifact")
    assert not (tmp_path / "out" / "artifact" / "stale").exists()
    assert (artifact.path / "sub" / "steps.txt").read_text() == "6 ('a', 'b') True\n"
    output = json.loads((tmp_path / "out" / "executor_output.json").read_text())
    assert output["parameterValues"] == {"Output": [{"worker": "0"}]}
    assert json.loads((tmp_path / "out" / "Output").read_text()) == [{"worker": "0"}]
    assert output["artifacts"]["metrics"]["artifacts"][0]["metadata"] == {"q": 0.5}
    assert output["artifacts"]["artifact"]["artifacts"][0]["metadata"]["sha256"] == artifact.digest
    assert (tmp_path / "out" / "html").read_text() == "<p>done</p>"


def test_users_mistakes_exit_with_2_and_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _main("--workspace", str(tmp_path), "--inputs.first", str(tmp_path / "nothing")) == 2
    assert "is not an artifact" in capsys.readouterr().err
    assert _main("--workspace", str(tmp_path), "--config.steps=-1") == 2
    assert "expected at least 0" in capsys.readouterr().err
    assert _main("--workspace", str(tmp_path), "--executor-input", "{}") == 2
    unknown = _executor_input(tmp_path, {"stepps": 1}, {})
    assert _main("--workspace", str(tmp_path), "--executor-input", unknown) == 2
    assert "stepps" in capsys.readouterr().err


def test_executor_input_of_remote_artifacts_maps_to_the_launchers_mounts() -> None:
    task = KfpTask({"artifacts": {"first": {"artifacts": [{"uri": "s3://bucket/key"}]}}}, {})
    assert task.command_line(Config, Inputs) == ["--inputs.first", "/s3/bucket/key"]
    bad = KfpTask({"artifacts": {"first": {"artifacts": [{"uri": "ftp://x"}]}}}, {})
    with pytest.raises(UserError, match="ftp"):
        bad.command_line(Config, Inputs)


def test_killed_stage_continues_from_its_partial_folder(tmp_path: Path) -> None:
    script = tmp_path / "slow_stage.py"
    script.write_text(
        textwrap.dedent("""
        import time
        from dataclasses import dataclass
        from components.runtime.stage import Result, Stage

        @dataclass(frozen=True)
        class Config:
            "none"

        @dataclass(frozen=True)
        class Inputs:
            "none"

        def run(config, inputs, work):
            "Slow."
            log = work.path / "log"
            done = len(log.read_text().split()) if log.exists() else 0
            for i in range(done, 4):
                with log.open("a") as file:
                    file.write(f"{i}\\n")
                time.sleep(0.0 if done else 0.4)
            return Result()

        Stage("shared", Config, Inputs, run, ()).main()
        """)
    )
    command = [sys.executable, str(script), "--workspace", str(tmp_path / "w")]
    process = subprocess.Popen(command)
    folder = tmp_path / "w" / "artifacts" / "shared"
    deadline = time.monotonic() + 60
    while not list(folder.glob("*.partial/log")) and time.monotonic() < deadline:
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not [p for p in folder.glob("*") if p.is_dir() and p.suffix != ".partial"]
    assert subprocess.run(command, check=False).returncode == 0
    (final,) = [p for p in folder.glob("*") if p.is_dir()]
    assert (final / "log").read_text().split() == ["0", "1", "2", "3"]
