"""Noise, inpainting and losses: the properties that the report relies on."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st

from pi_behavior.config import ModelConfig, VisionConfig
from pi_behavior.correlation import correction_matrix, shrunk_covariance
from pi_behavior.flow import (
    FLAT,
    Inpainting,
    _inpaint,
    constrained_entries,
    correlated_noise,
    free_entries,
    sample,
    sample_time,
)
from pi_behavior.layout import CAMERAS
from pi_behavior.losses import fast_loss, total_loss
from pi_behavior.network import PiBehavior
from pi_behavior.observation import FastTokens, Observation, augment, resize_with_padding
from pi_behavior.training.config import TrainConfig

MICRO = ModelConfig(
    vision=VisionConfig(image_size=28, patch=14, width=16, depth=1, heads=2, mlp=16),
    width=32,
    mlp=32,
    depth=2,
    heads=2,
    head_dim=16,
    expert_width=32,
    expert_mlp=32,
    vocabulary=256,
    fast_vocabulary=16,
    dtype="float32",
    freeze_vision=False,
)


def observation(batch: int = 2, size: int = 28) -> Observation:
    rng = np.random.default_rng(0)
    images = {c: jnp.asarray(rng.integers(0, 256, (batch, size, size, 3), np.uint8)) for c in CAMERAS}
    state = jnp.asarray(rng.normal(size=(batch, 32)), jnp.float32)
    return Observation(images, state, jnp.arange(batch, dtype=jnp.int32), jnp.ones(batch, jnp.int32))


def random_correlation(seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    mix = rng.normal(size=(FLAT, 40))
    covariance = mix @ mix.T + np.eye(FLAT)
    scale = np.sqrt(np.diag(covariance))
    return covariance / scale[:, None] / scale


@pytest.mark.parametrize("beta", [0.0, 0.5, 1.0])
def test_noise_covariance_converges_to_the_shrunk_correlation(beta: float) -> None:
    sigma = random_correlation(1)
    factor = np.linalg.cholesky(shrunk_covariance(sigma, beta))
    draws = 20_000
    noise = correlated_noise(jax.random.key(0), jnp.asarray(factor, jnp.float32), (draws,))
    flat = np.asarray(noise, np.float64).reshape(draws, FLAT)
    measured = flat.T @ flat / draws
    wanted = beta * sigma + (1 - beta) * np.eye(FLAT)
    # the standard error of a covariance of unit-variance variables is at most sqrt(2 / n)
    assert np.abs(measured - wanted).max() < 6 * np.sqrt(2 / draws)


def test_flow_times_follow_the_beta_distribution() -> None:
    time = np.asarray(sample_time(jax.random.key(1), (100_000,)))
    assert time.min() >= 0.001
    assert time.max() <= 1.0
    assert time.mean() == pytest.approx(0.001 + 0.999 * 0.6, abs=0.003)


def _inpaint_with(
    sigma: np.ndarray, beta: float, shift: float, keep: int = 4
) -> tuple[np.ndarray, np.ndarray]:
    correction = jnp.asarray(correction_matrix(shrunk_covariance(sigma, beta), keep), jnp.float32)
    x = jnp.zeros((1, 30, 32))
    initial = Inpainting(jnp.full((1, keep, 23), shift), jnp.array([True]))
    after = _inpaint(x, jnp.zeros_like(x), jnp.float32(0.0), initial, correction)
    flat = np.asarray(after).reshape(FLAT)
    return flat[constrained_entries(keep)], flat[free_entries(keep)]


shifts = st.floats(-0.99, 0.99).map(lambda x: float(np.float32(x)))


@settings(max_examples=10)
@given(shifts, st.integers(1, 29), st.floats(0.0, 1.0))
def test_inpainting_with_independent_entries_leaves_free_entries_alone(
    shift: float, keep: int, beta: float
) -> None:
    constrained, free = _inpaint_with(np.eye(FLAT), beta=beta, shift=shift, keep=keep)
    assert np.allclose(constrained, shift)
    assert np.allclose(free, 0.0)


@settings(max_examples=10)
@given(shifts, st.integers(1, 29))
def test_inpainting_with_perfect_correlation_shifts_everything_rigidly(shift: float, keep: int) -> None:
    constrained, free = _inpaint_with(np.ones((FLAT, FLAT)), beta=1.0, shift=shift, keep=keep)
    assert np.allclose(constrained, shift)
    assert np.allclose(free, shift, atol=1e-3)


@settings(max_examples=10)
@given(st.integers(0, 1000), shifts)
def test_inpainting_moves_free_entries_to_their_conditional_mean(seed: int, shift: float) -> None:
    """For a Gaussian, E[U | O = o] = Sigma_UO Sigma_OO^-1 o; here by the precision matrix instead."""
    sigma = random_correlation(seed)
    constrained, free = _inpaint_with(sigma, beta=0.5, shift=0.1 * shift)
    precision = np.linalg.inv(shrunk_covariance(sigma, 0.5))
    o, u = constrained_entries(4), free_entries(4)
    wanted = -np.linalg.solve(precision[np.ix_(u, u)], precision[np.ix_(u, o)] @ constrained)
    assert np.allclose(free, wanted, atol=1e-3)


def test_unbelievable_corrections_touch_only_the_constrained_entries() -> None:
    constrained, free = _inpaint_with(np.ones((FLAT, FLAT)), beta=1.0, shift=5.0)
    assert np.allclose(constrained, 5.0)
    assert np.allclose(free, 0.0)


def test_the_guard_and_missing_actions_work_per_sample() -> None:
    correction = jnp.asarray(correction_matrix(np.ones((FLAT, FLAT)) + 1e-6 * np.eye(FLAT), 4), jnp.float32)
    shifts = jnp.array([0.5, 5.0, 0.5])[:, None, None] * jnp.ones((3, 4, 23))
    x = jnp.zeros((3, 30, 32))
    given_actions = Inpainting(shifts, jnp.array([True, True, False]))
    after = np.asarray(_inpaint(x, x, jnp.float32(0.0), given_actions, correction)).reshape(3, FLAT)
    free = free_entries(4)
    assert np.allclose(after[0, free], 0.5, atol=1e-3)
    assert np.allclose(after[1, free], 0.0)
    assert np.allclose(after[2], 0.0)


def test_sampling_of_a_batch_equals_sampling_alone() -> None:
    model = PiBehavior(MICRO, nnx.Rngs(0))
    noise = jax.random.normal(jax.random.key(2), (2, 30, 32))
    correction = jnp.asarray(correction_matrix(random_correlation(3), 4), jnp.float32)
    initial = Inpainting(0.1 * jnp.ones((2, 4, 23)), jnp.array([True, False]))
    both = sample(
        model, model.encode(observation()), noise, steps=5, inpainting=initial, correction=correction
    )
    for row in range(2):
        alone = jax.tree.map(lambda a, row=row: a[row : row + 1], (observation(), noise, initial))
        one = sample(
            model, model.encode(alone[0]), alone[1], steps=5, inpainting=alone[2], correction=correction
        )
        np.testing.assert_allclose(one[0], both[row], atol=2e-5)


def test_chunks_of_one_observation_do_not_see_each_other() -> None:
    model = PiBehavior(MICRO, nnx.Rngs(0))
    prefix = model.encode(observation())
    noisy = jax.random.normal(jax.random.key(4), (2, 3, 30, 32))
    time = jnp.array([[0.2, 0.5, 0.9]] * 2)
    together = model.velocity(prefix, noisy, time)
    for chunk in range(3):
        alone = model.velocity(prefix, noisy[:, chunk : chunk + 1], time[:, chunk : chunk + 1])
        np.testing.assert_allclose(alone[:, 0], together[:, chunk], atol=1e-5)


@given(st.integers(1, 6), st.integers(0, 1000))
def test_a_padding_row_of_fast_tokens_gives_no_loss_and_no_gradient(valid: int, seed: int) -> None:
    logits = 10.0 * jax.random.normal(jax.random.key(seed), (2, 6, 16))
    mask = jnp.array([[True] * valid + [False] * (6 - valid), [False] * 6])
    fast = FastTokens(jax.random.randint(jax.random.key(seed), (2, 6), 0, 16), mask)
    loss, gradient = jax.value_and_grad(lambda x: fast_loss(x, fast).sum())(logits)
    chosen = -np.take_along_axis(np.asarray(jax.nn.log_softmax(logits)), fast.tokens[..., None], 2)
    # a small loss is the difference of two numbers near 30, whose float32 are 2e-6 apart
    assert float(loss) == pytest.approx(chosen[0, :valid].mean(), rel=1e-4, abs=1e-5)
    assert np.isfinite(gradient).all()
    assert not np.any(gradient[1])
    assert not np.any(gradient[0, valid:])


def test_total_loss_is_finite_with_its_parts_and_without_gradient_into_frozen_vision() -> None:
    config = TrainConfig(flow_samples=3)
    fast = FastTokens(jnp.ones((2, 6), jnp.int32), jnp.array([[True] * 6, [False] * 6]))
    graph, state = nnx.split(PiBehavior(ModelConfig(**{**vars(MICRO), "freeze_vision": True}), nnx.Rngs(0)))

    def loss(parameters):  # type: ignore[no-untyped-def]
        return total_loss(
            nnx.merge(graph, parameters),
            config,
            jnp.eye(FLAT),
            jax.random.split(jax.random.key(0), 2),
            observation(),
            jnp.zeros((2, 30, 32)),
            fast,
        )

    gradients, metrics = jax.grad(loss, has_aux=True)(state)
    assert all(np.isfinite(float(v)) for v in metrics.values())
    assert {"action_loss_base", "action_loss_grippers", "stage_accuracy", "fast_accuracy"} <= metrics.keys()
    parts = metrics["action_loss"] + 0.1 * metrics["stage_loss"] + 0.05 * metrics["fast_loss"]
    assert float(metrics["loss"]) == pytest.approx(float(parts), rel=1e-6)
    assert all(not np.any(g) for g in jax.tree.leaves(gradients["vision"]))
    assert any(np.any(g) for g in jax.tree.leaves(gradients["expert"]))


@given(st.integers(1, 60), st.integers(1, 60), st.sampled_from([14, 28, 33]))
def test_resizing_keeps_the_aspect_ratio_and_pads_with_black(height: int, width: int, size: int) -> None:
    image = jnp.full((height, width, 3), 200, jnp.uint8)
    result = np.asarray(resize_with_padding(image, size))
    assert result.shape == (size, size, 3)
    filled = (result[..., 0] > 0).sum()
    scale = size / max(height, width)
    assert filled == max(1, round(height * scale)) * max(1, round(width * scale))
    assert set(np.unique(result)) <= {0, 200}


def test_augmentation_changes_images_alone_and_keeps_a_grey_image_grey() -> None:
    before = observation()
    after = augment(jax.random.split(jax.random.key(6), 2), before)
    assert all(after.images[c].dtype == jnp.uint8 for c in CAMERAS)
    assert any(np.any(np.asarray(after.images[c]) != np.asarray(before.images[c])) for c in CAMERAS)
    assert np.array_equal(after.state, before.state)
    grey = {c: jnp.full((1, 28, 28, 3), 100, jnp.uint8) for c in CAMERAS}
    result = augment(
        jax.random.split(jax.random.key(7), 1),
        Observation(grey, before.state[:1], before.task[:1], before.stage[:1]),
    )
    for camera in CAMERAS:
        assert len(np.unique(np.asarray(result.images[camera]))) == 1
