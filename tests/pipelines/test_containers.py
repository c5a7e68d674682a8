"""Runs with every task in its container; those marked `images` need a container engine and our images."""

import importlib.util
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from components.collect.config import Config, Inputs
from components.collect.stage import STAGE
from components.errors import UserError
from components.settings.checks import Arguments
from components.settings.sections import PIPELINES
from pipelines.definitions.compiling import BUILDERS
from pipelines.definitions.images import image
from pipelines.definitions.profiles import load_profile
from pipelines.local import containers
from pipelines.local import run as local
from pipelines.local.records import load_runs
from pipelines.tools import lineage as provenance

# DVC, which versions the demonstrations
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:dvc")
HERE = Path(__file__).parent
DRIVER = """
    import sys
    from pathlib import Path
    import container_task
    from pipelines.local import run as local
    container_task.register()
    workspace, *settings = sys.argv[1:]
    options = local.Options(
        profile="smoke", pipeline="one", workspace=Path(workspace), set=(tuple(settings),), containers=True
    )
    sys.exit(local.run(options))
"""


def _wait(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.1)


def test_where_no_engine_answers_the_message_says_how_to_start_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deaf = tmp_path / "deaf.sock"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(deaf))  # a socket that its server left behind
    for path, reason in ((tmp_path / "none.sock", "No such file"), (deaf, "Connection refused")):
        monkeypatch.setenv("DOCKER_HOST", f"unix://{path}")
        with pytest.raises(UserError, match="podman system service") as told:
            containers.connect()
        assert str(path) in str(told.value)
        assert reason in str(told.value)
        assert "\n" not in str(told.value)


def test_the_usual_sockets_are_tried_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DOCKER_HOST", raising=False)
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/7")
    assert containers.sockets() == (
        "unix:///var/run/docker.sock",
        "unix:///run/user/7/docker.sock",
        "unix:///run/user/7/podman/podman.sock",
        "unix:///run/podman/podman.sock",
    )


def test_folders_that_inputs_name_are_mounted(tmp_path: Path) -> None:
    workspace, data, remote, champion = (tmp_path / name for name in ("ws", "data", "remote", "champion"))
    for folder in (workspace / "inside", data, remote):
        folder.mkdir(parents=True)
    arguments = {
        "repository": str(data),
        "policy": str(workspace / "inside"),
        "initial_checkpoint": str(tmp_path / "missing"),
        "steps": 3,
        "settings": {"dataset": {"path": "data"}, "promote": {"champion": str(champion)}},
    }
    readable, writable = containers.host_folders(arguments, workspace, [str(remote)])
    assert set(readable) == {str(data), str(remote)}
    assert writable == (str(champion),)
    assert champion.is_dir(), "the engine mounts only what is there"
    with pytest.raises(UserError, match=r"--mount .*nowhere: there is no such"):
        containers.host_folders({}, workspace, [str(tmp_path / "nowhere")])


def test_relative_folders_get_their_absolute_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    inputs = {"repository": "data", "policy": "", "steps": 3}
    settings = {"dataset": {"path": "data"}, "promote": {"champion": "champion"}}
    found = containers.absolute_folders(Arguments(inputs, settings))
    assert found.inputs == {**inputs, "repository": str(tmp_path / "data")}
    assert found.settings == {**settings, "promote": {"champion": str(tmp_path / "champion")}}


def test_options_of_containers_need_containers(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="add --containers"):
        local.run(local.Options(profile="smoke", workspace=tmp_path, network="host"))


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of a container engine: the one that runs, or Podman with the settings of this machine."""
    patch = pytest.MonkeyPatch()
    service = None
    try:
        url, client = containers.connect()
        client.close()
    except UserError:
        podman = shutil.which("podman")
        if podman is None:
            raise
        url = f"unix://{tmp_path_factory.mktemp('podman')}/podman.sock"
        service = subprocess.Popen([podman, "system", "service", "--time=0", url])
        _wait(Path(url.removeprefix("unix://")).exists)
    patch.setenv("DOCKER_HOST", url)
    yield url
    patch.undo()
    if service is not None:
        service.terminate()
        service.wait()


@pytest.fixture
def _one(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = importlib.util.spec_from_file_location("container_task", HERE / "container_task.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "container_task", module)
    spec.loader.exec_module(module)
    for known in (BUILDERS, PIPELINES):  # put back after the test
        monkeypatch.setitem(known, "one", None)
    module.register()
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")]))


@pytest.fixture
def places(tmp_path: Path) -> tuple[Path, list[str]]:
    """A workspace, and settings that name folders outside."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "file").write_text("from outside")
    settings = [f"folder={tmp_path / 'folder'}", f"champion={tmp_path / 'champion'}"]
    return tmp_path / "workspace", settings


def _run(workspace: Path, *settings: str, resume: bool = False, **options: str) -> int:
    return local.run(
        local.Options(
            profile="smoke",
            pipeline="one",
            workspace=workspace,
            set=(settings,) if settings else (),
            resume=resume,
            containers=not resume,
            **options,
        )
    )


def _containers(workspace: Path) -> list[str]:
    """What the engine has of a workspace, running or not."""
    _, client = containers.connect()
    try:
        found = client.containers.list(all=True, filters={"label": f"b1k.workspace={workspace}"})
        return [one.status for one in found]
    finally:
        client.close()


@pytest.mark.images
@pytest.mark.usefixtures("engine", "_one")
def test_a_task_sees_what_it_needs_and_no_more(
    places: tuple[Path, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace, settings = places
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "a secret")
    monkeypatch.setenv("SOMETHING_ELSE", "not for tasks")
    assert _run(workspace, *settings, "word=moin") == 0
    seen = json.loads((workspace / "seen.json").read_text())
    assert seen["user"] == os.getuid()
    assert (workspace / "seen.json").owner() == workspace.owner()
    assert seen["network"] == ["lo"]
    assert seen["read"] == "from outside"
    assert seen["writable"] == [False, True, False, True]
    variables = seen["environment"]
    assert variables["GIVEN"] == "by the pipeline"
    assert variables["AWS_SECRET_ACCESS_KEY"] == "a secret"
    assert "SOMETHING_ELSE" not in variables
    assert variables["B1K_IMAGE"] == image("toolbox")
    assert len(variables["B1K_IMAGE_DIGEST"]) == 64
    (run,) = load_runs(workspace)
    written = [path for path in run.folder(workspace).rglob("*") if path.is_file()]
    assert not [path for path in written if b"a secret" in path.read_bytes()]
    log = run.folder(workspace) / "logs" / "look.log"
    assert log.read_text() == "line\n" * 20_000 + "the task says moin\n"
    assert _containers(workspace) == []


@pytest.mark.images
@pytest.mark.usefixtures("engine", "_one")
def test_a_failure_is_a_failure(places: tuple[Path, list[str]], capsys: pytest.CaptureFixture[str]) -> None:
    workspace, settings = places
    assert _run(workspace, *settings, "code=7", "word=goodbye") == 7
    told = capsys.readouterr()
    assert "Look: failed" in told.out
    assert "Look failed with exit code 7" in told.err
    assert "the task says goodbye" in told.err
    assert load_runs(workspace)[0].status == "failed"
    assert _run(workspace, resume=True) == 7
    assert _run(workspace, *settings, network="no-such-network") == containers.ENGINE_FAILED
    assert "the container engine failed" in capsys.readouterr().err
    assert _containers(workspace) == []


@pytest.mark.images
@pytest.mark.usefixtures("engine", "_one")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_no_container_outlives_a_run(number: signal.Signals, places: tuple[Path, list[str]]) -> None:
    workspace, settings = places
    command = [sys.executable, "-c", textwrap.dedent(DRIVER), str(workspace), *settings, "seconds=300"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as run:
        try:
            _wait((workspace / "seen.json").exists)
            assert _containers(workspace) == ["running"]
            run.send_signal(number)
            assert run.wait(30) == (-number if number == signal.SIGKILL else 130)
        finally:
            run.kill()
    if number == signal.SIGKILL:  # the helper process does it a moment later
        _wait(lambda: not _containers(workspace), 20)
    assert _containers(workspace) == []


@pytest.mark.images
@pytest.mark.usefixtures("_one")
def test_what_a_crashed_machine_left_is_removed(engine: str, places: tuple[Path, list[str]]) -> None:
    workspace, settings = places
    _, client = containers.connect()
    labels = {"b1k.workspace": str(workspace)}
    client.containers.create(image("toolbox"), ["sleep", "300"], labels=labels).start()
    client.close()
    assert _containers(workspace) == ["running"]
    assert _run(workspace, *settings) == 0
    assert _containers(workspace) == []


@pytest.mark.images
@pytest.mark.usefixtures("engine", "_one")
def test_a_missing_image_is_told_before_anything_starts(places: tuple[Path, list[str]]) -> None:
    workspace, settings = places
    with pytest.raises(UserError, match=r"localhost/nobody/toolbox:\S+ is not here; build it with: \w+"):
        _run(workspace, *settings, registry="localhost/nobody")
    with pytest.raises(UserError, match="cannot be pulled"):
        _run(workspace, *settings, registry="registry.invalid/nobody")


@pytest.fixture(scope="module")
def demonstrations(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A repository with demonstrations and its DVC remote, both outside of the workspace."""
    home = tmp_path_factory.mktemp("demonstrations")
    size = load_profile("smoke").values.settings["plan"]["image_size"]
    tasks = ("turning_on_radio", "picking_up_trash")
    config = Config(str(home / "repository"), tasks, episodes=4, image_size=size)
    STAGE.execute(config, Inputs(), home / "workspace")
    return home / "repository", home / "remote"


@pytest.mark.images
@pytest.mark.timeout(3600)
@pytest.mark.usefixtures("engine")
def test_the_whole_pipeline_in_its_images(
    demonstrations: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    repository, remote = demonstrations
    command = [sys.executable, "-m", "pipelines.cli", "run", "--profile", "smoke", "--containers"]
    command += ["--workspace", str(tmp_path), "--mount", str(remote), "--set", f"repository={repository}"]
    command += ["tasks=turning_on_radio", "group.minimum=1", "untrained=false", "reported_instances=1"]
    with (tmp_path / "output.txt").open("wb") as output, subprocess.Popen(command, stdout=output) as run:
        try:
            _wait(lambda: run.poll() is not None or any(tmp_path.glob("artifacts/train/*.partial")), 600)
            run.terminate()
            assert run.wait(60) == 130, (tmp_path / "output.txt").read_text()
        finally:
            run.kill()
    assert _containers(tmp_path) == []
    assert local.run(local.Options(workspace=tmp_path, resume=True)) == 0, capsys.readouterr().err
    assert _containers(tmp_path) == []
    (record,) = load_runs(tmp_path)
    assert (record.status, record.attempts) == ("succeeded", 2)
    board = local.leaderboard_folder(record, tmp_path)
    assert (tmp_path / "report" / "index.html").stat().st_size > 10_000
    assert provenance.run(provenance.Verify(board)) == 0
    used = {"train": "household", "evaluate": "household"}
    for statement in tmp_path.glob("artifacts/*/*/lineage.json"):
        stage = statement.parents[1].name
        facts = json.loads(statement.read_text())["predicate"]["buildDefinition"]["resolvedDependencies"]
        (software,) = [one for one in facts if one["name"] == "image"]
        assert len([one for one in facts if one["name"] == "sbom"]) == 1
        name = image(used.get(stage, "toolbox"))
        assert software["uri"] == name
        assert software["digest"]["sha256"] == _image_id(name)


def _image_id(name: str) -> str:
    _, client = containers.connect()
    try:
        return str(client.images.get(name).id).removeprefix("sha256:")
    finally:
        client.close()
