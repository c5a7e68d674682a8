import json
from pathlib import Path

import pytest

from pi_behavior.policy.config import PolicyConfig
from pi_behavior.policy.mapping import CheckpointEntry, read_mapping


def write(folder: Path, name: str = "mapping.json", **document: object) -> Path:
    (folder / "x").mkdir(exist_ok=True)
    (folder / name).write_text(json.dumps(document))
    return folder / name


def test_tasks_are_names_or_numbers_and_paths_relative_to_the_file(tmp_path):
    rows = {
        "one": {"path": "x", "tasks": [0, 3]},
        "two": {"path": str(tmp_path / "x"), "tasks": ["picking_up_trash", 7], "digest": "..."},
        "no tasks": {"path": "missing", "tasks": []},
    }
    assert read_mapping(write(tmp_path, checkpoints=rows, promoted="2025-11-30")) == (
        [
            CheckpointEntry("one", tmp_path / "x", frozenset({0, 3})),
            CheckpointEntry("two", tmp_path / "x", frozenset({1, 7})),
        ],
        None,
    )


def test_settings_of_the_policy_are_read(tmp_path):
    rows = {"one": {"path": "x", "tasks": [0]}}
    assert read_mapping(write(tmp_path, checkpoints=rows, policy={"execute": 10}))[1] == PolicyConfig(10)
    with pytest.raises(ValueError, match="PolicyConfig has no speed"):
        read_mapping(write(tmp_path, checkpoints=rows, policy={"speed": 10}))
    with pytest.raises(ValueError, match="execute is 0; expected at least 1"):
        read_mapping(write(tmp_path, checkpoints=rows, policy={"execute": 0}))


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ("{", "not a mapping"),
        ("[]", "not a mapping"),
        ('{"checkpoints": {}}', "no checkpoints with tasks"),
        ('{"checkpoints": {"a": {"path": ".", "tasks": []}}}', "no checkpoints with tasks"),
        ('{"checkpoints": {"a": {"path": "."}}}', "missing required field `tasks`"),
        ('{"checkpoints": {"a": {"path": ".", "tasks": 3}}}', "not a mapping"),
        (
            '{"checkpoints": {"a": {"path": ".", "tasks": ["pick_up_trash"]}}}',
            "unknown.*picking_up_trash",
        ),
        (
            '{"checkpoints": {"a": {"path": ".", "tasks": [1]}, "b": {"path": ".", "tasks": [1]}}}',
            "two checkpoints",
        ),
        ('{"checkpoints": {"a": {"path": "y", "tasks": [1]}}}', "y is not a policy checkpoint.*names$"),
    ],
)
def test_what_is_wrong_is_named(tmp_path, document, message):
    file = tmp_path / "mapping.json"
    file.write_text(document)
    with pytest.raises(ValueError, match=message):
        read_mapping(file)
    with pytest.raises(ValueError, match="cannot read"):
        read_mapping(tmp_path / "missing.json")


def test_a_champion_of_an_earlier_version_has_to_be_promoted_again(tmp_path):
    rows = {"common": {"path": "artifacts/train/a/checkpoint", "tasks": ["picking_up_trash"]}}
    with pytest.raises(ValueError, match=r"earlier version has to be promoted again.*pipeline evaluate"):
        read_mapping(write(tmp_path, "champion.json", checkpoints=rows))
