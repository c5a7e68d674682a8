"""Datasets that the lerobot package wrote and read: 0.3.3 for v2.1, 0.6.1 for v3.0."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from benchmarks.golden_lerobot import compare
from pi_behavior.data.depth import DepthScale
from pi_behavior.data.lerobot import DatasetError, LeRobotDataset

GOLDEN = Path(__file__).parents[2] / "golden"


@pytest.mark.parametrize("name", ["lerobot-v21", "lerobot-v3-partial"])
def test_all_values_and_frames_are_those_of_lerobot(name) -> None:
    report = compare(GOLDEN / name)
    assert {check: found for check, found in report.differences.items() if found} == {}
    assert report.counts["length"] == 3
    singles = [count for check, count in report.counts.items() if check.endswith("one by one")]
    assert len(singles) == 3
    assert min(singles) > 150


def test_a_difference_is_reported(tmp_path) -> None:
    folder = shutil.copytree(GOLDEN / "lerobot-v21", tmp_path / "copy")
    expected = json.loads((folder / "expected.json").read_text())
    expected["episodes"][0]["cameras"]["observation.images.rgb.head"]["frames"][0]["stamp"] += 1
    expected["episodes"][1]["action_first"][3] += 0.01
    (folder / "expected.json").write_text(json.dumps(expected))
    differences = compare(folder).differences
    assert len(differences["observation.images.rgb.head: one by one"]) == 44
    assert len(differences["column action"]) == 1


def test_depth_codes_become_metres() -> None:
    dataset = LeRobotDataset(GOLDEN / "lerobot-v3-partial")
    scale = dataset.depth_scale("observation.depth_linear.zed_link_camera_0")
    assert scale == DepthScale(0.01, 10.0, 3.5, 4095)
    depth = np.array([0.01, 0.5, 10.0])
    span = np.log(13.5) - np.log(3.51)
    codes = np.round(4095 * (np.log(depth + 3.5) - np.log(3.51)) / span).astype(np.uint16)
    np.testing.assert_allclose(scale.metres(codes), depth, atol=0.0025)
    with pytest.raises(DatasetError, match=r"rgb\.zed_link_camera_0: .*expected a depth video"):
        dataset.depth_scale("observation.rgb.zed_link_camera_0")
