"""The options of the network: KV pairings, insulation, stage conditioning, rematerialisation, attention."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st

from pi_behavior.config import ModelConfig, VisionConfig
from pi_behavior.flops import forward_flops, training_flops
from pi_behavior.flow import FLAT
from pi_behavior.layout import CAMERAS
from pi_behavior.losses import total_loss
from pi_behavior.network import PiBehavior
from pi_behavior.network.kv_mix import KVMix, source_layers
from pi_behavior.network.layers import attend
from pi_behavior.observation import FastTokens, Observation
from pi_behavior.tensors import flat_parameters
from pi_behavior.training.config import TrainConfig

CONFIG = ModelConfig(
    vision=VisionConfig(image_size=28, patch=14, width=16, depth=1, heads=2, mlp=16),
    width=32,
    mlp=32,
    depth=4,
    heads=2,
    head_dim=16,
    expert_width=32,
    expert_mlp=32,
    vocabulary=256,
    fast_vocabulary=16,
    dtype="float32",
    freeze_vision=False,
    rematerialise="none",
)


def observation(stage: int = 1, batch: int = 2) -> Observation:
    rng = np.random.default_rng(0)
    images = {c: jnp.asarray(rng.integers(0, 256, (batch, 28, 28, 3), np.uint8)) for c in CAMERAS}
    state = jnp.asarray(rng.normal(size=(batch, 32)), jnp.float32)
    return Observation(images, state, jnp.zeros(batch, jnp.int32), jnp.full(batch, stage, jnp.int32))


def network(**options: object) -> PiBehavior:
    """A network whose adaptive norms are not zero any more, so that every part matters."""
    model = PiBehavior(replace(CONFIG, **options), nnx.Rngs(0))
    keys = iter(jax.random.split(jax.random.key(1), 100))
    state = nnx.state(model, nnx.Param)
    nnx.update(model, jax.tree.map(lambda p: p + 0.1 * jax.random.normal(next(keys), p.shape), state))
    return model


def caches(seed: int = 0) -> tuple[jax.Array, jax.Array]:
    keys, values = jax.random.normal(jax.random.key(seed), (2, CONFIG.depth, 2, 5, 1, 16))
    return keys, values


def test_fixed_pairings() -> None:
    assert source_layers("layerwise", 6).tolist() == [0, 1, 2, 3, 4, 5]
    assert source_layers("last", 6).tolist() == [5] * 6
    assert source_layers("lower_half", 6).tolist() == [0, 0, 1, 1, 2, 2]
    assert max(source_layers("lower_half", 18)) == 8


@pytest.mark.parametrize("source", ["layerwise", "last", "lower_half"])
def test_a_fixed_pairing_has_no_weights_and_is_where_a_learned_one_starts(source: str) -> None:
    fixed = KVMix(replace(CONFIG, kv_mix=source))
    learned = KVMix(replace(CONFIG, kv_mix="learned", kv_mix_start=source))
    assert not jax.tree.leaves(nnx.state(fixed, nnx.Param))
    assert len(flat_parameters(nnx.state(learned, nnx.Param))) == 4
    for ours, theirs in zip(fixed(*caches()), learned(*caches()), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-6)
    keys, values = caches()
    np.testing.assert_array_equal(fixed(keys, values)[0], keys[source_layers(source, CONFIG.depth)])


def loss_gradient(
    model: PiBehavior, config: TrainConfig, fast: FastTokens | None = None
) -> dict[str, jax.Array]:
    graph, parameters = nnx.split(model)

    def loss(state):  # type: ignore[no-untyped-def]
        merged = nnx.merge(graph, state)
        actions, keys = 0.1 * jnp.ones((2, 30, 32)), jax.random.split(jax.random.key(0), 2)
        return total_loss(merged, config, jnp.eye(FLAT), keys, observation(), actions)[0]

    return flat_parameters(jax.grad(loss)(parameters))


def test_insulation_keeps_the_action_loss_out_of_the_prefix_but_not_out_of_the_mix() -> None:
    action_alone = TrainConfig(flow_samples=2, stage_weight=0.0)
    insulated = loss_gradient(network(knowledge_insulation=True), action_alone)
    open_gradient = loss_gradient(network(), action_alone)
    for path, gradient in insulated.items():
        before_the_cache = path.startswith(("vision", "prefix", "task_", "stage_fusion", "token_"))
        assert np.any(gradient) != (before_the_cache or path.startswith(("stage_head", "fast"))), path
    assert np.any(open_gradient["prefix.layers.mlp.down"])
    with_stage = loss_gradient(network(knowledge_insulation=True), TrainConfig(flow_samples=2))
    assert np.any(with_stage["prefix.layers.mlp.down"])


def test_without_conditioning_the_stage_changes_nothing() -> None:
    blind, told = network(stage_conditioning=False), network()
    assert not any("stage_fusion" in path for path in flat_parameters(nnx.state(blind, nnx.Param)))
    noisy, time = jnp.ones((2, 1, 30, 32)), jnp.full((2, 1), 0.5)

    def predict(model: PiBehavior, stage: int) -> np.ndarray:
        prefix = model.encode(observation(stage))
        assert prefix.output.shape[1] == model.config.prefix_tokens
        return np.asarray(model.predict(prefix, noisy, time))

    np.testing.assert_array_equal(predict(blind, 0), predict(blind, 3))
    assert np.abs(predict(told, 0) - predict(told, 3)).max() > 1e-4


@pytest.mark.parametrize("policy", ["dots", "all"])
def test_rematerialisation_does_not_change_the_gradient(policy: str) -> None:
    config = TrainConfig(flow_samples=2)
    stored = loss_gradient(network(), config)
    for path, gradient in loss_gradient(network(rematerialise=policy), config).items():
        np.testing.assert_allclose(gradient, stored[path], rtol=1e-3, atol=1e-6, err_msg=path)


@settings(max_examples=15)
@given(st.integers(1, 7), st.integers(1, 7), st.sampled_from([(2, 1), (4, 2), (3, 3)]), st.integers(0, 99))
def test_attention_is_the_softmax_average_over_the_keys_that_are_seen(
    queries: int, keys: int, heads: tuple[int, int], seed: int
) -> None:
    rng = np.random.default_rng(seed)
    n, g = heads
    q = rng.normal(size=(2, queries, n, 4)).astype(np.float32)
    k, v = rng.normal(size=(2, 2, keys, g, 4)).astype(np.float32)
    mask = rng.random((2, queries, keys)) < 0.6
    result = np.asarray(attend(*map(jnp.asarray, (q, k, v, mask)), kind="auto", scale=0.5))
    k, v = (np.repeat(x, n // g, axis=2) for x in (k, v))
    logits = np.where(mask[:, None], 0.5 * np.einsum("btnk,bsnk->bnts", q, k), -1e30)
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    np.testing.assert_allclose(result, np.einsum("bnts,bsnk->btnk", weights, v), atol=1e-5)


@pytest.mark.parametrize(
    "options",
    [{}, {"state_encoding": "projected"}, {"stage_conditioning": False, "kv_mix": "last"}, {"kv_heads": 2}],
)
def test_counted_flops_are_those_of_the_compiled_forward_pass(options: dict[str, object]) -> None:
    """XLA also counts elementwise work; at these widths matrix products dominate."""
    config = replace(
        CONFIG,
        width=256,
        mlp=512,
        heads=4,
        head_dim=64,
        expert_width=256,
        expert_mlp=512,
        vision=VisionConfig(image_size=56, patch=14, width=128, depth=2, heads=4, mlp=512),
        **options,
    )
    graph, parameters = nnx.split(nnx.eval_shape(lambda: PiBehavior(config, nnx.Rngs(0))))
    batch, chunks, fast_tokens = 2, 3, 8
    fast = FastTokens(jnp.ones((batch, fast_tokens), jnp.int32), jnp.ones((batch, fast_tokens), bool))
    images = {c: jnp.zeros((batch, 56, 56, 3), jnp.uint8) for c in CAMERAS}
    seen = replace(observation(), images=images)

    def forward(state):  # type: ignore[no-untyped-def]
        model = nnx.merge(graph, state)
        prefix = model.encode(seen, fast)
        velocity = model.predict(prefix, jnp.ones((batch, chunks, 30, 32)), jnp.ones((batch, chunks)))
        return velocity, prefix.stage_logits, prefix.fast_logits

    counted = jax.jit(forward).lower(parameters).compile().cost_analysis()["flops"]
    flops = forward_flops(config, fast_tokens)
    ours = batch * (flops.vision + flops.prefix + chunks * flops.chunk)
    assert counted == pytest.approx(ours, rel=0.04)


def test_training_costs_three_forward_passes_of_what_is_trained() -> None:
    full = ModelConfig()
    flops = forward_flops(full)
    # 2 FLOPs per parameter and token: the prefix transformer has 1.98 G parameters without embeddings
    assert flops.prefix == pytest.approx(2 * 1.98e9 * full.prefix_tokens, rel=0.1)
    trained = training_flops(full, 15)
    assert trained == pytest.approx(flops.vision + 3 * (flops.prefix + 15 * flops.chunk))
