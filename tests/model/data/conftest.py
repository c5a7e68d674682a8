import importlib.util
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from pi_behavior.data.lerobot import LeRobotDataset
from pi_behavior.data.packing import make_copy
from pi_behavior.data.training_copy import CopyOptions, TrainingCopy
from pi_behavior.layout import CAMERAS

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


@pytest.fixture(scope="session")
def copy_of() -> Callable[..., TrainingCopy]:
    """Makes a training copy; a file's name stands for its content."""

    def make(
        demos: Path, root: Path, options: CopyOptions, cameras: tuple[str, ...] = CAMERAS
    ) -> TrainingCopy:
        make_copy(LeRobotDataset(demos), root, options, cameras=cameras, digest=lambda path: path.name)
        return TrainingCopy(root)

    return make
