"""The Large Behavior Model against tensors of the original, its sizes, and how it starts."""

from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import golden_lbm
from pi_behavior.checkpoint_description import CheckpointError
from pi_behavior.lbm.config import ClipTextConfig, ClipVisionConfig, DiffusionConfig, LbmConfig
from pi_behavior.lbm.images import jitter, preprocess, random_offset
from pi_behavior.lbm.names import assemble, entries
from pi_behavior.lbm.network import LargeBehaviorModel
from pi_behavior.lbm.normalisation import Range
from pi_behavior.lbm.objectives import diffusion_loss, sampling_steps
from pi_behavior.policy.history import History
from pi_behavior.tensors import flat_parameters

GOLDEN = Path(__file__).parents[2] / "golden" / "lbm_tiny.npz"
MICRO = LbmConfig(
    vision=ClipVisionConfig(image_size=8, patch=4, width=8, depth=1, heads=2, mlp=12),
    text=ClipTextConfig(vocabulary=20, length=5, width=6, depth=1, heads=2, mlp=8),
    cameras=("left", "right"),
    state_dim=3,
    action_dim=2,
    horizon=6,
    execute=4,
    width=8,
    depth=2,
    heads=2,
    time_width=6,
    crop=(8, 8),
)


@pytest.fixture(scope="module")
def golden_rows() -> list[tuple[str, float, float, float]]:
    with jax.default_matmul_precision("highest"):
        return golden_lbm.compare(GOLDEN)


def test_every_golden_output_is_reproduced(golden_rows) -> None:
    assert len(golden_rows) == 176
    assert {name: error for name, _, error, tolerance in golden_rows if not error <= tolerance} == {}


@pytest.mark.parametrize("name", ["image_features", "text_features", "prediction"])
def test_another_epsilon_of_the_norms_would_show(golden_rows, name) -> None:
    assert next(error for row, _, error, _ in golden_rows if row == name) < 2e-6


def test_an_output_that_is_not_computed_fails(tmp_path) -> None:
    with np.load(GOLDEN) as data:
        kept = {n: data[n] for n in data.files if not n.startswith("out/")}
    np.savez(tmp_path / "other.npz", **kept, **{"out/stranger": np.zeros(3), "out/timesteps_8": np.arange(8)})
    rows = golden_lbm.compare(tmp_path / "other.npz")
    assert [(name, error <= most) for name, _, error, most in rows] == [
        ("stranger", False),
        ("timesteps_8", False),
    ]


@pytest.mark.parametrize(("size", "parameters"), [("lbm", 248_893_191), ("lbm-base", 443_998_999)])
def test_sizes_have_the_published_numbers_of_parameters(size, parameters) -> None:
    assert sum(int(np.prod(e.shape)) for e in entries(LbmConfig.presets[size])) == parameters


@pytest.mark.parametrize(
    "config",
    [
        MICRO,
        replace(MICRO, rotary=False, position_table=True),
        replace(MICRO, separate_vision=True),
    ],
)
def test_published_tensors_come_back_as_they_were(config) -> None:
    rng = np.random.default_rng(0)
    named = entries(config)
    published = {e.name: rng.normal(size=e.shape).astype(np.float32) for e in named}
    assert len(published) == len(named)
    ours = assemble(config, published, key="name")
    for entry in named:
        np.testing.assert_array_equal(
            entry.to_published(ours[entry.path][entry.index]), published[entry.name]
        )
    model = nnx.eval_shape(lambda: LargeBehaviorModel(config, nnx.Rngs(0)))
    shapes = {path: leaf.shape for path, leaf in flat_parameters(nnx.state(model, nnx.Param)).items()}
    assert {path: array.shape for path, array in ours.items()} == shapes


def test_missing_and_misshapen_tensors_are_listed() -> None:
    published = {e.name: np.zeros(e.shape, np.float32) for e in entries(MICRO)}
    del published["noise_predictor.time_mlp.1.bias"]
    published["noise_predictor.input_proj.weight"] = np.zeros((8, 3), np.float32)
    with pytest.raises(
        CheckpointError,
        match=r"(?s)missing noise_predictor.time_mlp.1.bias.*input_proj.weight has the shape \(8, 3\)",
    ):
        assemble(MICRO, published, key="name")


def _batch(config: LbmConfig) -> dict[str, jax.Array]:
    rng, cameras = np.random.default_rng(1), len(config.cameras)
    images = rng.integers(0, 256, (3, config.observation_steps, cameras, 8, 8, 3), np.uint8)
    tokens = np.array([[18, 3, 4, 19, 19], [18, 19, 19, 19, 19], [18, 5, 6, 7, 19]], np.int32)
    return {
        "images": jnp.asarray(images),
        "state": jnp.asarray(rng.normal(size=(3, config.observation_steps, 3)), jnp.float32),
        "tokens": jnp.asarray(tokens),
        "token_mask": jnp.asarray(tokens != 19).at[:, 0].set(True),
    }


@pytest.mark.parametrize("separate", [False, True])
def test_training_starts_with_the_first_and_last_map_and_the_gates(separate) -> None:
    config = replace(MICRO, separate_vision=separate)
    model = LargeBehaviorModel(config, nnx.Rngs(0))
    graph, state = nnx.split(model)
    rng = np.random.default_rng(2)
    actions, noise = (jnp.asarray(rng.normal(size=(3, 6, 2)), jnp.float32) for _ in range(2))
    time = jnp.array([3, 57, 99])

    def loss(parameters):
        network = nnx.merge(graph, parameters)
        conditioning = network.encode(**_batch(config), key=jax.random.key(0))
        assert conditioning.shape == (3, config.conditioning_width)
        return diffusion_loss(
            lambda x, t: network.predict(x, t, conditioning, jax.random.key(1)),
            config.diffusion,
            actions,
            noise,
            time,
        )

    predicted = model.predict(noise, time, jnp.ones((3, config.conditioning_width)))
    direct = model.dit.output_proj(model.dit.input_proj(noise))
    np.testing.assert_allclose(predicted, direct, atol=1e-6)
    gradients = flat_parameters(jax.jit(jax.grad(loss))(state))
    moving = {path for path, gradient in gradients.items() if jnp.any(gradient != 0)}
    maps = {f"dit.{name}.{leaf}" for name in ("input_proj", "output_proj") for leaf in ("kernel", "bias")}
    assert moving == maps | {"dit.blocks.adaln.kernel", "dit.blocks.adaln.bias"}
    columns = np.flatnonzero(np.any(np.asarray(gradients["dit.blocks.adaln.bias"]) != 0, axis=0))
    assert columns.tolist() == [*range(16, 24), *range(40, 48)]


def test_each_cameras_own_encoder_reads_that_camera() -> None:
    config = replace(MICRO, separate_vision=True)
    model = LargeBehaviorModel(config, nnx.Rngs(0))
    images = model.preprocess(_batch(config)["images"])
    features = model.image_features(images)
    changed = model.image_features(images.at[:, :, 1].add(1.0))
    np.testing.assert_array_equal(features[:, :, 0], changed[:, :, 0])
    assert (jnp.abs(features - changed)[:, :, 1].max(axis=-1) > 1e-4).all()


def test_padding_of_an_instruction_changes_nothing() -> None:
    model = LargeBehaviorModel(MICRO, nnx.Rngs(0))
    short, mask = jnp.array([[18, 5, 19]]), jnp.ones((1, 3), bool)
    padded = model.text(jnp.array([[18, 5, 19, 19, 19]]), jnp.array([[True, True, True, False, False]]))
    np.testing.assert_allclose(model.text(short, mask), padded, atol=1e-6)


def test_images_of_another_size_need_resize_or_crop() -> None:
    with pytest.raises(ValueError, match="become 5 x 9; the vision encoder expects 8 x 8: set resize"):
        preprocess(MICRO, jnp.zeros((2, 5, 9, 3), jnp.uint8))


def test_random_crops_reach_every_place() -> None:
    offsets = jax.vmap(lambda key: random_offset(key, 6, 5, (4, 5)))(jax.random.split(jax.random.key(0), 64))
    assert {tuple(row) for row in np.asarray(offsets).tolist()} == {(0, 0), (1, 0), (2, 0)}


def test_jitter_keeps_greys_grey_and_values_in_range() -> None:
    image = jax.random.uniform(jax.random.key(1), (4, 5, 3))
    changed = jitter(jax.random.key(0), image)
    assert 0 <= float(changed.min()) <= float(changed.max()) <= 1
    assert float(jnp.abs(changed - image).max()) > 0.01
    grey = jitter(jax.random.key(0), jnp.full((4, 5, 3), 0.4))
    assert float((grey.max(axis=-1) - grey.min(axis=-1)).max()) < 2e-3


@given(st.integers(1, 200).flatmap(lambda n: st.tuples(st.just(n), st.integers(1, n))))
def test_sampling_visits_falling_steps_and_ends_at_the_first(steps) -> None:
    most, count = steps
    found = sampling_steps(DiffusionConfig(train_steps=most, steps=count))
    assert len(found) == count
    assert found[-1] == 0
    assert found[0] < most
    assert (np.diff(found) < 0).all()


def test_a_range_brings_values_back_and_holds_constant_dimensions() -> None:
    low, high = np.array([-2.0, 0.5, 0.0], np.float32), np.array([3.0, 0.5, 1.0], np.float32)
    scale = Range(low, high)
    values = np.array([[-2.0, 0.5, 0.25], [3.0, 0.5, 1.5]], np.float32)
    assert scale.normalise(values).tolist() == [[-1, -1, -0.5], [1, -1, 2]]
    np.testing.assert_allclose(scale.unnormalise(scale.normalise(values)), values, rtol=1e-6)
    off = values + np.array([0, 0.001, 0], np.float32)
    assert scale.normalise(off)[0, 1] > 100_000
    np.testing.assert_array_equal(scale.safe(off)[:, 1], [-1, -1])
    assert Range(low, high, limit=1.5).normalise(values)[1].tolist() == [1, -1, 1.5]


def test_a_history_begins_with_copies_of_its_first_value() -> None:
    history = History(3)
    history.append(np.array([1.0]))
    assert history.window().tolist() == [[1.0], [1.0], [1.0]]
    for value in (2.0, 3.0, 4.0):
        history.append(np.array([value]))
    assert history.window().tolist() == [[2.0], [3.0], [4.0]]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"execute": 6}, "execute is 6; expected at most horizon - observation_steps"),
        ({"heads": 3}, "width is 8; expected a multiple of heads 3"),
        ({"heads": 8}, "rotary positions need an even number"),
        ({"cameras": ("left", "left")}, "expected different names"),
        ({"crop": (8,)}, r"crop is \(8,\); expected rows and columns"),
        ({"dropout": 1.0}, "dropout is 1.0"),
        ({"time_width": 7}, "time_width is 7; expected an even number"),
    ],
)
def test_sizes_that_do_not_fit_are_named(changes, message) -> None:
    with pytest.raises(ValueError, match=message):
        replace(MICRO, **changes)
