import json
from pathlib import Path

import numpy as np
import pytest

from pi_behavior.policy.checkpoints import CheckpointEntry, CheckpointPool, UnknownTaskError, read_mapping
from pi_behavior.policy.interface import NoiseId, Request


def request(task: int) -> Request:
    images = {"head": np.zeros((2, 2, 3), np.uint8)}
    return Request(images, np.zeros(23), task=task, stage=0, saved=None, noise=NoiseId(0, 0, 0))


@pytest.fixture
def pool_of(formula):
    loads: list[str] = []

    def make(capacity: int, tasks: dict[str, set[int] | None]) -> tuple[CheckpointPool, list[str]]:
        offsets = {name: 100.0 * (index + 1) for index, name in enumerate(tasks)}

        def load(path: Path):
            loads.append(path.name)
            return formula(offsets[path.name])

        entries = [
            CheckpointEntry(name, Path(name), None if ids is None else frozenset(ids))
            for name, ids in tasks.items()
        ]
        return CheckpointPool(entries, load, capacity=capacity), loads

    return make


def test_requests_go_to_their_tasks_checkpoint_in_order(pool_of):
    pool, _ = pool_of(2, {"a": {1, 2}, "b": {3}})
    answers = pool.predict([request(task) for task in (3, 1, 3, 2, 3, 3, 3)])
    assert [round(float(answer.chunk[0, 0]), -2) for answer in answers] == [200, 100, 200, 100, 200, 200, 200]


def test_more_requests_than_the_largest_batch_are_split(formula):
    predictor = formula()
    pool = CheckpointPool([CheckpointEntry("a", Path("a"), None)], lambda _: predictor, capacity=1)
    pool.predict([request(1)] * 9)
    assert predictor.batches == [4, 4, 1]


def test_the_least_recently_used_checkpoint_leaves(pool_of):
    pool, loads = pool_of(2, {"a": {1}, "b": {2}, "c": {3}})
    pool.warm()
    assert loads == ["a", "b"]
    for task in (1, 3, 1, 2):
        pool.predict([request(task)])
    assert loads == ["a", "b", "c", "b"]
    assert pool.loaded == ("a", "b")


def test_closure_is_known_after_a_prediction_and_survives_eviction(pool_of):
    pool, _ = pool_of(1, {"a": {0}, "b": {2}})
    assert pool.closure(0) is None
    pool.predict([request(0), request(2)])
    assert pool.loaded == ("b",)
    assert pool.closure(0).shape == (15, 2)
    assert pool.closure(2) is None


def test_unknown_task(pool_of):
    pool, _ = pool_of(1, {"a": {1, 2}})
    with pytest.raises(UnknownTaskError, match=r"task 7.*\[1, 2\]"):
        pool.predict([request(7)])
    with pytest.raises(ValueError, match="capacity"):
        pool_of(0, {"a": None})


def test_mapping_file(tmp_path):
    (tmp_path / "x").mkdir()
    file = tmp_path / "mapping.json"
    rows = {"one": {"path": "x", "tasks": [0, 3]}, "two": {"path": str(tmp_path / "x"), "tasks": []}}
    file.write_text(json.dumps({"checkpoints": rows}))
    assert read_mapping(file) == [
        CheckpointEntry("one", tmp_path / "x", frozenset({0, 3})),
        CheckpointEntry("two", tmp_path / "x", frozenset()),
    ]


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ("{", "not a mapping"),
        ("[]", "not a mapping"),
        ('{"checkpoints": {}}', "no checkpoints"),
        ('{"checkpoints": {"a": {"path": "."}}}', "not a mapping"),
        ('{"checkpoints": {"a": {"path": ".", "tasks": 3}}}', "not a mapping"),
        ('{"checkpoints": {"a": {"path": "none", "tasks": [1]}}}', "not a folder"),
        (
            '{"checkpoints": {"a": {"path": ".", "tasks": [1]}, "b": {"path": ".", "tasks": [1]}}}',
            "two checkpoints",
        ),
    ],
)
def test_bad_mappings(tmp_path, document, message):
    file = tmp_path / "mapping.json"
    file.write_text(document)
    with pytest.raises(ValueError, match=message):
        read_mapping(file)
    with pytest.raises(ValueError, match="cannot read"):
        read_mapping(tmp_path / "missing.json")
