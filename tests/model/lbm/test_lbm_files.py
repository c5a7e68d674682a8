"""LeRobot's checkpoint folders, CLIP's weights and CLIP's tokenizer."""

import json
from dataclasses import replace
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from pi_behavior import checkpoint
from pi_behavior.checkpoint_description import CheckpointError, read_config
from pi_behavior.config import ModelConfig
from pi_behavior.lbm.clip_files import read_clip
from pi_behavior.lbm.clip_start import start_from_clip
from pi_behavior.lbm.config import ClipTextConfig, ClipVisionConfig, DiffusionConfig, FlowConfig, LbmConfig
from pi_behavior.lbm.lerobot import export_lerobot, import_lerobot
from pi_behavior.lbm.names import assemble, entries
from pi_behavior.lbm.normalisation import Range, Ranges
from pi_behavior.lbm.statistics import PolicyFiles
from pi_behavior.lbm.tokens import TextTokenizer
from pi_behavior.tensors import read_arrays

TOKENIZER = TextTokenizer.train(["Put the red ball into the box.", "Open the box."], 600, 9)
MICRO = LbmConfig(
    vision=ClipVisionConfig(image_size=8, patch=4, width=12, depth=2, heads=3, mlp=16),
    text=ClipTextConfig(vocabulary=600, length=9, width=6, depth=1, heads=2, mlp=8),
    cameras=("left", "right"),
    state_dim=3,
    action_dim=2,
    horizon=6,
    execute=4,
    width=8,
    depth=2,
    heads=2,
    time_width=6,
    resize=(10, 9),
    crop=(8, 8),
)
RANGES = Ranges(
    Range(np.array([-1, 0, 2], np.float32), np.array([1, 0, 5], np.float32)),
    Range(np.array([-0.5, -3], np.float32), np.array([0.25, 4], np.float32)),
)
OTHER = replace(
    MICRO,
    rotary=False,
    position_table=True,
    separate_vision=True,
    objective="flow",
    pixels="clip",
    resize=(),
    execute=5,
    mask_padding=True,
    diffusion=DiffusionConfig(50, "sample", "ddim", 10, clip=False, clip_range=2.0),
    flow=FlowConfig(0.1, "uniform", 0.9, 2.0, 1.5, "rk4", 7),
)


def parameters(config: LbmConfig) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(3)
    named = {e.name: rng.normal(size=e.shape).astype(np.float32) for e in entries(config)}
    return assemble(config, named, key="name")


def exported(folder: Path, config: LbmConfig = MICRO, tokenizer: TextTokenizer | None = TOKENIZER) -> Path:
    """A policy in LeRobot's format; our checkpoint that it was made of is beside it."""
    files = PolicyFiles(RANGES, tokenizer)
    checkpoint.save(folder / "ours", parameters(config), config=config, statistics=files, step=5)
    export_lerobot(folder / "ours", folder / "published")
    return folder / "published"


def rewrite(file: Path, **changes: object) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


@pytest.mark.parametrize("config", [MICRO, OTHER])
def test_a_policy_comes_back_from_lerobots_format(config, tmp_path) -> None:
    published = exported(tmp_path, config)
    made = import_lerobot(published, tmp_path / "back")
    assert made.config == config
    assert made.tokenizer
    assert read_config(tmp_path / "back") == (config, 0)
    before, after = (read_arrays(tmp_path / name / "params") for name in ("ours", "back"))
    assert before.keys() == after.keys()
    for name, array in before.items():
        np.testing.assert_array_equal(array, after[name], err_msg=name)
    files = PolicyFiles.load(tmp_path / "back" / "statistics", config.text.length)
    assert files.tokenizer == TOKENIZER
    for name in ("state", "action"):
        ours, theirs = getattr(files.ranges, name), getattr(RANGES, name)
        np.testing.assert_array_equal([ours.low, ours.high], [theirs.low, theirs.high])


def test_files_and_names_are_lerobots(tmp_path) -> None:
    published = exported(tmp_path)
    assert {p.relative_to(published).as_posix() for p in published.rglob("*") if p.is_file()} == {
        "model.safetensors",
        "config.json",
        "clip/config.json",
        "tokenizer.json",
        "policy_preprocessor.json",
        "policy_preprocessor_step_4_normalizer_processor.safetensors",
        "policy_postprocessor.json",
        "policy_postprocessor_step_0_unnormalizer_processor.safetensors",
    }
    tensors = load_file(published / "model.safetensors")
    begin = "observation_encoder.vision_encoder.model.vision_model."
    assert tensors[f"{begin}embeddings.patch_embedding.weight"].shape == (12, 3, 4, 4)
    assert tensors[f"{begin}encoder.layers.1.mlp.fc1.weight"].shape == (16, 12)
    ours = parameters(MICRO)
    np.testing.assert_array_equal(
        tensors["noise_predictor.transformer_blocks.1.attn.qkv_proj.weight"],
        ours["dit.blocks.qkv.kernel"][1].T,
    )
    config = json.loads((published / "config.json").read_text())
    assert config["type"] == "multi_task_dit"
    assert list(config["input_features"]) == [
        "observation.state",
        "observation.images.left",
        "observation.images.right",
    ]
    assert config["num_inference_steps"] is None
    assert config["image_resize_shape"] == [10, 9]
    state = load_file(published / "policy_preprocessor_step_4_normalizer_processor.safetensors")
    np.testing.assert_array_equal(state["observation.state.max"], [1, 0, 5])
    assert state["observation.images.right.mean"].shape == (3, 1, 1)


def test_other_versions_of_names_steps_and_types_are_read(tmp_path) -> None:
    published = exported(tmp_path)
    tensors = load_file(published / "model.safetensors")
    longer = {
        name.replace(".text_model.", ".text_model.text_model.").replace(
            ".model.vision_model.", ".model.vision_model.vision_model."
        ): array.astype(ml_dtypes.bfloat16)
        for name, array in tensors.items()
    }
    longer["observation_encoder.text_encoder.text_encoder.text_model.embeddings.position_ids"] = np.arange(9)
    save_file(longer, published / "model.safetensors")
    file = published / "policy_preprocessor.json"
    steps = json.loads(file.read_text())["steps"]
    del steps[4]["state_file"]
    file.write_text(json.dumps(steps))
    config = published / "config.json"
    rewrite(config, device="cuda", push_to_hub=True, tags=None, rtc_config=None)
    assert import_lerobot(published, tmp_path / "back").config == MICRO
    name = "dit.time_in.kernel"
    back = read_arrays(tmp_path / "back" / "params")[name]
    np.testing.assert_array_equal(back, parameters(MICRO)[name].astype(ml_dtypes.bfloat16).astype(np.float32))


def test_every_mistake_of_the_configuration_is_named(tmp_path) -> None:
    published = exported(tmp_path)
    rewrite(
        published / "config.json",
        magic=3,
        beta_schedule="linear",
        objective="guessing",
        normalization_mapping={"STATE": "MEAN_STD"},
    )
    with pytest.raises(CheckpointError) as refused:
        import_lerobot(published, tmp_path / "back")
    for part in (
        "magic is 3; this version does not know the key",
        "beta_schedule is 'linear'; expected 'squaredcos_cap_v2'",
        "objective is 'guessing'; expected diffusion or flow_matching",
        "normalization_mapping has STATE MEAN_STD; expected MIN_MAX",
    ):
        assert part in str(refused.value)
    assert not (tmp_path / "back").exists()


def test_missing_and_unknown_tensors_are_named(tmp_path) -> None:
    published = exported(tmp_path)
    tensors = load_file(published / "model.safetensors")
    del tensors["noise_predictor.output_proj.bias"]
    tensors["stranger"] = np.zeros(2, np.float32)
    save_file(tensors, published / "model.safetensors")
    with pytest.raises(
        CheckpointError, match=r"(?s)missing noise_predictor.output_proj.bias.*unknown stranger"
    ):
        import_lerobot(published, tmp_path / "back")


@pytest.mark.parametrize("name", ["config.json", "policy_preprocessor.json", "model.safetensors"])
def test_damaged_files_are_named(name, tmp_path) -> None:
    published = exported(tmp_path)
    (published / name).write_bytes((published / name).read_bytes()[:40])
    with pytest.raises(CheckpointError, match=name):
        import_lerobot(published, tmp_path / "back")
    assert not (tmp_path / "back").exists()


def test_heads_that_nothing_tells_of_are_asked_for(tmp_path) -> None:
    published = exported(tmp_path)
    rewrite(published / "config.json", vision_encoder_name="somebody/clip")
    with pytest.raises(CheckpointError, match="the vision encoder is 12 wide, and vision_encoder_name"):
        import_lerobot(published, tmp_path / "back")


def test_a_tokenizer_comes_from_clips_folder(tmp_path) -> None:
    published = exported(tmp_path, tokenizer=None)
    assert not import_lerobot(published, tmp_path / "without").tokenizer
    TOKENIZER.save(tmp_path / "clip")
    assert import_lerobot(published, tmp_path / "with", clip=tmp_path / "clip").tokenizer
    TextTokenizer.train(["a"], 700, 9).save(tmp_path / "clip")
    with pytest.raises(CheckpointError, match="has 700 tokens; the policy reads 600"):
        import_lerobot(published, tmp_path / "other", clip=tmp_path / "clip")


def test_nothing_is_overwritten_and_other_checkpoints_are_refused(tmp_path) -> None:
    published = exported(tmp_path)
    with pytest.raises(CheckpointError, match="is there already"):
        import_lerobot(published, tmp_path / "ours")
    with pytest.raises(CheckpointError, match="is there already"):
        export_lerobot(tmp_path / "ours", published)
    checkpoint.save(
        tmp_path / "pi", {"a": np.ones(1)}, config=ModelConfig.presets["tiny"], statistics=None, step=0
    )
    with pytest.raises(CheckpointError, match="another family"):
        export_lerobot(tmp_path / "pi", tmp_path / "new")
    percentile = replace(MICRO, normalisation="percentile")
    files = PolicyFiles(RANGES, None)
    checkpoint.save(tmp_path / "tri", parameters(MICRO), config=percentile, statistics=files, step=0)
    with pytest.raises(CheckpointError, match="is percentile; LeRobot's format knows min_max alone"):
        export_lerobot(tmp_path / "tri", tmp_path / "new")


def clip_folder(folder: Path, config: LbmConfig = MICRO) -> dict[str, np.ndarray]:
    """CLIP as published, with tensors that the policy does not use."""
    rng = np.random.default_rng(4)
    tensors = {e.clip: rng.normal(size=e.shape).astype(np.float32) for e in entries(config) if e.clip}
    extra = {"logit_scale": np.ones((), np.float32), "visual_projection.weight": np.ones((4, 12), np.float32)}
    folder.mkdir()
    save_file({**tensors, **extra}, folder / "model.safetensors")
    heads = {f"{p}_config": {"num_attention_heads": h} for p, h in (("vision", 3), ("text", 2))}
    (folder / "config.json").write_text(json.dumps(heads))
    TOKENIZER.save(folder)
    return tensors


@pytest.mark.parametrize("separate", [False, True])
def test_clips_weights_reach_every_encoder(separate, tmp_path) -> None:
    tensors = clip_folder(tmp_path / "clip")
    config = replace(MICRO, separate_vision=separate)
    (tmp_path / "clip" / "README.md").write_text("---\nlicense: mit\n---\n")
    origin = start_from_clip(tmp_path / "clip", tmp_path / "start", config, seed=1)
    assert origin.licence == "mit"
    assert origin.sha256 == checkpoint.digest(tmp_path / "clip")
    assert TextTokenizer.load(tmp_path / "start" / "statistics", 9) == TOKENIZER
    found = read_arrays(tmp_path / "start" / "params")
    kernel = tensors["vision_model.encoder.layers.1.self_attn.k_proj.weight"].T
    keys = found["vision.layers.key.kernel"]
    for encoder in keys if separate else [keys]:
        np.testing.assert_array_equal(encoder[1], kernel)
    np.testing.assert_array_equal(
        found["text.token"], tensors["text_model.embeddings.token_embedding.weight"]
    )
    assert found["text.projection.kernel"].std() > 0.1
    assert not found["dit.blocks.adaln.kernel"].any()
    assert read_config(tmp_path / "start") == (config, 0)


def test_absent_or_other_clip_weights_are_explained(tmp_path) -> None:
    with pytest.raises(CheckpointError, match=r"has no model.safetensors: expected CLIP as it is published"):
        read_clip(tmp_path, MICRO)
    clip_folder(tmp_path / "clip")
    wider = replace(MICRO, vision=replace(MICRO.vision, mlp=20))
    with pytest.raises(CheckpointError, match=r"mlp.fc1.bias has the shape \(16,\), expected \(20,\)"):
        read_clip(tmp_path / "clip", wider)
    other = replace(MICRO, vision=replace(MICRO.vision, heads=4))
    with pytest.raises(CheckpointError, match=r"vision transformer in .* has 3 heads; the policy's has 4"):
        read_clip(tmp_path / "clip", other)


def test_texts_become_clips_tokens(tmp_path) -> None:
    letters = "abcht"
    table = [*letters, *(f"{x}</w>" for x in letters), "'s</w>", "at</w>", "cat</w>"]
    table += ["<|startoftext|>", "<|endoftext|>"]
    (tmp_path / "vocab.json").write_text(json.dumps({token: n for n, token in enumerate(table)}))
    (tmp_path / "merges.txt").write_text("#version: 0.2\na t</w>\nc at</w>\n")
    tokenizer = TextTokenizer.load(tmp_path, 8)
    tokens, mask = tokenizer.encode(["A  CAT\nhat", "", "cat cat cat cat cat cat cat cat"])
    assert tokens[0].tolist() == [13, 5, 12, 3, 11, 14, 14, 14]
    assert mask[0].tolist() == [True] * 6 + [False] * 2
    assert tokens[1].tolist() == [13] + [14] * 7
    assert tokens[2].tolist() == [13] + [12] * 6 + [14]
    assert mask[2].all()
    tokenizer.save(tmp_path / "saved")
    again = TextTokenizer.load(tmp_path / "saved", 8)
    np.testing.assert_array_equal(again.encode(["A  CAT\nhat"])[0], tokens[:1])


def test_a_learned_tokenizer_reads_any_text_and_ends_with_its_highest_token() -> None:
    tokens, mask = TOKENIZER.encode(["open the box.", "日本", "Put the red ball into the box. " * 9])
    assert TOKENIZER.vocabulary == 600
    assert (tokens.max(axis=1) == 599).all()
    assert (tokens[:, 0] == 598).all()
    assert mask[0].sum() == 6
    assert tokens[1, 1] < 598
    assert mask[2].all()
    with pytest.raises(ValueError, match="the vocabulary is 100; expected at least 514"):
        TextTokenizer.train(["a"], 100, 9)


def test_a_folder_without_a_tokenizer_is_explained(tmp_path) -> None:
    with pytest.raises(
        CheckpointError, match=r"Expected tokenizer.json, or vocab.json and merges.txt, of CLIP"
    ):
        TextTokenizer.load(tmp_path, 8)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(CheckpointError, match="the tokenizer cannot be read"):
        TextTokenizer.load(tmp_path, 8)
