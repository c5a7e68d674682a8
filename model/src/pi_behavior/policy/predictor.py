"""The network behind the control loop: a checkpoint, compiled for a few batch sizes.

Source: report, sections 4.5 (delta actions, normalisation), 5 (correlated noise), 7.1 (inpainting).
"""

import logging
import os
import time
from collections.abc import Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float, UInt8

from pi_behavior import checkpoint
from pi_behavior.challenge import MAX_STAGES
from pi_behavior.checkpoint import Checkpoint
from pi_behavior.checkpoint_description import read_config
from pi_behavior.config import ModelConfig
from pi_behavior.flow import Correlation, Inpainting
from pi_behavior.layout import ACTION_DIM, BASE, CAMERAS
from pi_behavior.network import PiBehavior
from pi_behavior.observation import Earlier, Observation, resize_with_padding
from pi_behavior.policy.config import FloatType, PolicyConfig
from pi_behavior.policy.interface import ClosureTable, Moments, NoiseId, Prediction, Request
from pi_behavior.policy.program import Structure, has_bfloat16, infer, number_types
from pi_behavior.policy.protocol import ProtocolError
from pi_behavior.statistics import pad_to_model

logger = logging.getLogger(__name__)

EVALUATOR_SIZES = (224, 480, 720)
"""Sides of the evaluators' images, in pixels; resizing them is compiled at start."""
_OTHER_SIZES = 16
"""Other image sizes that a server resizes; each takes a compilation, and memory for good."""

_resize = jax.jit(resize_with_padding, static_argnames="size")


def _before(request: Request, past: int) -> Moments:
    """What was seen at so many steps before; the current observation at an episode's start."""
    if request.earlier is not None:
        return request.earlier
    images = {camera: np.repeat(image[None], past, axis=0) for camera, image in request.images.items()}
    return Moments(images, np.repeat(request.state[None], past, axis=0))


class JaxPredictor:
    """A checkpoint that answers requests.

    An answer depends on its request and the seed alone: the noise is drawn from the request's `NoiseId`, and
    rows of a batch do not mix. (Programs of different batch sizes may round differently.)
    """

    def __init__(
        self, loaded: Checkpoint, policy: PolicyConfig, batch_sizes: Sequence[int], digest: str = ""
    ) -> None:
        """Prepare and compile.

        Args:
            loaded: the checkpoint; its network is rearranged for serving, in place.
            policy: Euler steps, kept actions and seed.
            batch_sizes: sizes to compile for.
            digest: of the checkpoint's folder.
        """
        self.digest = digest
        self.batch_sizes = tuple(sorted(set(batch_sizes)))
        self._config = loaded.config
        self._statistics = loaded.statistics
        self._policy = policy
        self._prepare(loaded)
        self._sizes: set[tuple[int, ...]] = set()
        self._masked = False
        self._compile()

    def _prepare(self, loaded: Checkpoint) -> None:
        """Arrange what the network's program reads."""
        policy = self._policy
        assert isinstance(loaded.config, ModelConfig)
        assert isinstance(loaded.model, PiBehavior)
        loaded.model.prepare_for_serving()
        graph, state = nnx.split(loaded.model)
        # hundreds of arrays: flattened here once, in C++ at every call
        self._weights, tree = jax.tree.flatten(state)
        self._structure = Structure(graph, tree)
        beta = loaded.config.noise_beta
        # without kept actions there is nothing to correct, and the sampler does not look at it
        correction = np.zeros((0, 0))
        if policy.kept:
            correction = loaded.statistics.correction_matrix(beta, policy.kept)
        if policy.inpainting == "hard":
            correction = np.zeros_like(correction)
        self._correlation = Correlation(
            jnp.asarray(loaded.statistics.regularised_cholesky(beta), jnp.float32),
            jnp.asarray(correction, jnp.float32),
        )

    @classmethod
    def load(
        cls,
        path: Path,
        policy: PolicyConfig,
        batch_sizes: Sequence[int],
        parameters: FloatType = "auto",
        compute: FloatType = "auto",
    ) -> "JaxPredictor":
        """Read and compile a checkpoint.

        Args:
            path: the folder.
            policy: Euler steps, kept actions and seed.
            batch_sizes: sizes to compile for.
            parameters: type of the weights in memory, see `ServerConfig`.
            compute: type of the computation, see `ServerConfig`.

        Raises:
            ValueError: the folder is not a checkpoint.
        """
        if "JAX_COMPILATION_CACHE_DIR" in os.environ:
            # the default keeps only programs that took a second to compile
            jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
        start = time.monotonic()
        device = jax.devices()[0]
        held, computed = number_types(
            read_config(path)[0].dtype,
            parameters,
            compute,
            is_gpu=device.platform != "cpu",
            has_bfloat16=has_bfloat16(device),
        )
        digest = checkpoint.digest(path)
        loaded = checkpoint.load(path, None if held == "float32" else held, computed)
        read = time.monotonic()
        predictor = cls(loaded, policy, batch_sizes, digest)
        layout = loaded.statistics.layout
        logger.info(
            "checkpoint %s, step %d, %s, sha256 %s: read in %.1f s as %s, compiled for batches of %s in "
            "%.1f s, computing in %s",
            path,
            loaded.step,
            f"demonstrations of {layout[0]}" if layout else "demonstrations of an unknown edition",
            digest,
            read - start,
            held,
            ", ".join(map(str, predictor.batch_sizes)),
            time.monotonic() - read,
            computed,
        )
        return predictor

    @property
    def observation_steps(self) -> int:
        """Observations that the network reads."""
        return self._config.observation_steps

    def closure(self, task: int) -> ClosureTable | None:
        """Where the demonstrations close the grippers; None for a task without demonstrations."""
        table = self._statistics.closure.get(str(task))
        return None if table is None else np.asarray(table, bool)

    def check(self, request: Request) -> None:
        """Check that a request can be answered.

        Raises:
            ProtocolError: the network has no embedding of the task, or the images have a new size after the
                most sizes that the server compiles programs for.
        """
        if not 0 <= request.task < self._config.tasks:
            raise ProtocolError(
                f"task {request.task} is unknown to the network; it knows 0 to {self._config.tasks - 1}"
            )
        size = self._config.image_size
        known = {(side, side) for side in (size, *EVALUATOR_SIZES)}
        new = {image.shape[:2] for image in request.images.values()} - known - self._sizes
        if len(self._sizes) + len(new) > _OTHER_SIZES:
            raise ProtocolError(
                f"images of {' and '.join(map(str, sorted(new)))} pixels are one size too many; expected "
                f"squares of {size} or {', '.join(map(str, EVALUATOR_SIZES))}"
            )
        self._sizes |= new

    def predict(self, requests: Sequence[Request]) -> list[Prediction]:
        """Answer up to batch_sizes[-1] requests that `check` let through.

        Raises:
            ValueError: there are more, or none.
        """
        if not 0 < len(requests) <= self.batch_sizes[-1]:
            raise ValueError(f"{len(requests)} requests; expected 1 to {self.batch_sizes[-1]}")
        size = next(size for size in self.batch_sizes if size >= len(requests))
        padded = [*requests, *[requests[-1]] * (size - len(requests))]
        deltas, logits = self._infer(padded)
        states = np.stack([request.state for request in requests])
        chunks = self._statistics.undelta(
            self._statistics.unnormalise_actions(deltas[: len(requests), :, :ACTION_DIM]), states
        )
        return [
            Prediction(np.asarray(chunk, np.float32), row) for chunk, row in zip(chunks, logits, strict=False)
        ]

    def _infer(
        self, requests: Sequence[Request]
    ) -> tuple[Float[np.ndarray, "b 30 32"], Float[np.ndarray, "b 15"]]:
        noise_ids = np.array([request.noise for request in requests], np.uint32)
        chunk, logits = infer(
            self._structure,
            self._weights,
            self._correlation,
            self._observation(requests),
            self._inpainting(requests),
            np.uint32(self._policy.seed),
            noise_ids,
            steps=self._policy.num_steps,
        )
        return np.asarray(chunk), np.asarray(logits)

    def _observation(self, requests: Sequence[Request]) -> Observation:
        """What the network reads of the requests."""
        earlier, past = None, self.observation_steps - 1
        if past:
            before = [_before(request, past) for request in requests]
            state = self._state(np.stack([one.state for one in before]), requests)
            earlier = Earlier(self._images([one.images for one in before]), state)
        return Observation(
            images=self._images([request.images for request in requests]),
            state=self._state(np.stack([request.state for request in requests]), requests),
            task=jnp.array([request.task for request in requests], jnp.int32),
            stage=jnp.array([request.stage for request in requests], jnp.int32),
            earlier=earlier,
        )

    def _state(self, states: Float[np.ndarray, "b *s 23"], requests: Sequence[Request]) -> Array:
        """States, normalised and zero-padded."""
        state = self._statistics.normalise_state(states)
        self._mask_base(state, requests)
        return jnp.asarray(pad_to_model(state))

    def _mask_base(self, state: Float[np.ndarray, "b *s 23"], requests: Sequence[Request]) -> None:
        """Set the base part of normalised states to the training mean where it means something else there.

        The velocities of one edition would lie tens of standard deviations off those of the other.
        """
        trained = self._statistics.base_velocity
        masked = [request.base_velocity not in (None, trained) for request in requests]
        if not any(masked):
            return
        if trained is not None:
            state[np.array(masked), ..., BASE] = 0.0
        if not self._masked:
            self._masked = True
            logger.warning(
                "the checkpoint was trained with base velocities in %s, and a client sends them in another: "
                "the base part of its states is %s",
                f"the {trained}'s frame" if trained else "a frame that nothing tells",
                "replaced by the training mean" if trained else "used as it is",
            )

    def _images(self, given: Sequence[dict[str, UInt8[np.ndarray, "*s h w 3"]]]) -> dict[str, Array]:
        """Images of all requests by camera, resized."""
        size = self._config.image_size
        return {c: jnp.stack([_resize(jnp.asarray(one[c]), size=size) for one in given]) for c in CAMERAS}

    def _inpainting(self, requests: Sequence[Request]) -> Inpainting | None:
        keep = self._policy.kept
        if not keep:
            return None
        actions = np.zeros((len(requests), keep, ACTION_DIM), np.float32)
        given: Bool[np.ndarray, " b"] = np.zeros(len(requests), bool)
        for index, request in enumerate(requests):
            if request.saved is not None:
                actions[index] = self._statistics.normalise_initial(request.saved, request.state)
                given[index] = True
        return Inpainting(jnp.asarray(actions), jnp.asarray(given))

    def _compile(self) -> None:
        """Run every batch size once, and every size of images that evaluators send."""
        size = self._config.image_size
        for side in EVALUATOR_SIZES:
            _resize(jnp.zeros((side, side, 3), jnp.uint8), size=size)
        blank = np.zeros((size, size, 3), np.uint8)
        request = Request(
            images=dict.fromkeys(CAMERAS, blank),
            state=np.zeros(ACTION_DIM, np.float32),
            task=0,
            stage=0,
            saved=None,
            noise=NoiseId(0, 0, 0),
        )
        for batch in self.batch_sizes:
            _, logits = self._infer([request] * batch)
            if logits.shape != (batch, MAX_STAGES):
                raise ValueError(
                    f"stage logits have the shape {logits.shape}; expected {batch}, {MAX_STAGES}"
                )
