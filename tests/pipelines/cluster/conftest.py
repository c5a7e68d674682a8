import importlib.util
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from pipelines import cli

_spec = importlib.util.spec_from_file_location("kfp_stub", Path(__file__).with_name("kfp_stub.py"))
_kfp_stub = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_kfp_stub)


@pytest.fixture(scope="session")
def kfp_stub() -> ModuleType:
    return _kfp_stub


@pytest.fixture(scope="session")
def secret() -> str:
    """A token that no output may show."""
    return "token-3f1b7c"


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Any]:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    for name in ("KF_PIPELINES_ENDPOINT", "KF_PIPELINES_SA_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    stub = _kfp_stub.Stub()
    yield stub
    stub.close()
    assert not list((tmp_path / "home").iterdir()), "nothing is kept in the user's home"


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
