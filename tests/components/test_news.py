"""News: versions compared by DVC's lists, and what the champion and its challengers were made from."""

import importlib.util
import json
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from components.dataset.config import Config as DatasetConfig
from components.dataset.config import Inputs as DatasetInputs
from components.dataset.stage import STAGE as DATASET
from components.demonstrations.news import whats_new
from components.demonstrations.repository import dvc_environment, version_dataset
from components.demonstrations.source import Source
from components.errors import UserError
from components.evaluation import records
from components.evaluation.champion import Champion
from components.evaluation.records import Conditions, Reference, ServedPolicy
from components.news.config import Config, Inputs
from components.news.stage import STAGE
from components.promote import config as promote
from components.runtime.declaration import Declaration
from components.runtime.stage import Made, Result, Stage, Work
from components.store.artifact import Artifact
from components.store.champion import CHAMPION
from pi_behavior.policy.config import PolicyConfig

# DVC's dependencies deprecate what DVC still uses
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:dvc")

_writer_path = Path(__file__).parents[1] / "model" / "data" / "dataset_writer.py"
_spec = importlib.util.spec_from_file_location("dataset_writer", _writer_path)
writer = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(writer)

FIRST, SECOND = "turning_on_radio", "picking_up_trash"


@dataclass(frozen=True)
class Repository:
    """A repository with three commits: demonstrations, more of them, and one that is not about them."""

    path: Path
    before: str
    after: str
    other: str


def _git(repository: Path, *words: str) -> str:
    identity = ("-c", "user.name=t", "-c", "user.email=t@localhost")
    command = ["git", "-C", str(repository), *identity, *words]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    folder = tmp_path_factory.mktemp("news")
    path = folder / "repository"
    path.mkdir()

    def save(episodes: dict[int, list[int]], message: str) -> str:
        shutil.rmtree(path / "data", ignore_errors=True)
        shutil.move(writer.write_dataset(folder / "new", episodes), path / "data")
        return version_dataset(path, "data", folder / "remote", message)

    before = save({0: [40, 35], 1: [33]}, "three")
    after = save({0: [40, 35, 36], 1: [34]}, "four")
    (path / "README").write_text("what this is\n")
    _git(path, "add", "README")
    _git(path, "commit", "-q", "-m", "A text")
    return Repository(path, before, after, _git(path, "rev-parse", "HEAD"))


@pytest.fixture
def repository(made: Repository, tmp_path: Path) -> Repository:
    """A copy without DVC's cache: nothing but the remote holds the data."""
    shutil.copytree(made.path, tmp_path / "repository", ignore=shutil.ignore_patterns("cache", "data"))
    return Repository(tmp_path / "repository", made.before, made.after, made.other)


def _new(repository: Repository, tmp_path: Path, since: str = "", **options: Any) -> dict[str, Any]:
    with dvc_environment(tmp_path / "site"):
        return whats_new(Source(str(repository.path), **options), since)


def test_what_came_is_told_by_task(repository: Repository, tmp_path: Path) -> None:
    found = _new(repository, tmp_path, since=repository.before)
    assert found["news"] is True
    assert (found["since"]["rev"], found["revision"]["rev"]) == (repository.before, repository.other)
    assert found["since"]["md5"] != found["revision"]["md5"]
    assert [one["subject"] for one in found["commits"]] == ["A text", "four"]
    assert found["episodes"][FIRST] == {"added": 1, "removed": 0, "changed": 0}
    assert found["episodes"][SECOND] == {"added": 0, "removed": 0, "changed": 1}
    assert found["files"]["added"] > 1
    assert not list(repository.path.glob(".dvc/cache/files/md5/*/*[0-9a-f]")), "no data were fetched"


def test_other_commits_are_no_news(repository: Repository, tmp_path: Path) -> None:
    found = _new(repository, tmp_path, since=repository.after)
    assert found["news"] is False
    assert [one["subject"] for one in found["commits"]] == ["A text"]
    assert found["files"] == {"added": 0, "removed": 0, "changed": 0}
    assert found["episodes"] == {}


def test_an_older_version_is_no_news(repository: Repository, tmp_path: Path) -> None:
    found = _new(repository, tmp_path, since=repository.after, revision=repository.before)
    assert found["news"] is False
    assert found["episodes"][FIRST]["removed"] == 1


def test_without_a_version_to_compare_with_all_is_new(repository: Repository, tmp_path: Path) -> None:
    found = _new(repository, tmp_path)
    assert (found["news"], found["since"]) == (True, None)
    assert found["episodes"][FIRST]["added"] == 3
    assert len(found["commits"]) == 3


def test_a_repository_by_url(repository: Repository, tmp_path: Path) -> None:
    with dvc_environment(tmp_path / "site"):
        found = whats_new(Source(f"file://{repository.path}", revision="main"), repository.before)
    assert found["news"] is True
    assert found["revision"]["rev"] == repository.other
    assert len(found["commits"]) == 2


def test_an_unknown_revision_is_the_users_mistake(repository: Repository, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no revision 'nowhere'"):
        _new(repository, tmp_path, since="nowhere")
    with pytest.raises(UserError, match="has no 'elsewhere' under DVC"):
        _new(repository, tmp_path, path="elsewhere")


def test_the_command_prints_json(repository: Repository) -> None:
    command = [sys.executable, "-m", "pipelines.cli", "dataset", "new", "--repository", str(repository.path)]
    answer = subprocess.run(
        [*command, "--since", repository.after], capture_output=True, text=True, check=True
    )
    assert json.loads(answer.stdout)["news"] is False
    answer = subprocess.run([*command, "--since", "nowhere"], capture_output=True, text=True, check=False)
    assert answer.returncode == 2
    assert answer.stderr.startswith("b1k dataset: ")


# the stage


@dataclass(frozen=True)
class BoardInputs:
    """What stands for everything between dataset and leaderboard."""

    dataset: Artifact
    """Demonstrations."""


def _board(config: Any, inputs: BoardInputs, work: Work) -> Result:
    (work.path / "checkpoint").mkdir()
    (work.path / "checkpoint" / "weights").write_text(inputs.dataset.digest)
    return Result()


def _promote(config: promote.Config, inputs: promote.Inputs, work: Work) -> Result:
    """Stands for the stage promote, which is won by who comes first."""
    folder = Path(config.champion) if config.champion else work.workspace / "champion"
    board = inputs.leaderboard
    if Champion.load(folder) is None:
        common = ServedPolicy("", (FIRST,), board.uri, board.digest)
        record = Champion(
            conditions=Conditions("2025", "household", 224, true_stage=False),
            leaderboard=Reference(board.uri, board.digest),
            checkpoints={"common": common},
            policy=PolicyConfig(),
            action_chunk_size=0,
            validation={},
            reported={FIRST: {"0_0": 1.0}},
            promoted="2026-01-01T00:00:00Z",
            format=4,
        )
        records.write(folder / CHAMPION, record)
    return Result()


def _judge(repository: Repository, revision: str, workspace: Path) -> Artifact:
    """Put a policy of a version through promotion; returns its leaderboard, which is also its model."""
    wanted = DatasetConfig(str(repository.path), revision, decode_all=False)
    data = DATASET.execute(wanted, DatasetInputs(), workspace).artifact
    stage = Stage(Declaration("leaderboard", DatasetInputs, BoardInputs), _board)
    board = stage.execute(DatasetInputs(), BoardInputs(data), workspace).artifact
    inputs = promote.Inputs(board, board, board)
    Stage(promote.DECLARATION, _promote).execute(promote.Config(), inputs, workspace)
    return board


def _made(repository: Repository, workspace: Path, **options: Any) -> Made[Config]:
    return STAGE.execute(Config(str(repository.path), **options), Inputs(), workspace)


def _ask(repository: Repository, workspace: Path, **options: Any) -> dict[str, Any]:
    return _made(repository, workspace, **options).result.parameters


def test_with_no_champion_everything_is_new(repository: Repository, tmp_path: Path) -> None:
    told = _ask(repository, tmp_path / "w", initial_checkpoint="/base")
    assert told == {"Output": "yes", "commit": repository.other, "checkpoint": "/base"}


def test_news_are_what_the_champion_was_not_made_from(
    repository: Repository, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    board = _judge(repository, repository.before, tmp_path / "w")
    told = _ask(repository, tmp_path / "w", initial_checkpoint="/base")
    assert told == {"Output": "yes", "commit": repository.other, "checkpoint": str(board.path / "checkpoint")}
    assert f"made from the demonstrations {repository.before}" in capsys.readouterr().out
    assert _ask(repository, tmp_path / "w", revision=repository.before)["Output"] == "no"
    assert _ask(repository, tmp_path / "w", since=repository.other)["Output"] == "no"


def test_the_summary_tells_people(repository: Repository, tmp_path: Path) -> None:
    def summary(**options: Any) -> str:
        return _made(repository, tmp_path / "w", **options).result.summary

    new = summary(since=repository.before)
    assert new.startswith(f"yes: commit {repository.other} has new demonstrations (files: ")
    nothing = f"no news, nothing to train: commit {repository.other} has the same demonstrations as commit "
    assert summary(since=repository.after) == nothing + repository.after
    older = f"commit {repository.before} is an older version than commit {repository.after}"
    assert summary(since=repository.after, revision=repository.before).endswith(older)


def test_what_lost_against_the_champion_is_no_news(repository: Repository, tmp_path: Path) -> None:
    _judge(repository, repository.before, tmp_path / "w")
    _judge(repository, repository.after, tmp_path / "w")
    champion = json.loads((tmp_path / "w" / "champion" / "champion.json").read_text())
    told = _ask(repository, tmp_path / "w")
    assert told["Output"] == "no", "the same files under another commit"
    assert told["checkpoint"] == str(tmp_path / "w" / champion["checkpoints"]["common"]["uri"] / "checkpoint")


def test_another_champions_challengers_do_not_count(repository: Repository, tmp_path: Path) -> None:
    _judge(repository, repository.after, tmp_path / "w")
    assert _ask(repository, tmp_path / "w", champion=str(tmp_path / "other"))["Output"] == "yes"


def test_a_champion_that_is_gone_or_changed_is_named(repository: Repository, tmp_path: Path) -> None:
    board = _judge(repository, repository.before, tmp_path / "w")
    path = tmp_path / "w" / "champion" / "champion.json"
    record = json.loads(path.read_text())
    changed = {**record, "leaderboard": {**record["leaderboard"], "digest": "0" * 64}}
    path.write_text(json.dumps(changed))
    with pytest.raises(UserError, match="b1k lineage verify"):
        _ask(repository, tmp_path / "w")
    path.write_text(json.dumps(record))
    shutil.rmtree(board.path / "checkpoint")
    with pytest.raises(UserError, match=r"checkpoint .* is missing"):
        _ask(repository, tmp_path / "w")
    shutil.rmtree(next((tmp_path / "w" / "artifacts" / "dataset").glob("*/")))
    (board.path / "checkpoint").mkdir()
    with pytest.raises(UserError, match=r"cannot be followed .* \(since\)"):
        _ask(repository, tmp_path / "w")


def test_no_repository(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no repository given"):
        STAGE.execute(Config(), Inputs(), tmp_path)
