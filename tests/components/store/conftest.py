import importlib.util
from collections.abc import Callable
from pathlib import Path

import pytest

from components.store.artifact import Artifact

_spec = importlib.util.spec_from_file_location(
    "small_artifacts", Path(__file__).with_name("small_artifacts.py")
)
_artifacts = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_artifacts)


@pytest.fixture
def make() -> Callable[..., Artifact]:
    """Makes small artifacts."""
    return _artifacts.make
