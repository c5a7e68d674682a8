import importlib.util
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from pipelines import cli
from pipelines.cluster import schedules

RECORDED = Path(__file__).parents[2] / "golden" / "kfp-api"


def _load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = sys.modules[path.stem] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


_HERE = Path(__file__).parent
_load(_HERE / "kfp_models.py")
_kfp_stub, _argo = _load(_HERE / "kfp_stub.py"), _load(_HERE / "argo.py")
_kubernetes_stub = _load(_HERE.parent / "kubernetes_stub.py")


@pytest.fixture(scope="session")
def kfp_stub() -> ModuleType:
    return _kfp_stub


@pytest.fixture(scope="session")
def argo() -> ModuleType:
    return _argo


@pytest.fixture(scope="session")
def secret() -> str:
    """A token that no output may show."""
    return "token-3f1b7c"


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Any]:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    for name in ("KF_PIPELINES_ENDPOINT", "KF_PIPELINES_SA_TOKEN_PATH", "KUBERNETES_SERVICE_HOST"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", "~/.kube/config")
    monkeypatch.setattr(schedules, "_SETTLING", 0.0)
    monkeypatch.setattr(schedules, "_LOOK", 0.01)
    stub = _kfp_stub.Stub()
    yield stub
    stub.close()
    assert not list((tmp_path / "home").iterdir()), "nothing is kept in the user's home"


@pytest.fixture
def kubernetes_stub() -> Iterator[Any]:
    server = _kubernetes_stub.Stub()
    yield server
    server.close()


@pytest.fixture
def replay(stub: Any) -> Callable[[str], tuple[dict[str, Any], dict[str, Any]]]:
    """Gives the server a recorded run; returns the run and a copy of its workflow."""

    def load(name: str) -> tuple[dict[str, Any], dict[str, Any]]:
        run = json.loads((RECORDED / "runs" / f"{name}.v2beta1.json").read_text())
        old = json.loads((RECORDED / "runs" / f"{name}.v1beta1.json").read_text())
        stub.workflows[run["run_id"]] = old["pipeline_runtime"]["workflow_manifest"]
        stub.runs[run["run_id"]] = run
        return run, json.loads(stub.workflows[run["run_id"]])

    return load


@pytest.fixture
def b1k(
    stub: Any, secret: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """Runs `b1k pipeline`; returns exit code, output and errors."""

    def call(*words: str, host: str = "") -> tuple[int, str, str]:
        place = () if words[0] == "compile" else ("--host", host or stub.host)
        monkeypatch.setattr(sys, "argv", ["b1k", "pipeline", *words, *place])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        said = capsys.readouterr()
        assert secret not in said.out + said.err
        assert "Traceback" not in said.err
        return int(stop.value.code or 0), said.out, said.err

    return call
