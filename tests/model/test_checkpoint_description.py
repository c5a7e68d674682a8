"""A checkpoint's description, which reads without JAX."""

import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest

from pi_behavior.challenge import EDITIONS
from pi_behavior.checkpoint_description import CheckpointError, read_config, read_edition, write_config
from pi_behavior.config import ModelConfig

TINY = ModelConfig.presets["tiny"]


def test_it_reads_what_was_written_without_jax(tmp_path: Path) -> None:
    write_config(tmp_path, TINY, 7)
    assert read_config(tmp_path) == (TINY, 7)
    script = (
        "import sys; from pathlib import Path; from pi_behavior.checkpoint_description import read_config;"
        "assert read_config(Path(sys.argv[1]))[1] == 7; assert not {'jax', 'orbax'} & {*sys.modules}"
    )
    subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=True)


def test_it_says_what_demonstrations_the_checkpoint_was_trained_on(tmp_path: Path) -> None:
    write_config(tmp_path, TINY, 7)
    assert read_edition(tmp_path) is None
    write_config(tmp_path, TINY, 7, ("2025", EDITIONS["2025"].proprioception))
    document = json.loads((tmp_path / "checkpoint.json").read_text())
    assert (document["edition"], document["proprioception"], read_edition(tmp_path)) == ("2025", 256, "2025")
    assert read_config(tmp_path) == (TINY, 7)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is not a policy checkpoint: Input data was truncated"),
        ('{"step": 1}', "missing required field `model`"),
        (json.dumps({"step": 1, "model": {**asdict(TINY), "later": 1}}), "ModelConfig has no later"),
        (
            json.dumps({"step": 1, "model": {**asdict(TINY), "heads": 3, "kv_heads": 2}}),
            "heads is 3; expected",
        ),
    ],
)
def test_other_files_are_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "checkpoint.json").write_text(text)
    with pytest.raises(CheckpointError, match=message):
        read_config(tmp_path)


def test_a_folder_without_description_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        CheckpointError, match=r"Expected a folder with checkpoint\.json, params/ and statistics/"
    ):
        read_config(tmp_path)
