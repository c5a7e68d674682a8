"""`b1k checkpoint`: its output, and its exit codes for mistakes."""

import json
import sys
from pathlib import Path

import numpy as np
import orbax.checkpoint as ocp
import pytest
from flax import traverse_util

from pi_behavior import checkpoint
from pi_behavior.config import ModelConfig, VisionConfig
from pi_behavior.lbm.config import ClipTextConfig, ClipVisionConfig, LbmConfig
from pi_behavior.lbm.names import assemble, entries
from pi_behavior.lbm.normalisation import Range, Ranges
from pi_behavior.lbm.statistics import PolicyFiles
from pi_behavior.published_layout import BASE_NAMES, published_shapes
from pipelines import cli

GOLDEN = Path(__file__).parents[1] / "golden"
MICRO = ModelConfig(
    vision=VisionConfig(image_size=28, patch=14, width=16, depth=1, heads=2, mlp=24),
    width=32,
    mlp=40,
    depth=2,
    heads=2,
    head_dim=10,
    expert_width=20,
    expert_mlp=36,
    vocabulary=256,
)


def b1k(monkeypatch: pytest.MonkeyPatch, *words: object) -> int:
    monkeypatch.setattr(sys, "argv", ["b1k", "checkpoint", *map(str, words)])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    return int(stop.value.code or 0)


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    shapes = published_shapes(MICRO)
    flat = {tuple(n.split("/")): np.ones(shapes[n], np.float32) for n in BASE_NAMES.values()}
    folder = tmp_path_factory.mktemp("pi05") / "base"
    with ocp.PyTreeCheckpointer() as checkpointer:
        checkpointer.save(folder / "params", {"params": traverse_util.unflatten_dict(flat)})
    return folder


@pytest.mark.parametrize("command", ["import", "export", "inspect", "names"])
def test_each_explains_itself(command, monkeypatch, capsys) -> None:
    assert b1k(monkeypatch, command, "--help") == 0
    assert f"usage: b1k checkpoint {command}" in capsys.readouterr().out


def test_names_are_the_published_ones(monkeypatch, capsys) -> None:
    assert b1k(monkeypatch, "names", "--size", "full") == 0
    assert capsys.readouterr().out == (GOLDEN / "checkpoint-pi_behavior.json").read_text()


def test_names_of_the_large_behavior_model_and_their_number(monkeypatch, capsys) -> None:
    assert b1k(monkeypatch, "names", "--size", "lbm") == 0
    shown = capsys.readouterr()
    shapes = json.loads(shown.out)
    assert shapes["noise_predictor.transformer_blocks.5.adaLN_modulation.1.weight"] == [3072, 4366]
    assert "observation_encoder.vision_encoder.model.vision_model.pre_layrnorm.weight" in shapes
    assert shown.err == "465 tensors, 248,893,191 parameters\n"


def test_a_policy_of_lerobot_goes_in_and_out(tmp_path, monkeypatch, capsys) -> None:
    sizes = {"width": 8, "depth": 1, "heads": 2, "mlp": 8}
    config = LbmConfig(
        vision=ClipVisionConfig(image_size=4, patch=2, **sizes),
        text=ClipTextConfig(vocabulary=20, length=5, **sizes),
        width=8,
        depth=1,
        heads=2,
        crop=(4, 4),
    )
    zeros = assemble(config, {e.name: np.zeros(e.shape, np.float32) for e in entries(config)}, key="name")
    scale = Range(np.zeros(23, np.float32), np.ones(23, np.float32))
    files = PolicyFiles(Ranges(scale, scale), None)
    checkpoint.save(tmp_path / "ours", zeros, config=config, statistics=files, step=7)
    assert b1k(monkeypatch, "export", tmp_path / "ours", tmp_path / "published") == 0
    assert "published: a policy of LeRobot (multi_task_dit)" in capsys.readouterr().out
    assert b1k(monkeypatch, "inspect", tmp_path / "published") == 0
    assert capsys.readouterr().out.endswith("a Large Behavior Model of LeRobot (multi_task_dit)\n")
    assert b1k(monkeypatch, "import", tmp_path / "published", tmp_path / "back") == 0
    assert "policy of LeRobot with its normalisation, without a tokenizer" in capsys.readouterr().out
    assert b1k(monkeypatch, "inspect", tmp_path / "back") == 0
    assert "a checkpoint of ours, step 0, size other" in capsys.readouterr().out
    assert b1k(monkeypatch, "import", tmp_path / "published", tmp_path / "back") == 2
    assert "is there already" in capsys.readouterr().err


def test_import_lists_new_parameters_and_inspect_says_what_it_is(base, tmp_path, monkeypatch, capsys) -> None:
    assert b1k(monkeypatch, "import", base, tmp_path / "out", "--seed", "3") == 0
    shown = capsys.readouterr().out
    assert "23 new parameters, at random from seed 3:" in shown
    assert "  task_embeddings [50, 32]\n" in shown
    assert b1k(monkeypatch, "inspect", tmp_path / "out") == 0
    shown = capsys.readouterr().out
    assert "a checkpoint of ours, step 0, size other, without statistics: train it first" in shown
    count = sum(int(np.prod(shape)) for shape in published_shapes(MICRO).values())
    assert f"74 tensors, {count:,} parameters, {count * 4 / 1e3:.1f} kB" in shown


def test_inspect_lists_published_tensors(base, monkeypatch, capsys) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    assert b1k(monkeypatch, "inspect", base) == 0
    shown = capsys.readouterr().out
    assert shown.endswith("Pi0.5 base\n")
    row = next(line for line in shown.splitlines() if "PaliGemma/llm/embedder/input_embedding" in line)
    for part in ("[256, 32]", "float32", "32.8 kB"):
        assert part in row


def test_inspect_knows_what_it_does_not_know(tmp_path, monkeypatch, capsys) -> None:
    with ocp.PyTreeCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "other", {"weights": {"a": np.zeros((2, 3), np.float32)}})
    assert b1k(monkeypatch, "inspect", tmp_path / "other") == 0
    shown = capsys.readouterr().out
    assert "weights/a" in shown
    assert "1 tensors, 6 parameters, 24 bytes" in shown
    assert "unknown: neither a published policy nor Pi0.5 base" in shown


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("import", "nowhere", "out"), "nowhere is not a folder"),
        (("import", "BASE", "."), ". is there already"),
        (("import", ".", "out"), ". holds no arrays; expected a folder that Orbax wrote"),
        (("export", "nowhere", "out"), "nowhere is not a policy checkpoint"),
        (("inspect", "."), ". holds no arrays; expected a folder that Orbax wrote"),
        (("names", "--size", "tiny"), "parameter state_projection.kernel has no published name"),
        (("names", "--size", "huge"), "size is 'huge'"),
    ],
)
def test_mistakes_end_with_a_message_and_code_2(base, words, message, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    assert b1k(monkeypatch, *(base if word == "BASE" else word for word in words)) == 2
    shown = capsys.readouterr().err
    assert message in shown
    assert "Traceback" not in shown
    assert json.dumps(sorted(p.name for p in tmp_path.iterdir())) == "[]"
