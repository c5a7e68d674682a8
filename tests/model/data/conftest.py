import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

_spec = importlib.util.spec_from_file_location(
    "dataset_writer", Path(__file__).with_name("dataset_writer.py")
)
_writer = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_writer)


@pytest.fixture(scope="session")
def writer() -> ModuleType:
    return _writer


@pytest.fixture(scope="session")
def demos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two tasks, five episodes, one of them shorter than a chunk."""
    return _writer.write_dataset(tmp_path_factory.mktemp("demos"), {0: [70, 45, 20], 1: [60, 50]})
