"""The Large Behavior Model behind the control loop; see `policy.predictor`."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float, Int, UInt32

from pi_behavior.challenge import MAX_STAGES
from pi_behavior.checkpoint import Checkpoint
from pi_behavior.checkpoint_description import STATISTICS, CheckpointError
from pi_behavior.layout import ACTION_HORIZON
from pi_behavior.lbm.config import LbmConfig
from pi_behavior.lbm.images import windows
from pi_behavior.lbm.language import task_tokens
from pi_behavior.lbm.network import LargeBehaviorModel
from pi_behavior.lbm.objectives import sample_diffusion, sample_flow, sampling_steps
from pi_behavior.lbm.statistics import action_range
from pi_behavior.lbm.tokens import TextTokenizer
from pi_behavior.observation import Observation
from pi_behavior.policy.interface import ClosureTable, Request
from pi_behavior.policy.predictor import JaxPredictor
from pi_behavior.statistics import pad_to_model


@partial(jax.jit, static_argnames="graph")
def _infer(
    graph: "nnx.GraphDef[LargeBehaviorModel]",
    state: "nnx.State[Any, Any]",
    observation: Observation,
    tokens: Int[Array, "b n"],
    mask: Bool[Array, "b n"],
    seed: UInt32[Array, ""],
    noise_ids: UInt32[Array, "b 3"],
) -> Float[Array, "b k 23"]:
    """Chunks as the network was trained to make them."""
    model = nnx.merge(graph, state)
    config = model.config
    conditioning = model.encode(*windows(observation), tokens, mask)
    shape = (config.horizon, config.action_dim)
    steps = len(sampling_steps(config.diffusion))

    def noise(identity: UInt32[Array, " 3"]) -> Float[Array, "n k 23"]:
        key = jax.random.key(seed)
        for part in identity:
            key = jax.random.fold_in(key, part)
        return jax.random.normal(key, (steps, *shape))

    def predict(noisy: Array, time: Array) -> Array:
        return model.predict(noisy, time, conditioning)

    drawn = jnp.moveaxis(jax.vmap(noise)(noise_ids), 0, 1)
    if config.objective == "flow":
        return sample_flow(predict, config.flow, drawn[0])
    return sample_diffusion(predict, config.diffusion, drawn[0], drawn[1:])[0]


class LbmPredictor(JaxPredictor):
    """A checkpoint of this family that answers requests.

    It reads the task's instruction, or the request's own; it has no stages, and ignores saved actions.
    """

    def _prepare(self, loaded: Checkpoint) -> None:
        config = loaded.config
        assert isinstance(config, LbmConfig)
        if problems := list(config.training_problems()):
            raise CheckpointError(
                f"{loaded.path} cannot be served to the challenge's robot: {'; '.join(problems)}"
            )
        self._graph, self._parameters = nnx.split(loaded.model)
        self._range = action_range(config, loaded.statistics)
        self._tokenizer = TextTokenizer.load(loaded.path / STATISTICS, config.text.length)
        self._instructions = task_tokens(self._tokenizer)

    def closure(self, task: int) -> ClosureTable | None:
        """Where the demonstrations close the grippers: the same for all stages, which are not known."""
        table = super().closure(task)
        return None if table is None else np.broadcast_to(table.any(axis=0), table.shape)

    def _infer(
        self, requests: Sequence[Request]
    ) -> tuple[Float[np.ndarray, "b 30 32"], Float[np.ndarray, "b 15"]]:
        rows = [self._text(request) for request in requests]
        chunk = _infer(
            self._graph,
            self._parameters,
            self._observation(requests),
            jnp.stack([tokens for tokens, _ in rows]),
            jnp.stack([mask for _, mask in rows]),
            np.uint32(self._policy.seed),
            np.array([request.noise for request in requests], np.uint32),
        )
        now = slice(self._config.observation_steps - 1, self._config.observation_steps - 1 + ACTION_HORIZON)
        normalised = self._range.unnormalise(np.asarray(chunk))[:, now]
        logits = np.full((len(requests), MAX_STAGES), -np.inf, np.float32)
        logits[:, 0] = 0.0
        return pad_to_model(normalised), logits

    def _text(self, request: Request) -> tuple[np.ndarray, np.ndarray]:
        if request.prompt:
            tokens, mask = self._tokenizer.encode([request.prompt])
            return tokens[0], mask[0]
        return self._instructions.tokens[request.task, 0], self._instructions.mask[request.task, 0]
