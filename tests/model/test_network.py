"""The network against tensors of an independent implementation, and its masks."""

from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from benchmarks import golden
from pi_behavior.config import ModelConfig
from pi_behavior.network import PiBehavior
from pi_behavior.network.masks import prefix_blocks, prefix_mask
from pi_behavior.published_layout import infer_config, load_published, published_shapes
from pi_behavior.tensors import flat_parameters

GOLDEN = Path(__file__).parents[1] / "golden" / "model_tiny.npz"


@pytest.fixture(scope="module", params=["as trained", "as served"])
def golden_rows(request: pytest.FixtureRequest) -> list[tuple[str, float, float, float]]:
    return golden.compare(GOLDEN, serving=request.param == "as served")


def test_every_golden_output_is_reproduced(golden_rows) -> None:
    assert len(golden_rows) == 19
    assert {name: error for name, _, error, tolerance in golden_rows if error > tolerance} == {}


def test_full_size_has_the_published_names_and_parameter_count() -> None:
    shapes = published_shapes(ModelConfig())
    assert len(shapes) == 74
    assert sum(int(np.prod(s)) for s in shapes.values()) == pytest.approx(3404.5e6, rel=1e-4)
    assert shapes["PaliGemma/llm/layers/attn/q_einsum_1/w"] == (18, 8, 1024, 256)
    assert shapes["task_stage_embeddings/embedding"] == (596, 1024)


def test_loading_tensors_lists_every_mismatch() -> None:
    with np.load(GOLDEN) as data:
        tensors = {n.removeprefix("param/"): data[n] for n in data.files if n.startswith("param/")}
    model = PiBehavior(infer_config({name: tensor.shape for name, tensor in tensors.items()}), nnx.Rngs(0))
    tensors["stranger"] = np.zeros(3)
    del tensors["stage_pred_from_vlm/bias"]
    tensors["action_in_proj/bias"] = np.zeros(5)
    with pytest.raises(
        ValueError, match=r"(?s)action_in_proj/bias has.*missing stage_pred.*unknown stranger"
    ):
        load_published(model, tensors)


def test_mask_follows_figure_4() -> None:
    config = ModelConfig.presets["tiny"]
    blocks = prefix_blocks(config, fast_tokens=3)
    images, task = slice(0, config.image_tokens), config.image_tokens
    stage, state = slice(task + 1, task + 5), slice(task + 5, config.prefix_tokens)
    mask = np.asarray(prefix_mask(blocks, jnp.ones((1, len(blocks)), bool)))[0]
    assert mask[images, images].all()
    assert mask[task, images].all()
    assert mask[images, task].all()
    assert not mask[images, stage].any()
    assert not mask[task, state].any()
    assert mask[stage, state].all()
    assert mask[state, stage].all()
    fast = mask[config.prefix_tokens :, config.prefix_tokens :]
    assert (fast == np.tril(np.ones((3, 3), bool))).all()
    assert mask[config.prefix_tokens :, : config.prefix_tokens].all()
    assert not mask[: config.prefix_tokens, config.prefix_tokens :].any()


def test_invalid_tokens_are_neither_seen_nor_see() -> None:
    mask = prefix_mask(np.zeros(3, np.int32), jnp.array([[True, False, True]]))
    assert np.asarray(mask)[0].tolist() == [[True, False, True], [False] * 3, [True, False, True]]


@pytest.mark.parametrize("size", ["tiny", "small"])
def test_parameter_count_of_the_small_sizes(size: str) -> None:
    model = nnx.eval_shape(lambda: PiBehavior(ModelConfig.presets[size], nnx.Rngs(0)))
    count = sum(int(np.prod(p.shape)) for p in flat_parameters(nnx.state(model)).values())
    low, high = {"tiny": (0.5e6, 3e6), "small": (20e6, 40e6)}[size]
    assert low < count < high
