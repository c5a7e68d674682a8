"""`b1k gc` leaves alone what a run on the cluster may use."""

import importlib.util
from pathlib import Path
from typing import Any

import pytest

from pipelines.cluster.connection import Connection
from pipelines.tools.garbage import Options, run

_SPEC = importlib.util.spec_from_file_location(
    "artifacts_beside_runs", Path(__file__).parents[2] / "components" / "store" / "small_artifacts.py"
)
_artifacts = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(_artifacts)


@pytest.mark.parametrize(("state", "stays"), [("RUNNING", True), ("PENDING", True), ("SUCCEEDED", False)])
def test_what_was_used_since_the_oldest_running_run_began_stays(
    stub: Any, tmp_path: Path, state: str, stays: bool
) -> None:
    artifact = _artifacts.make(tmp_path / "workspace", "one", days_old=2)
    for name, word, year in (("old", state, 2020), ("new", "SUCCEEDED", 2021)):
        run_ = {"run_id": name, "state": word, "created_at": f"{year}-01-01T00:00:00Z", "experiment_id": "e"}
        stub.runs[name] = run_
    options = Options(tmp_path / "workspace", days=1, connection=Connection(host=stub.host), delete=True)
    assert run(options) == 0
    assert artifact.path.is_dir() == stays


@pytest.mark.parametrize("state", ["RUNNING", "CANCELING"])
def test_a_run_whose_schedule_was_deleted_uses_nothing(stub: Any, tmp_path: Path, state: str) -> None:
    artifact = _artifacts.make(tmp_path / "workspace", "one", days_old=2)
    stub.schedules["nightly"] = {"recurring_run_id": "nightly", "experiment_id": "e"}
    stub.runs["old"] = {
        "run_id": "old",
        "state": state,
        "created_at": "2020-01-01T00:00:00Z",
        "experiment_id": "e",
        "recurring_run_id": "nightly",
    }
    options = Options(tmp_path / "workspace", days=1, connection=Connection(host=stub.host), delete=True)
    assert run(options) == 0
    assert artifact.path.is_dir(), "its schedule is there"
    del stub.schedules["nightly"]
    assert run(options) == 0
    assert not artifact.path.is_dir()
