"""Versions of a dataset that share content, parts of a version, and what is left out of one."""

import importlib.util
import json
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components.dataset import checks
from components.dataset.config import Config, Inputs
from components.dataset.stage import STAGE
from components.demonstrations.fetching import Fetch
from components.demonstrations.repository import version_dataset
from components.errors import UserError
from components.prepare.config import Config as PrepareConfig
from components.prepare.config import Inputs as PrepareInputs
from components.prepare.stage import STAGE as PREPARE
from components.statistics import reading
from components.statistics.config import Config as StatisticsConfig
from components.statistics.config import Inputs as StatisticsInputs
from components.statistics.stage import STAGE as STATISTICS
from components.store import sums
from components.store.lineage import verify
from pi_behavior.data.lerobot import LeRobotDataset
from pi_behavior.data.training_copy import TrainingCopy

# DVC's dependencies deprecate what DVC still uses
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:dvc")

_writer_path = Path(__file__).parents[1] / "model" / "data" / "dataset_writer.py"
_spec = importlib.util.spec_from_file_location("dataset_writer", _writer_path)
writer = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(writer)


def counted(monkeypatch, place: object, name: str, seen: list) -> None:
    """Note the arguments of all calls of a function."""
    inner = getattr(place, name)

    def outer(*arguments, **options):
        seen.append(arguments)
        return inner(*arguments, **options)

    monkeypatch.setattr(place, name, outer)


def run(repository: Path, workspace: Path, **values):
    return STAGE.execute(Config(str(repository), **values), Inputs(), workspace)


def save(repository: Path) -> None:
    version_dataset(repository, "data", repository.parent / "remote", "Demonstrations")


def without_last(repository: Path, aside: Path) -> None:
    """Take the last episode out of a dataset."""
    last = LeRobotDataset(repository / "data").episodes[-1]
    for path in [p for p in (repository / "data").rglob(f"episode_{last.index:08d}.*") if p.is_file()]:
        target = aside / path.relative_to(repository / "data")
        target.parent.mkdir(parents=True)
        path.rename(target)
    lines = (repository / "data/meta/episodes.jsonl").read_text().splitlines(keepends=True)
    (repository / "data/meta/episodes.jsonl").unlink()  # DVC's cache may be the same file
    (repository / "data/meta/episodes.jsonl").write_text("".join(lines[:-1]))


def test_a_revision_costs_what_is_new_in_all_stages(tmp_path, monkeypatch) -> None:
    count = 100
    repository, workspace = tmp_path / "repository", tmp_path / "workspace"
    writer.write_dataset(repository / "data", {0: [32] * count}, size=16)
    episodes = (repository / "data/meta/episodes.jsonl").read_bytes()
    without_last(repository, tmp_path / "last")
    files_read, checked, summed, counted_in = [], [], [], []
    counted(monkeypatch, Fetch, "_read", files_read)
    counted(monkeypatch, checks, "check_file", checked)
    counted(monkeypatch, sums, "sha256_file", summed)
    counted(monkeypatch, reading, "read_part", counted_in)

    def all_stages() -> tuple[dict[str, int], list[Path]]:
        save(repository)
        for seen in (files_read, checked, summed, counted_in):
            seen.clear()
        data = run(repository, workspace, processes=1).artifact
        prepared = PREPARE.execute(
            PrepareConfig(image_size=16, compress=False, processes=1), PrepareInputs(data), workspace
        ).artifact
        statistics = STATISTICS.execute(
            StatisticsConfig(fast_vocabulary=0, processes=1), StatisticsInputs(data), workspace
        ).artifact
        folders = [data.path, prepared.path, statistics.path]
        own = [p.stat().st_size for f in folders[:2] for p in f.rglob("*") if p.stat().st_nlink == 1]
        return {
            "fetched": len(files_read),
            "checked": len(checked),
            "summed": len(summed),
            "read for statistics": sum(len(episodes) for _, episodes in counted_in),
            "bytes": sum(own),
        }, folders

    first, _ = all_stages()
    assert first["checked"] == 4 * (count - 1)
    assert first["read for statistics"] == count - 1
    shutil.copytree(tmp_path / "last", repository / "data", dirs_exist_ok=True)
    (repository / "data/meta/episodes.jsonl").unlink()
    (repository / "data/meta/episodes.jsonl").write_bytes(episodes)
    second, folders = all_stages()
    assert second["checked"] == 4
    assert second["fetched"] == 5
    assert second["read for statistics"] == 1
    assert second["summed"] < 20  # one pack, and what the stages write themselves
    # the lists of files are new in every version
    assert second["bytes"] < 0.02 * first["bytes"] + sum(
        p.stat().st_size for f in folders for p in f.glob("*") if p.is_file()
    )
    assert all(verify(folder, workspace)[1] == [] for folder in folders)
    # the same as without what was there before
    alone = run(repository, tmp_path / "alone", processes=1).artifact
    assert alone.digest == STAGE.execute(Config(str(repository)), Inputs(), workspace).artifact.digest


def test_content_lies_once_with_the_repositorys_cache(tmp_path) -> None:
    repository = tmp_path / "repository"
    writer.write_dataset(repository / "data", {0: [32, 31]}, size=16)
    save(repository)
    artifact = run(repository, tmp_path / "workspace").artifact
    cached = {p.stat().st_ino for p in (repository / ".dvc/cache").rglob("*") if p.is_file()}
    assert all(p.stat().st_ino in cached for p in (artifact.path / "data").rglob("*") if p.is_file())


def test_changed_content_is_not_linked(tmp_path) -> None:
    repository = tmp_path / "repository"
    writer.write_dataset(repository / "data", {0: [32, 31]}, size=16)
    save(repository)
    shutil.rmtree(repository / ".dvc/cache")
    first = run(repository, tmp_path / "workspace").artifact
    tampered = next((first.path / "data").rglob("*.parquet"))
    tampered.chmod(0o644)
    tampered.write_bytes(b"something else")
    (repository / "data/notes.txt").write_text("new")
    save(repository)
    shutil.rmtree(repository / ".dvc/cache")
    second = run(repository, tmp_path / "workspace").artifact
    assert verify(second.path, tmp_path / "workspace")[1] == []


def test_tasks_cameras_and_modalities_are_chosen(tmp_path) -> None:
    repository, workspace = tmp_path / "repository", tmp_path / "workspace"
    writer.write_dataset(repository / "data", {0: [32], 1: [34, 31]}, size=16)
    for path in list((repository / "data").rglob("observation.images.rgb.head/*.mp4")):
        depth = Path(str(path).replace(".rgb.", ".depth."))
        depth.parent.mkdir(parents=True, exist_ok=True)
        depth.write_bytes(path.read_bytes()[:-1])
    save(repository)
    one = run(repository, workspace, tasks=("picking_up_trash",)).artifact.path
    assert {e.task for e in LeRobotDataset(one / "data").episodes} == {1}
    assert not [p for p in (one / "data").rglob("*") if "task-0000" in str(p)]
    assert json.loads((one / "version.json").read_text())["episodes"] == 2
    less = run(repository, workspace, tasks=("picking_up_trash",), modalities=("rgb",)).artifact.path
    assert not list(less.rglob("*depth*"))
    head = run(repository, workspace, cameras=("head",)).artifact.path
    kept = {p.parent.name for p in head.rglob("*.mp4")}
    assert kept == {"observation.images.rgb.head", "observation.images.depth.head"}
    with pytest.raises(UserError, match="no demonstrations of task 2"):
        run(repository, workspace, tasks=("putting_away_Halloween_decorations",))


def test_tasks_of_version_3_are_chosen_by_their_files(tmp_path) -> None:
    repository = tmp_path / "repository"
    writer.write_v3(repository / "data", {0: [40, 35], 1: [33]}, size=16)
    save(repository)
    chosen = run(repository, tmp_path / "workspace", tasks=("picking_up_trash",)).artifact
    assert [e.length for e in LeRobotDataset(chosen.path / "data").episodes] == [33]
    assert {p.parent.name for p in chosen.path.rglob("file-000.*")} == {"chunk-000", "chunk-001"}  # meta
    assert not list((chosen.path / "data/videos").rglob("chunk-000"))


def test_what_does_not_fit_is_refused_before_it_is_fetched(tmp_path, monkeypatch) -> None:
    repository = tmp_path / "repository"
    writer.write_dataset(repository / "data", {0: [32]}, size=16)
    save(repository)
    shutil.rmtree(repository / ".dvc/cache")
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1000))
    read = []
    counted(monkeypatch, Fetch, "_read", read)
    with pytest.raises(
        UserError, match=r"7 of 7 files have to be fetched, about [\d,]+ bytes; .* 1,000 bytes"
    ):
        run(repository, tmp_path / "workspace")
    assert read == []


def test_quarantine_leaves_bad_episodes_out_and_lists_them(tmp_path) -> None:
    repository, workspace = tmp_path / "repository", tmp_path / "workspace"
    writer.write_dataset(repository / "data", {0: [40, 35, 33]}, size=16)
    dataset = LeRobotDataset(repository / "data")
    dataset.camera_clip(dataset.episodes[1], "head").path.unlink()
    save(repository)
    with pytest.raises(UserError, match=r"1 of 12 files are missing.*quarantine"):
        run(repository, workspace)
    made = run(repository, workspace, quarantine=True)
    assert "without 1 that were left out" in made.result.summary
    report = json.loads((made.artifact.path / "checks.json").read_text())
    assert list(report["left_out"]) == ["20"]
    assert report["checks"]["files"]["problems"] == 1
    assert "episode_00000020.mp4 is missing" in (made.artifact.path / "summary.html").read_text()
    assert [e.index for e in LeRobotDataset(made.artifact.path / "data").episodes] == [10, 30]
    prepared = PREPARE.execute(
        PrepareConfig(image_size=16, compress=False), PrepareInputs(made.artifact), workspace
    ).artifact
    assert [e.index for e in TrainingCopy(prepared.path).episodes] == [10, 30]


def test_cleaning_is_recorded_and_all_stages_follow(tmp_path) -> None:
    repository, workspace = tmp_path / "repository", tmp_path / "workspace"
    writer.write_dataset(repository / "data", {0: [80, 70, 75, 200]}, size=16)
    path = LeRobotDataset(repository / "data").data_path(LeRobotDataset(repository / "data").episodes[0])
    table = pq.read_table(path)
    actions = np.array(table["action"].combine_chunks().flatten()).reshape(-1, 23)
    actions[:10], actions[70:] = actions[10], actions[69]
    actions[:10, :3] = actions[70:, :3] = 0
    new = pa.FixedSizeListArray.from_arrays(pa.array(actions.reshape(-1)), 23)
    pq.write_table(table.set_column(table.column_names.index("action"), "action", new), path)
    save(repository)
    artifact = run(repository, workspace, idle_tolerance=0.01, length_factor=2.0).artifact
    first, *_, last = (episodes := LeRobotDataset(artifact.path / "data").episodes)
    assert [e.index for e in episodes] == [10, 20, 30]
    assert (first.before, first.length, first.after) == (9, 62, 9)
    assert (last.before, last.after) == (0, 0)
    report = json.loads((artifact.path / "checks.json").read_text())
    assert report["cut_frames"] == 18
    assert "200 frames" in report["left_out"]["40"]
    dataset = LeRobotDataset(artifact.path / "data")
    np.testing.assert_array_equal(dataset.state_and_actions(first)[1], actions[9:71])
    assert dataset.camera_clip(first, "head")[1:] == (9, 62)
    prepared = PREPARE.execute(
        PrepareConfig(image_size=16, compress=False), PrepareInputs(artifact), workspace
    ).artifact
    copy = TrainingCopy(prepared.path)
    (pack,), (row,) = copy.locate(copy.episodes[:1])
    np.testing.assert_array_equal(copy.array(int(pack), "action")[row : row + 62], actions[9:71])


def test_problems_are_shown_as_a_table_and_a_page(tmp_path) -> None:
    repository, workspace = tmp_path / "repository", tmp_path / "workspace"
    writer.write_dataset(repository / "data", {0: [40, 35]}, size=16)
    for path in (repository / "data").rglob("*.parquet"):
        path.write_bytes(path.read_bytes()[:500])
    save(repository)
    with pytest.raises(UserError, match=r"problems in the dataset: 2;.*\n  schema: 2 problems, 2 episodes"):
        run(repository, workspace)
    (page,) = workspace.glob("artifacts/dataset/*.partial/checks.html")
    assert "episode_00000020.parquet" in page.read_text()
    with pytest.raises(UserError, match="no episode is left of 2"):
        run(repository, workspace, quarantine=True)


# mistakes with DVC


def dvc(repository: Path, *words: str) -> None:
    environment = {**os.environ, "DVC_SITE_CACHE_DIR": str(repository.parent / "site")}
    environment["PATH"] = f"{Path(os.sys.executable).parent}:{os.environ['PATH']}"
    subprocess.run(["dvc", *words, "-q"], cwd=repository, env=environment, check=True)


def commit(repository: Path) -> None:
    identity = ["-c", "user.name=t", "-c", "user.email=t@localhost"]
    for words in (["add", "-A", "."], [*identity, "commit", "-qm", "demonstrations"]):
        subprocess.run(["git", "-C", repository, *words], check=True)


def new_repository(repository: Path) -> None:
    writer.write_dataset(repository / "data", {0: [32]}, size=16)
    subprocess.run(["git", "init", "-q", "-b", "main", repository], check=True)
    dvc(repository, "init")


def test_files_that_were_added_one_by_one_are_named(tmp_path) -> None:
    new_repository(tmp_path / "repository")
    dvc(tmp_path / "repository", "add", "data/meta", "data/data", "data/videos")
    commit(tmp_path / "repository")
    with pytest.raises(UserError, match=r"'dvc add data/\*'.*dvc add data"):
        run(tmp_path / "repository", tmp_path / "workspace")


def test_a_relative_remote_is_named(tmp_path) -> None:
    new_repository(tmp_path / "repository")
    dvc(tmp_path / "repository", "remote", "add", "--default", "storage", "../remote")
    dvc(tmp_path / "repository", "add", "data")
    dvc(tmp_path / "repository", "push")
    commit(tmp_path / "repository")
    (tmp_path / "elsewhere").mkdir()
    subprocess.run(["git", "clone", "-q", tmp_path / "repository", tmp_path / "elsewhere/clone"], check=True)
    with pytest.raises(UserError, match=r"remote 'storage' is given by a relative path"):
        run(tmp_path / "elsewhere/clone", tmp_path / "workspace")


def test_an_import_is_fetched_from_where_it_came_or_explained(tmp_path) -> None:
    new_repository(tmp_path / "repository")
    dvc(tmp_path / "repository", "remote", "add", "--default", "storage", str(tmp_path / "remote"))
    dvc(tmp_path / "repository", "add", "data")
    dvc(tmp_path / "repository", "push")
    commit(tmp_path / "repository")
    importing = tmp_path / "importing"
    subprocess.run(["git", "init", "-q", "-b", "main", importing], check=True)
    dvc(importing, "init")
    dvc(importing, "import", str(tmp_path / "repository"), "data")
    commit(importing)
    shutil.rmtree(importing / ".dvc/cache")
    try:
        artifact = run(importing, tmp_path / "workspace").artifact
    except UserError as error:
        assert "import" in str(error)  # noqa: PT017
    else:
        assert len(LeRobotDataset(artifact.path / "data").episodes) == 1
