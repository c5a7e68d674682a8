"""Helm, and the chart rendered with given values."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
CHART = ROOT / "charts" / "b1k"
Render = Callable[..., dict[tuple[str, str], dict[str, Any]]]


@pytest.fixture(scope="session")
def helm() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs helm; ``make install`` has brought it, otherwise the script does now."""
    done = subprocess.run(
        [sys.executable, ROOT / "charts" / "get_helm.py"], stdout=subprocess.PIPE, text=True, check=True
    )
    path = done.stdout.strip()

    def run(*arguments: str | Path, values: dict[str, Any] | None = None) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [path, *arguments, *(["--values", "-"] if values else [])],
            input=json.dumps(values) if values else None,
            capture_output=True,
            text=True,
            check=False,
        )

    return run


@pytest.fixture(scope="session")
def render(helm) -> Render:
    """The rendered objects by (kind, name)."""

    def run(values: dict[str, Any] | None = None, release: str = "b1k") -> dict:
        done = helm("template", release, CHART, "--namespace", "robots", values=values)
        assert done.returncode == 0, done.stderr
        objects = [one for one in yaml.safe_load_all(done.stdout) if one]
        found = {(one["kind"], one["metadata"]["name"]): one for one in objects}
        assert len(found) == len(objects), "two objects of one name"
        return found

    return run
