"""A dataset's files go to S3 and come back, through its real API on loopback."""

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import boto3
import pytest

from components.dataset.config import Config, Inputs
from components.dataset.stage import STAGE

ROOT = Path(__file__).parents[2]
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

_spec = importlib.util.spec_from_file_location("dataset_writer", ROOT / "tests/model/data/dataset_writer.py")
writer = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(writer)


@pytest.fixture
def s3(monkeypatch):
    from moto.server import ThreadedMotoServer

    for name, value in (
        ("ACCESS_KEY_ID", "id"),
        ("SECRET_ACCESS_KEY", "key"),
        ("DEFAULT_REGION", "us-east-1"),
    ):
        monkeypatch.setenv(f"AWS_{name}", value)
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    url = f"http://127.0.0.1:{server.get_host_and_port()[1]}"
    boto3.client("s3", endpoint_url=url).create_bucket(Bucket="demonstrations")
    yield url
    server.stop()


def command(folder: Path, *words: object) -> None:
    environment = {**os.environ, "DVC_SITE_CACHE_DIR": str(folder.parent / "site"), "DVC_NO_ANALYTICS": "1"}
    environment["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    subprocess.run([*map(str, words)], cwd=folder, env=environment, check=True, capture_output=True)


def contents(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_push_pull_and_the_stage_through_s3(s3, tmp_path) -> None:
    repository, clone = tmp_path / "repository", tmp_path / "clone"
    writer.write_dataset(repository / "data", {0: [32]}, size=16)
    expected = contents(repository / "data")
    for words in (
        ("git", "init", "-q", "-b", "main"),
        ("dvc", "init", "-q"),
        ("dvc", "remote", "add", "--default", "storage", "s3://demonstrations/of-2025"),
        ("dvc", "remote", "modify", "storage", "endpointurl", s3),
        ("dvc", "add", "-q", "data"),
        ("dvc", "push", "-q"),
        ("git", "add", "-A", "."),
        ("git", "-c", "user.name=t", "-c", "user.email=t@localhost", "commit", "-qm", "Demonstrations"),
    ):
        command(repository, *words)
    command(tmp_path, "git", "clone", "-q", repository, clone)
    shutil.rmtree(repository / ".dvc" / "cache")
    command(clone, "dvc", "pull", "-q")
    assert contents(clone / "data") == expected
    shutil.rmtree(clone / ".dvc" / "cache")
    artifact = STAGE.execute(Config(str(clone)), Inputs(), tmp_path / "workspace").artifact
    assert contents(artifact.path / "data") == expected
