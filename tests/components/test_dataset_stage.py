"""Versions of a dataset, the dataset stage, and its checks."""

import hashlib
import importlib.util
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components.dataset.checks import Options, check_dataset, dataset_files
from components.dataset.config import Config, Inputs
from components.dataset.stage import STAGE
from components.demonstrations import fetching, versions
from components.demonstrations.fetching import Fetch
from components.demonstrations.repository import version_dataset
from components.errors import UserError
from pi_behavior.data.lerobot import LeRobotDataset

# DVC's dependencies deprecate what DVC still uses
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:dvc")

_writer_path = Path(__file__).parents[1] / "model" / "data" / "dataset_writer.py"
_spec = importlib.util.spec_from_file_location("dataset_writer", _writer_path)
writer = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(writer)


@pytest.fixture(scope="module")
def demos(tmp_path_factory) -> Path:
    return writer.write_dataset(tmp_path_factory.mktemp("demos"), {0: [40, 35], 1: [33]})


@pytest.fixture
def repository(demos, tmp_path) -> Path:
    shutil.copytree(demos, tmp_path / "repository" / "data")
    return tmp_path / "repository"


def save(repository: Path, message: str = "Demonstrations") -> str:
    return version_dataset(repository, "data", repository.parent / "remote", message)


def git(repository: Path, *words: str) -> str:
    return subprocess.run(
        ["git", "-C", repository, *words], check=True, capture_output=True, text=True
    ).stdout


def contents(folder: Path) -> dict[str, str]:
    files = [p for p in folder.rglob("*") if p.is_file()]
    return {p.relative_to(folder).as_posix(): hashlib.md5(p.read_bytes()).hexdigest() for p in files}


# versions


def test_a_version_is_made_once_per_state_of_the_data(repository) -> None:
    first = save(repository)
    assert save(repository) == first
    (repository / "data" / "more.txt").write_text("more")
    second = save(repository)
    assert second not in ("", first)
    assert git(repository, "rev-list", "--count", "HEAD").strip() == "2"
    assert git(repository, "status", "--porcelain") == ""
    assert "data/meta" not in git(repository, "ls-files")


def test_what_killed_writers_leave_is_no_part_of_a_version(repository) -> None:
    first = save(repository)
    (repository / "data" / "meta" / ".info.123.partial.json").write_text("half")
    assert save(repository) == first


def test_a_nested_data_path_works(demos, tmp_path) -> None:
    shutil.copytree(demos, tmp_path / "repository" / "sets" / "demos")
    arguments = (tmp_path / "repository", "sets/demos", tmp_path / "remote", "Demonstrations")
    assert version_dataset(*arguments) == version_dataset(*arguments)
    config = Config(str(tmp_path / "repository"), path="sets/demos")
    artifact = STAGE.execute(config, Inputs(), tmp_path / "workspace").artifact
    assert contents(artifact.path / "data") == contents(demos)


def test_the_users_settings_are_neither_read_nor_changed(repository, tmp_path, monkeypatch) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / ".gitconfig").write_text(
        "[user]\nname = Somebody\nemail = somebody@example.org\n[commit]\ngpgsign = true\n"
    )
    before = contents(home)
    for name in ("HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME"):
        monkeypatch.setenv(name, str(home))
    save(repository)
    assert git(repository, "log", "--format=%an <%ae>").strip() == "b1k <b1k@localhost>"
    assert contents(home) == before


def test_a_folder_tracked_by_another_repository_is_refused(demos, tmp_path) -> None:
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    for name in ("tracked", "ignored"):
        shutil.copytree(demos, tmp_path / name / "data")
    (tmp_path / ".gitignore").write_text("ignored/\n")
    with pytest.raises(UserError, match=r"lies in the git repository .*, which does not ignore it"):
        version_dataset(tmp_path / "tracked", "data", tmp_path / "remote", "no")
    assert not (tmp_path / "tracked" / ".git").exists()
    assert len(version_dataset(tmp_path / "ignored", "data", tmp_path / "remote", "yes")) == 40


@pytest.mark.parametrize("path", ["nothing", "../elsewhere", "."])
def test_a_missing_dataset_is_named(repository, path) -> None:
    (repository.parent / "elsewhere").mkdir()
    with pytest.raises(UserError, match="is not a folder with files inside"):
        version_dataset(repository, path, repository.parent / "remote", "no")


SAVE = "import sys; from pathlib import Path; "
SAVE += "from components.demonstrations.repository import version_dataset as v; "
SAVE += (
    "r = Path(sys.argv[1]); print('begun', flush=True); v(r, 'data', r.parent / 'remote', 'Demonstrations')"
)


KILLED = """
import os, re, signal, sys
from pathlib import Path
import dvc.repo
from components.demonstrations.repository import version_dataset

def hook(event, arguments):
    # die at the first step on files after the one that is named
    global found
    if found and (event == "open" or event.startswith("os.")) and event != "os.kill":
        os.kill(os.getpid(), signal.SIGKILL)
    written = event == "open" and arguments[2] & (os.O_WRONLY | os.O_RDWR)
    found = found or bool((written or event == "os.rename") and re.search(sys.argv[2], str(arguments)))

found, repository = False, Path(sys.argv[1])
sys.addaudithook(hook)
version_dataset(repository, "data", repository.parent / "remote", "Demonstrations")
"""


@pytest.mark.parametrize(
    "place",
    [
        r"\.git/objects/.*\.lock",  # a lock of the git library that DVC uses, which nobody else removes
        r"\.dvc/cache/files/md5",  # a file on its way to the cache
        r"\.dvc/cache/files/md5/.*\.dir",
        r"data\.dvc",
        r"remote/files/md5",  # a file on its way to the remote
        r"remote/files/md5/.*\.dir",  # DVC takes a folder's object for the presence of all its files
        r"rwlock",
    ],
)
def test_killed_at_a_file_the_next_call_completes(repository, demos, tmp_path, place) -> None:
    killed = subprocess.run([sys.executable, "-c", KILLED, repository, place], check=False)
    assert killed.returncode == -signal.SIGKILL
    completed_after_kill(repository, demos, tmp_path)


def test_killed_at_any_time_the_next_call_completes(repository, demos, tmp_path) -> None:
    started = time.monotonic()
    whole = shutil.copytree(repository, tmp_path / "timing" / "repository")
    subprocess.run([sys.executable, "-c", SAVE, whole], check=True)
    duration = time.monotonic() - started
    for share in np.linspace(0.05, 0.9, 7):
        process = subprocess.Popen([sys.executable, "-c", SAVE, repository], stdout=subprocess.PIPE)
        process.stdout.readline()
        time.sleep(share * duration)
        process.kill()
        process.wait()
        process.stdout.close()
    assert process.returncode in (0, -signal.SIGKILL)
    completed_after_kill(repository, demos, tmp_path)


def test_half_of_a_push_is_made_whole(repository, demos, tmp_path) -> None:
    """What a power cut may leave: a file missing, another cut short, not the folder's object."""
    save(repository)
    objects = sorted(p for p in (tmp_path / "remote").rglob("*") if p.is_file() and p.suffix != ".dir")
    objects[0].unlink()
    objects[1].chmod(0o644)
    objects[1].write_bytes(objects[1].read_bytes()[:-1])
    completed_after_kill(repository, demos, tmp_path)


def test_a_version_is_not_named_before_all_its_files_are_in_the_remote(
    repository, tmp_path, monkeypatch
) -> None:
    from dvc.repo import Repo

    monkeypatch.setattr(Repo, "push", lambda repo, path: None)
    with pytest.raises(UserError, match=r"did not push all files .* try again"):
        save(repository)
    monkeypatch.undo()
    assert len(save(repository)) == 40


def completed_after_kill(repository: Path, demos: Path, tmp_path: Path) -> None:
    rev = save(repository)
    assert git(repository, "status", "--porcelain") == ""
    shutil.rmtree(repository / ".dvc" / "cache")
    artifact = STAGE.execute(Config(str(repository), rev), Inputs(), tmp_path / "workspace").artifact
    assert contents(artifact.path / "data") == contents(demos)


# the stage


def run(*words: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "components.dataset", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_stage_fetches_checks_and_records(repository, demos, tmp_path) -> None:
    rev = save(repository)
    made = STAGE.execute(Config(str(repository)), Inputs(), tmp_path / "workspace")
    artifact = made.artifact
    assert not made.cached
    assert made.config.revision == rev
    data = contents(demos)
    assert contents(artifact.path / "data") == data
    assert json.loads((artifact.path / "dvc.json").read_text()) == data
    version = json.loads((artifact.path / "version.json").read_text())
    assert (version["rev"], version["episodes"], version["frames"], version["files"]) == (
        rev,
        3,
        108,
        len(data),
    )
    assert version["tasks"]["turning_on_radio"] == {"episodes": 2, "frames": 75}
    assert f"md5: {version['md5']}" in (repository / "data.dvc").read_text()
    checks = json.loads((artifact.path / "checks.json").read_text())
    assert checks["passed"]
    assert {"schema", "frames", "videos", "finite", "limits"} < set(checks["checks"])
    assert made.result.metrics["frames"] == 108
    assert made.result.summary == f"3 episodes, 108 frames, of commit {rev}"
    lineage = json.loads((artifact.path / "lineage.json").read_text())
    used = lineage["predicate"]["buildDefinition"]["resolvedDependencies"][0]
    assert used["digest"] == {"gitCommit": rev, "md5": version["md5"].removesuffix(".dir")}


def test_head_follows_new_versions_and_old_ones_stay(repository, tmp_path) -> None:
    first = save(repository)
    workspace = tmp_path / "workspace"
    old = STAGE.execute(Config(str(repository)), Inputs(), workspace)
    assert STAGE.execute(Config(str(repository)), Inputs(), workspace).cached
    (repository / "data" / "meta" / "notes.txt").write_text("new")
    save(repository)
    new = STAGE.execute(Config(str(repository)), Inputs(), workspace)
    assert not new.cached
    assert (new.artifact.path / "data" / "meta" / "notes.txt").exists()
    again = STAGE.execute(Config(str(repository), first[:10]), Inputs(), workspace)
    assert again.cached
    assert again.artifact == old.artifact


def test_data_come_from_a_remote_alone(repository, demos, tmp_path, monkeypatch) -> None:
    """A clone without DVC's cache, and a remote that has moved."""
    rev = save(repository)
    clone = tmp_path / "clone"
    subprocess.run(["git", "clone", "-q", repository, clone], check=True)
    (tmp_path / "remote").rename(tmp_path / "moved")
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    config = Config(f"file://{clone}", rev, remote=str(tmp_path / "moved"))
    artifact = STAGE.execute(config, Inputs(), tmp_path / "workspace").artifact
    assert contents(artifact.path / "data") == contents(demos)
    assert versions.resolve_revision(f"file://{clone}", "main") == rev
    assert list(temporary.iterdir()) == []


def test_a_killed_fetch_continues(repository, demos, tmp_path, monkeypatch) -> None:
    save(repository)
    fetched = []
    original = Fetch._one

    def until_the_fourth(self, name):
        if len(fetched) == 4:
            raise KeyboardInterrupt
        original(self, name)
        fetched.append(name)

    config, workspace = Config(str(repository)), tmp_path / "workspace"
    monkeypatch.setattr(fetching, "_THREADS", 1)
    monkeypatch.setattr(Fetch, "_one", until_the_fourth)
    with pytest.raises(KeyboardInterrupt):
        STAGE.execute(config, Inputs(), workspace)
    partial = next((workspace / "artifacts/dataset").glob("*.partial")) / "data"
    before = {p: p.stat().st_mtime_ns for p in partial.rglob("*") if p.is_file()}
    assert len(before) == 4
    (partial / "meta").mkdir(exist_ok=True)
    (partial / "meta" / ".info.json.partial").write_text("half")
    monkeypatch.setattr(Fetch, "_one", original)
    artifact = STAGE.execute(config, Inputs(), workspace).artifact
    assert contents(artifact.path / "data") == contents(demos)
    for path, changed in before.items():
        assert (artifact.path / "data" / path.relative_to(partial)).stat().st_mtime_ns == changed


def test_corrupt_and_missing_objects_are_named(repository, tmp_path) -> None:
    save(repository)
    shutil.rmtree(repository / ".dvc" / "cache")
    video = next((repository / "data").rglob("*.mp4"))
    md5 = hashlib.md5(video.read_bytes()).hexdigest()
    stored = tmp_path / "remote" / "files" / "md5" / md5[:2] / md5[2:]
    stored.chmod(0o644)
    stored.write_bytes(stored.read_bytes()[:-1] + b"!")
    with pytest.raises(UserError, match=rf"DVC recorded {md5}: the cache or remote is corrupt"):
        STAGE.execute(Config(str(repository)), Inputs(), tmp_path / "workspace")
    stored.unlink()
    with pytest.raises(UserError, match=rf"md5 {md5}\) is neither in the DVC cache nor in the remote"):
        STAGE.execute(Config(str(repository)), Inputs(), tmp_path / "workspace")
    shutil.rmtree(tmp_path / "remote")
    with pytest.raises(UserError, match=r"list of files of 'data' .* was the version pushed \('dvc push'\)"):
        STAGE.execute(Config(str(repository)), Inputs(), tmp_path / "other")


@pytest.mark.parametrize("scheme", ["http", "git"])
def test_a_server_that_cannot_be_reached_is_tried_again(scheme: str, tmp_path: Path) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # taken, and nobody listens
        url = f"{scheme}://127.0.0.1:{unused.getsockname()[1]}/demos.git"
        for revision in ("main", "a" * 40):  # a commit is not looked up before the clone
            done = run("--config.repository", url, "--config.revision", revision, "--workspace", tmp_path)
            assert done.returncode == os.EX_TEMPFAIL, done.stderr
            assert re.search("onnect", done.stderr)
            assert "Traceback" not in done.stderr


def test_the_commands_exit_codes(repository, tmp_path) -> None:
    save(repository)
    done = run(
        "--workspace", tmp_path / "w", "--config.repository", repository, "--output", tmp_path / "record"
    )
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "record" / "artifact.json").read_text())["stage"] == "dataset"
    wrong = run("--workspace", tmp_path / "w", "--config.repository", repository, "--config.revision", "nope")
    assert wrong.returncode == 2
    assert "nope" in wrong.stderr
    assert "Traceback" not in wrong.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"repository": ""}, "no repository given"),
        ({"repository": "/nowhere/at/all"}, "neither a folder nor a URL"),
        ({"path": "nodata"}, "has no 'nodata' under DVC"),
        ({"path": "data.dvc"}, "is not a folder with files under DVC"),
        ({"remote": "unknown"}, "unknown"),
    ],
)
def test_wrong_options_are_named(repository, tmp_path, options, message) -> None:
    save(repository)
    if "remote" in options:
        shutil.rmtree(repository / ".dvc" / "cache")
    config = Config(**{"repository": str(repository), **options})
    with pytest.raises(UserError, match=message):
        STAGE.execute(config, Inputs(), tmp_path / "workspace")


# the checks


def findings(root: Path, *, decode_all: bool = True) -> list[tuple[str, str]]:
    dataset = LeRobotDataset(root)
    found, _ = check_dataset(dataset, dataset_files(dataset), Options(decode_all))
    return [(f.check, f.message) for f in found]


def change_column(root: Path, name: str, change) -> None:
    dataset = LeRobotDataset(root)
    path = dataset.data_path(dataset.episodes[0])
    table = pq.read_table(path)
    column = table[name]
    if pa.types.is_fixed_size_list(column.type):
        values = (
            column.combine_chunks()
            .flatten()
            .to_numpy(zero_copy_only=False)
            .reshape(table.num_rows, -1)
            .copy()
        )
        change(values)
        new = pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), values.shape[1])
    else:
        values = column.to_numpy().copy()
        change(values)
        new = pa.array(values)
    pq.write_table(table.set_column(table.column_names.index(name), name, new), path)


def put(place: tuple[object, ...] | slice, value: float):
    return lambda values: values.__setitem__(place, value)


@pytest.mark.parametrize(
    ("column", "change", "check", "message"),
    [
        ("action", put((3, 7), np.nan), "finite", "action hold values that are not finite"),
        ("observation.cam_rel_poses", put((0, 0), np.inf), "finite", "cam_rel_poses"),
        (
            "action",
            put((5, 0), 1.1),
            "limits",
            "action at frame 5, dimension 0 is 1.1000; expected -1.0000 to",
        ),
        (
            "observation.state",
            put((9, 158), 2.0),
            "limits",
            "observation.state at frame 9, dimension 7 is 2.0",
        ),
        ("episode_index", put(slice(None), 20), "schema", "episode_index is not 10 in all rows"),
        ("task_index", put(slice(3, 4), 1), "schema", "task_index is not 0 in all rows"),
        ("timestamp", put(slice(20, None), 5.0), "frames", "timestamps are off by"),
    ],
)
def test_wrong_values_are_found(repository, column, change, check, message) -> None:
    change_column(repository / "data", column, change)
    ((found, text),) = findings(repository / "data")
    assert found == check
    assert "episode_00000010.parquet" in text
    assert message in text


@pytest.mark.parametrize("decode_all", [True, False])
def test_wrong_videos_are_found(repository, decode_all) -> None:
    dataset = LeRobotDataset(repository / "data")
    first, second, _ = dataset.episodes
    assert findings(repository / "data", decode_all=decode_all) == []
    short = [writer.frame_picture(10, 0, t, 32) for t in range(12)]
    writer.write_video(dataset.camera_clip(first, "head").path, short, 10)
    path = dataset.camera_clip(second, "left_wrist").path
    path.write_bytes(path.read_bytes()[:900])
    found = findings(repository / "data", decode_all=decode_all)
    assert [check for check, _ in found] == ["frames", "videos"]
    assert "12 frames; expected 40" in found[0][1]
    assert path.relative_to(repository / "data").as_posix() in found[1][1]


def test_time_stamps_that_contradict_positions_are_found(repository) -> None:
    dataset = LeRobotDataset(repository / "data")
    path = dataset.camera_clip(dataset.episodes[0], "head").path
    pictures = [writer.frame_picture(10, 0, t, 32) for t in range(40)]
    writer.write_video(path, pictures, 10, times=[t + (3 if t >= 20 else 0) for t in range(40)])
    ((check, text),) = findings(repository / "data")
    assert check == "frames"
    assert (
        f"{path.relative_to(repository / 'data')}: the time stamp of frame 20 is 0.767 s; expected 0.667 s"
        in text
    )


def test_version_3_is_fetched_and_checked(tmp_path) -> None:
    writer.write_v3(tmp_path / "repository" / "data", {0: [40, 35], 1: [33]})
    save(tmp_path / "repository")
    artifact = STAGE.execute(Config(str(tmp_path / "repository")), Inputs(), tmp_path / "workspace").artifact
    facts = json.loads((artifact.path / "version.json").read_text())
    assert (facts["codebase_version"], facts["episodes"], facts["frames"]) == ("v3.0", 3, 108)


def test_clips_of_version_3_that_do_not_fit_are_found(tmp_path) -> None:
    root = writer.write_v3(tmp_path, {0: [40, 35]})
    path = root / "meta/episodes/chunk-000/file-000.parquet"
    table, key = pq.read_table(path), f"videos/{writer.KEYS_2026[0]}/to_timestamp"
    late = pa.array([40 / 30, 77 / 30])
    pq.write_table(table.set_column(table.column_names.index(key), key, late), path)
    name = f"videos/{writer.KEYS_2026[0]}/chunk-000/file-000.mp4"
    assert findings(root) == [
        (
            "frames",
            f"{name}: episode 1 has 37 frames here; expected 35, the length in the same table",
        ),
        ("frames", f"{name}: 75 frames; expected 77"),
    ]


def test_a_partial_download_is_refused_by_the_names_of_tasks(repository, tmp_path) -> None:
    shutil.rmtree(repository / "data" / "data" / "task-0001")
    save(repository)
    message = r"1 of 12 files are missing, such as data/task-0001/.*; they are of the tasks picking_up_trash"
    with pytest.raises(UserError, match=message):
        STAGE.execute(Config(str(repository)), Inputs(), tmp_path / "workspace")


def test_a_broken_dataset_stops_the_stage_and_is_listed(repository, tmp_path) -> None:
    change_column(repository / "data", "action", put((5, 0), 1.1))
    save(repository)
    message = r"(?s)problems in the dataset: 1; .*checks\.json.*limits: .*episode_00000010"
    with pytest.raises(UserError, match=message):
        STAGE.execute(Config(str(repository)), Inputs(), tmp_path / "workspace")
    report = json.loads(next((tmp_path / "workspace").rglob("checks.json")).read_text())
    assert (report["passed"], report["checks"]["limits"]["problems"]) == (False, 1)
    config = Config(str(repository), limit_tolerance=0.2)
    assert STAGE.execute(config, Inputs(), tmp_path / "workspace").result.metrics["episodes"] == 3


def test_a_folder_that_is_no_dataset_is_named(tmp_path) -> None:
    (tmp_path / "repository" / "data").mkdir(parents=True)
    (tmp_path / "repository" / "data" / "x.txt").write_text("x")
    save(tmp_path / "repository")
    with pytest.raises(UserError, match=r"expected the root of a LeRobot dataset"):
        STAGE.execute(Config(str(tmp_path / "repository")), Inputs(), tmp_path / "workspace")


def test_nothing_is_written_outside_the_workspace(repository, tmp_path) -> None:
    save(repository)
    home = tmp_path / "home"
    home.mkdir()
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("XDG_", "DVC_"))}
    command = ["-m", "components.dataset", "--workspace", tmp_path / "w", "--config.repository", repository]
    done = subprocess.run(
        [sys.executable, *command], env={**environment, "HOME": str(home)}, capture_output=True, check=False
    )
    assert done.returncode == 0
    assert contents(home) == {}
