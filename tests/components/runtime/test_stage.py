"""The contract of a stage: fingerprint, resume, record, KFP adapter, exit codes."""

import dataclasses
import errno
import json
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import botocore.exceptions
import pytest

from components.errors import PassingError, UserError
from components.runtime.declaration import Declaration
from components.runtime.executor import local_path
from components.runtime.stage import Result, Stage, Work
from components.store.artifact import Artifact
from components.store.signing import SIGNING_KEY, check, read_keys
from pi_behavior.config import OPERATIONAL


@dataclass(frozen=True)
class Rate:
    """A nested configuration."""

    presets: ClassVar[dict[str, "Rate"]]
    peak: float = 0.5
    """Peak."""
    last: float = 0.1
    """Last."""


Rate.presets = {"usual": Rate(), "slow": Rate(0.25, 0.25)}


@dataclass(frozen=True)
class Config:
    """Parameters of the test's stage."""

    steps: int = 3
    """Steps."""
    tasks: tuple[str, ...] = ()
    """Tasks."""
    loud: bool = False
    """Loud."""
    log_every: int = field(default=1, metadata=OPERATIONAL)
    """Steps between logged metrics."""
    rate: Rate = Rate()
    """Rate."""

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
    (work.path / "sub" / "key.txt").write_text(os.environ.get(SIGNING_KEY, ""))
    text = f"{config.steps} {config.tasks} {config.loud} {config.rate.peak} {config.rate.last}\n"
    (work.path / "sub" / "steps.txt").write_text(text)
    return Result(metrics={"q": 0.5}, parameters={"Output": [{"worker": "0"}]}, html="<p>done</p>")


DECLARATION = Declaration("shared", Config, Inputs, output="thing", page="picture")
STAGE = Stage(DECLARATION, run)


@pytest.fixture(autouse=True)
def _umask() -> Iterator[None]:
    """A task of Kubeflow sets its own."""
    before = os.umask(0o022)
    yield
    os.umask(before)


def _main(*arguments: str) -> int:
    with pytest.raises(SystemExit) as stop:
        STAGE.main(arguments)
    return int(stop.value.code or 0)


def test_second_call_returns_the_first_artifact(tmp_path: Path) -> None:
    before = len(CALLS)
    first = STAGE.execute(Config(steps=4), Inputs(), tmp_path)
    again = STAGE.execute(Config(steps=4), Inputs(), tmp_path)
    assert (first.cached, again.cached) == (False, True)
    assert first.artifact == again.artifact
    assert again.result.metrics == {"q": 0.5}
    assert len(CALLS) == before + 1


def test_what_decides_the_result_changes_the_place_and_nothing_else_does(tmp_path: Path) -> None:
    made = STAGE.execute(Config(), Inputs(), tmp_path).artifact
    places = {
        STAGE.place(Config(), Inputs(), tmp_path),
        STAGE.place(Config(steps=5), Inputs(), tmp_path),
        STAGE.place(Config(rate=Rate(peak=0.4)), Inputs(), tmp_path),
        STAGE.place(Config(), Inputs(first=made), tmp_path),
        STAGE.place(Config(), Inputs(many=(made,)), tmp_path),
        Stage(DECLARATION, run, programs=("pi_behavior.policy.server",)).place(Config(), Inputs(), tmp_path),
    }
    assert len(places) == 6
    assert STAGE.place(Config(log_every=7), Inputs(), tmp_path) == STAGE.place(Config(), Inputs(), tmp_path)


def test_a_configuration_is_resolved_before_it_is_looked_for(tmp_path: Path) -> None:
    def resolve(config: Config, inputs: Inputs, workspace: Path) -> Config:
        return dataclasses.replace(config, steps=9)

    made = Stage(DECLARATION, run, resolve=resolve).execute(Config(), Inputs(), tmp_path)
    assert made.config.steps == 9
    assert made.artifact.path == STAGE.place(Config(steps=9), Inputs(), tmp_path)


def test_shell_call_writes_the_record(tmp_path: Path) -> None:
    record = tmp_path / "record"
    assert _main("--workspace", str(tmp_path / "w"), "--config.steps", "7", "--output", str(record)) == 0
    artifact = Artifact.load(record)
    assert (artifact.path / "sub" / "steps.txt").read_text() == "7 () False 0.5 0.1\n"
    assert json.loads((artifact.path / "lineage.json").read_text())["predicate"]["buildDefinition"][
        "externalParameters"
    ] == {"steps": 7, "tasks": [], "loud": False, "log_every": 1, "rate": {"peak": 0.5, "last": 0.1}}


def test_a_key_in_the_environment_signs_and_no_part_of_the_work_sees_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = tmp_path / "key.pem"
    subprocess.run(["openssl", "genpkey", "-algorithm", "ed25519", "-out", key], check=True)
    public = subprocess.run(
        ["openssl", "pkey", "-in", key, "-pubout"], check=True, capture_output=True
    ).stdout
    (tmp_path / "key.pub").write_bytes(public)
    monkeypatch.setenv(SIGNING_KEY, str(key))
    record = tmp_path / "record"
    assert _main("--workspace", str(tmp_path / "w"), "--config.steps", "5", "--output", str(record)) == 0
    folder = Artifact.load(record).path
    assert not check(folder, read_keys([tmp_path / "key.pub"])).problem
    assert (folder / "sub" / "key.txt").read_text() == ""
    monkeypatch.setenv(SIGNING_KEY, "no such file")
    assert _main("--workspace", str(tmp_path / "w"), "--config.steps", "6") == 2
    assert len(list((tmp_path / "w" / "artifacts" / "shared").glob("*/"))) == 1


def test_a_preset_by_its_name_and_changes_to_it(tmp_path: Path) -> None:
    record = tmp_path / "record"
    words = ["--workspace", str(tmp_path), "--config.rate", "slow", "--config.rate.last", "0", "--output"]
    assert _main(*words, str(record)) == 0
    assert (Artifact.load(record).path / "sub" / "steps.txt").read_text() == "3 () False 0.25 0.0\n"
    assert _main("--workspace", str(tmp_path), "--config.rate=fast") == 2


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
                    for n in ("thing", "thing_metrics", "picture")
                },
                "parameters": {"Output": {"outputFile": str(out / "Output")}},
                "outputFile": str(out / "executor_output.json"),
            },
        }
    )


def test_kfp_call_reads_floats_texts_and_lists_and_writes_all_outputs(tmp_path: Path) -> None:
    made = STAGE.execute(Config(), Inputs(), tmp_path / "w").artifact
    made.write_record(tmp_path / "in")
    document = _executor_input(
        tmp_path,
        {
            "steps": 6.0,
            "tasks": "a b",
            "sections": "shared other",
            "run_id": "r1",
            "task_id": "5",
            "profile": {"shared": {"rate": "slow", "steps": 1.0}, "other": {"loud": False}},
            "settings": {"shared": {"rate": {"last": 1.0}}, "other": {"loud": True}},
        },
        {"many": [tmp_path / "in", made.path]},
    )
    (tmp_path / "out" / "thing").mkdir(parents=True)
    (tmp_path / "out" / "thing" / "stale").write_text("of a failed attempt")
    assert _main("--executor-input", document, "--workspace", str(tmp_path / "w")) == 0
    artifact = Artifact.load(tmp_path / "out" / "thing")
    assert not (tmp_path / "out" / "thing" / "stale").exists()
    assert (artifact.path / "sub" / "steps.txt").read_text() == "6 ('a', 'b') True 0.25 1.0\n"
    lineage = json.loads((artifact.path / "lineage.json").read_text())["predicate"]["runDetails"]
    assert lineage["metadata"]["invocationId"] == "r1/5"
    output = json.loads((tmp_path / "out" / "executor_output.json").read_text())
    assert output["parameterValues"] == {"Output": [{"worker": "0"}]}
    assert json.loads((tmp_path / "out" / "Output").read_text()) == [{"worker": "0"}]
    assert output["artifacts"]["thing_metrics"]["artifacts"][0]["metadata"] == {"q": 0.5, "attempts": 1}
    assert output["artifacts"]["thing"]["artifacts"][0]["metadata"]["sha256"] == artifact.digest
    assert (tmp_path / "out" / "picture").read_text() == "<p>done</p>"


def test_users_mistakes_exit_with_2_and_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _main("--workspace", str(tmp_path), "--inputs.first", str(tmp_path / "nothing")) == 2
    assert "is not an artifact" in capsys.readouterr().err
    assert _main("--workspace", str(tmp_path), "--config.steps=-1") == 2
    assert "expected at least 0" in capsys.readouterr().err
    assert _main("--workspace", str(tmp_path), "--executor-input", "{}") == 2
    for parameters in ({"sections": "shared", "stepps": 1}, {"steps": 1}):
        other_version = _executor_input(tmp_path, parameters, {})
        assert _main("--workspace", str(tmp_path), "--executor-input", other_version) == 2
        assert "compiled with another version" in capsys.readouterr().err
    wrong = {"sections": "shared", "settings": {"shared": {"steps": "many", "rate": {"peek": 1}}}}
    assert _main("--workspace", str(tmp_path), "--executor-input", _executor_input(tmp_path, wrong, {})) == 2
    said = capsys.readouterr().err
    assert "shared.steps is 'many'; expected a whole number" in said
    assert "shared.rate.peek does not exist" in said


def _failing(kind: str) -> None:
    if kind == "own":
        raise PassingError("the server is away")
    if kind == "dns":
        raise socket.gaierror(socket.EAI_AGAIN, "try again")
    if kind == "s3":
        raise botocore.exceptions.EndpointConnectionError(endpoint_url="http://127.0.0.1:9")
    number = {"stale": errno.ESTALE, "refused": errno.ECONNREFUSED, "gone": errno.ENOENT}[kind]
    raise OSError(number, os.strerror(number))


@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize(
    ("kind", "code"), [("own", 75), ("dns", 75), ("s3", 75), ("stale", 75), ("refused", 75), ("gone", 1)]
)
def test_what_passes_exits_with_75_also_where_a_message_for_people_wraps_it(
    kind: str, code: int, wrapped: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def resolve(config: Config, inputs: Inputs, workspace: Path) -> Config:
        try:
            _failing(kind)
        except Exception as error:
            if wrapped:
                raise UserError("the file cannot be read") from error
            raise
        return config

    with pytest.raises(SystemExit) as stop:
        Stage(DECLARATION, run, resolve).main(["--workspace", str(tmp_path)])
    assert stop.value.code == (2 if wrapped and code == 1 else code)
    said = capsys.readouterr().err
    assert ("Traceback" in said) == (not wrapped and kind != "own")


def test_executor_input_of_remote_artifacts_maps_to_the_launchers_mounts() -> None:
    assert local_path("s3://bucket/key") == Path("/s3/bucket/key")
    assert local_path("/a/b") == Path("/a/b")
    with pytest.raises(UserError, match="ftp"):
        local_path("ftp://x")


def test_killed_stage_continues_from_its_partial_folder(tmp_path: Path) -> None:
    script = tmp_path / "slow_stage.py"
    script.write_text(
        textwrap.dedent("""
        import time
        from dataclasses import dataclass
        from components.runtime.declaration import Declaration
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

        Stage(Declaration("shared", Config, Inputs), run).main()
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


def share(config: Config, inputs: Inputs, work: Work) -> None:
    """Write one of two parts, and wait for the other."""
    content = work.path / "content"
    number = next(n for n in ("0", "1") if not _exists(content / n))
    while content.is_dir() and len(list(content.iterdir())) < 2:
        time.sleep(0.01)
    (work.path / f"told-{number}").write_text("what the artifact does not have")


def _exists(path: Path) -> bool:
    try:
        path.open("x").close()
    except FileExistsError:
        return True
    return False


def _make_together(workspace: Path, results: "multiprocessing.Queue[tuple[str, bool]]") -> None:
    stage = Stage(
        Declaration("together", Config, Inputs),
        lambda config, inputs, work: Result(metrics={"parts": len(list(work.path.iterdir()))}),
        share=share,
        parameters=lambda config, artifact: {"every": config.log_every},
    )
    made = stage.execute(Config(), Inputs(), workspace)
    assert (made.result.metrics, made.result.parameters) == ({"parts": 2}, {"every": 1})
    results.put((str(made.artifact.path), made.cached))


def test_processes_that_make_an_artifact_together(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    results: multiprocessing.Queue[tuple[str, bool]] = context.Queue()
    makers = [context.Process(target=_make_together, args=(tmp_path, results)) for _ in range(2)]
    for maker in makers:
        maker.start()
    (path, cached), other = results.get(timeout=30), results.get(timeout=30)
    assert other == (path, cached) == (path, False)
    for maker in makers:
        maker.join()
    _make_together(tmp_path, results)
    assert results.get(timeout=30) == (path, True)
    (artifact,) = (tmp_path / "artifacts" / "together").glob("*/")
    assert {one.name for one in artifact.iterdir()} >= {"0", "1", "lineage.json"}
    assert not list(artifact.glob("told*"))
