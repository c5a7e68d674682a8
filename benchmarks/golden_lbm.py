"""Compares the Large Behavior Model with tensors of the original implementation.

Run as `python -m benchmarks.golden_lbm FILE.npz`. The file holds its sizes (`config`), parameters
(`param/...`), inputs (`in/...`) and outputs (`out/...`). Prints one row per output and exits with 1 if an
error is over its tolerance, or if an output is none that this knows.
"""

import json
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from flax import nnx
from rich.console import Console
from rich.table import Table

from benchmarks.golden import errors
from pi_behavior.lbm.config import ClipTextConfig, ClipVisionConfig, LbmConfig
from pi_behavior.lbm.denoiser import DiffusionBlock, time_sinusoid
from pi_behavior.lbm.images import crop, normalise_pixels, resize
from pi_behavior.lbm.names import assemble, entries
from pi_behavior.lbm.network import LargeBehaviorModel
from pi_behavior.lbm.normalisation import Range
from pi_behavior.lbm.objectives import (
    add_noise,
    alphas_cumprod,
    betas,
    diffusion_loss,
    flow_loss,
    flow_times_from_draws,
    sample_diffusion,
    sample_flow,
    sampling_steps,
)
from pi_behavior.lbm.optimizer import rate_factor
from pi_behavior.policy.history import History
from pi_behavior.tensors import flat_parameters, update_parameters

Arrays = Mapping[str, np.ndarray]
RATE_STEPS = (0, 1, 50, 100, 550, 999, 1000)
"""Steps, of the last of these, at which the file has the factor of the learning rate."""
_LOOP_STEPS = 10


def golden_config(sizes: Mapping[str, Any]) -> LbmConfig:
    """The policy of a golden file's `config`."""
    vision, text, dit = sizes["vision"], sizes["text"], sizes["dit"]
    shared = {"width": "width", "layers": "depth", "heads": "heads", "mlp": "mlp"}
    return LbmConfig(
        vision=ClipVisionConfig(
            image_size=vision["image"],
            patch=vision["patch"],
            **{ours: vision[theirs] for theirs, ours in shared.items()},
        ),
        text=ClipTextConfig(
            vocabulary=text["vocabulary"],
            length=text["length"],
            **{ours: text[theirs] for theirs, ours in shared.items()},
        ),
        cameras=tuple(f"camera_{number}" for number in range(sizes["cameras"])),
        state_dim=sizes["state"],
        action_dim=sizes["action"],
        observation_steps=sizes["observation_steps"],
        horizon=sizes["horizon"],
        execute=sizes["executed_steps"],
        width=dit["width"],
        depth=dit["layers"],
        heads=dit["heads"],
        time_width=dit["timestep_embedding"],
        resize=_size(sizes.get("resize")),
        crop=_size(sizes.get("crop")),
        rematerialise="dots",  # layers in a loop, which compile faster
    )


def _size(given: Any) -> tuple[int, ...]:
    """Rows and columns; none where the file has no numbers, or zeros."""
    return tuple(map(int, given)) if given is not None and np.all(np.asarray(given) > 0) else ()


class Golden:
    """A golden file, and our network with its parameters."""

    def __init__(self, file: Path) -> None:
        with np.load(file) as archive:
            self.data: Arrays = {name: archive[name] for name in archive.files}
        self.config = golden_config(json.loads(bytes(self.data["config"])))
        self.model = self._network(self.config)
        graph, self._state = nnx.split(self.model)
        self._encoder = jax.jit(lambda state, *inputs: nnx.merge(graph, state).encode(*inputs))
        self._predictor = jax.jit(lambda state, *inputs: nnx.merge(graph, state).predict(*inputs))
        self.conditioning = self._encode(self._state)
        self._others: dict[LbmConfig, LargeBehaviorModel] = {self.config: self.model}

    def input(self, name: str) -> jax.Array:
        """An input."""
        return jnp.asarray(self.data[f"in/{name}"])

    def _network(self, config: LbmConfig) -> LargeBehaviorModel:
        tensors = {n.removeprefix("param/"): v for n, v in self.data.items() if n.startswith("param/")}
        model = nnx.eval_shape(lambda: LargeBehaviorModel(config, nnx.Rngs(0)))
        update_parameters(
            nnx.state(model, nnx.Param), assemble(config, tensors, key="plain", optional="post_norm")
        )
        return model

    def _encode(self, state: Any) -> jax.Array:
        return self._encoder(state, *map(self.input, ("images", "state", "tokens", "token_mask")))

    def predict(self, noisy: jax.Array, time: jax.Array) -> jax.Array:
        """The prediction for the file's observations."""
        return self._predictor(self._state, noisy, time, self.conditioning)

    def variant(self, *, rotary: bool, table: bool) -> jax.Array:
        """The prediction with other positions."""
        config = replace(self.config, rotary=rotary, position_table=table)
        if config not in self._others:
            self._others[config] = self._network(config)
        model = self._others[config]
        return model.predict(self.input("noisy_actions"), self.input("timesteps"), self.conditioning)

    def blocks(self) -> Iterator[tuple[jax.Array, jax.Array, DiffusionBlock]]:
        """Input, condition and layer of every block, for `noisy_actions` at `timesteps`."""
        dit = self.model.dit
        condition = dit.condition(self.input("timesteps"), self.conditioning)
        x = dit.embed(self.input("noisy_actions"))
        graph, parameters = nnx.split(dit.blocks)
        for number in range(self.config.depth):
            block = nnx.merge(graph, jax.tree.map(lambda leaf, n=number: leaf[n], parameters))
            yield x, condition, block
            x = block(x, condition)

    def gradients(self) -> dict[str, jax.Array]:
        """Gradient of the diffusion loss by plain name, through all encoders."""

        def loss(state: Any) -> jax.Array:
            conditioning = self._encode(state)
            return diffusion_loss(
                lambda noisy, time: self._predictor(state, noisy, time, conditioning),
                self.config.diffusion,
                *map(self.input, ("actions", "noise", "timesteps")),
            )

        by_path = flat_parameters(jax.jit(jax.grad(loss))(self._state))
        return {entry.plain: by_path[entry.path][entry.index] for entry in entries(self.config)}

    def loss(self, kind: str, sigma: str, masked: bool) -> jax.Array:
        """A loss, from the row's name."""
        padding = self.input("action_is_pad") if masked else None
        actions, noise = self.input("actions"), self.input("noise")
        if kind == "flow":
            flow = replace(self.config.flow, sigma=float(sigma or 0))
            return flow_loss(self.predict, flow, actions, noise, self.input("flow_times"), padding)
        prediction: Any = kind.removeprefix("diffusion_")
        diffusion = replace(self.config.diffusion, prediction=prediction)
        return diffusion_loss(self.predict, diffusion, actions, noise, self.input("timesteps"), padding)

    def sample(self, sampler: Any, steps: int, variant: str) -> jax.Array:
        """Samples, from the row's name."""
        known: dict[str, Any] = {
            "unclipped": {"clip": False},
            "sample_prediction": {"prediction": "sample", "clip_range": 3.0},
        }
        changes: dict[str, Any] = known.get(variant, {})
        config = replace(self.config.diffusion, sampler=sampler, steps=steps, **changes)
        noise = self.input(f"ddpm_{steps}_step_noise") if sampler == "ddpm" else None
        chunk, trajectory = sample_diffusion(self.predict, config, self.input("initial_noise"), noise)
        return trajectory if variant == "trajectory" else chunk

    def loop(self) -> np.ndarray:
        """Un-normalised actions of one environment's control loop."""
        config, states = self.config, Range(self.data["in/state_min"], self.data["in/state_max"])
        actions = Range(self.data["in/action_min"], self.data["in/action_max"])
        diffusion = replace(config.diffusion, sampler="ddim", steps=_LOOP_STEPS)

        @jax.jit
        def chunk(images: jax.Array, state: jax.Array, noise: jax.Array) -> jax.Array:
            text = (self.input(name)[:1] for name in ("tokens", "token_mask"))
            conditioning = self._encoder(self._state, images[None], state[None], *text)
            return sample_diffusion(
                lambda noisy, time: self._predictor(self._state, noisy, time, conditioning), diffusion, noise
            )[0][0]

        images: History[np.ndarray] = History(config.observation_steps)
        state: History[np.ndarray] = History(config.observation_steps)
        queue: list[np.ndarray] = []
        result, calls = [], 0
        for image, raw in zip(self.data["in/loop_images"], self.data["in/loop_states"], strict=True):
            images.append(image)
            state.append(states.normalise(raw))
            if not queue:
                noise = self.input("loop_initial_noise")[calls]
                queue = list(np.asarray(chunk(images.window(), state.window(), noise))[config.executed])
                calls += 1
            result.append(actions.unnormalise(queue.pop(0)))
        return np.stack(result)


def _fixed(golden: Golden) -> dict[str, Callable[[], Any]]:
    """Outputs that every file has, by name; computed when asked for."""
    model, config, get = golden.model, golden.config, golden.input

    def first_image() -> jax.Array:
        return model.preprocess(get("images"))[0, 0, :1]

    def hidden() -> jax.Array:
        return model.text.hidden(get("tokens"), get("token_mask"))

    def ranged(name: str) -> Range:
        return Range(golden.data[f"in/{name}_min"], golden.data[f"in/{name}_max"])

    def time(name: str) -> jax.Array:
        return time_sinusoid(get(name), config.time_width)

    return {
        "preprocessed_image": lambda: model.preprocess(get("images"))[0, 0],
        "vision_embedding_first_image": lambda: model.vision.embed(first_image()),
        "vision_last_hidden_first_image": lambda: model.vision.transform(model.vision.embed(first_image())),
        "image_features": lambda: model.image_features(model.preprocess(get("images"))),
        "image_features_train_crop": lambda: model.image_features(
            model.preprocess(get("images"), offset=get("train_crop_offset"))
        ),
        "text_last_hidden": hidden,
        "text_pooled": lambda: model.text.pooled(get("tokens"), hidden()),
        "text_features": lambda: model.text(get("tokens"), get("token_mask")),
        "conditioning": lambda: golden.conditioning,
        "timestep_sinusoid": lambda: time("timesteps"),
        "timestep_sinusoid_flow_times": lambda: time("flow_times"),
        "timestep_embedding": lambda: model.dit.embed_time(time("timesteps")),
        "timestep_embedding_flow_times": lambda: model.dit.embed_time(time("flow_times")),
        "prediction": lambda: golden.predict(get("noisy_actions"), get("timesteps")),
        "prediction_flow_times": lambda: golden.predict(get("noisy_actions"), get("flow_times")),
        "prediction_rope_and_position": lambda: golden.variant(rotary=True, table=True),
        "prediction_position_only": lambda: golden.variant(rotary=False, table=True),
        "prediction_no_position": lambda: golden.variant(rotary=False, table=False),
        "betas": lambda: betas(config.diffusion.train_steps),
        "alphas_cumprod": lambda: alphas_cumprod(config.diffusion.train_steps),
        "noised_actions": lambda: add_noise(config.diffusion, get("actions"), get("noise"), get("timesteps")),
        "flow_times_from_draws": lambda: flow_times_from_draws(config.flow, get("flow_beta_draws")),
        "normalised_actions": lambda: ranged("action").normalise(golden.data["in/raw_actions"]),
        "normalised_states": lambda: ranged("state").normalise(golden.data["in/raw_states"]),
        "unnormalised_noise": lambda: ranged("action").unnormalise(golden.data["in/noise"][0]),
        "loop_actions": golden.loop,
    }


def _preprocess(golden: Golden, number: str) -> jax.Array:
    image, offset = golden.input(f"preprocess_{number}_image"), golden.data[f"in/preprocess_{number}_offset"]
    sizes = {name: golden.data[f"in/preprocess_{number}_{name}"] for name in ("resize", "crop")}
    resized = resize(normalise_pixels(image, "imagenet"), _size(sizes["resize"]))
    return crop(resized, _size(sizes["crop"]), None if (offset < 0).any() else jnp.asarray(offset))


def _block(golden: Golden, number: int, part: str) -> jax.Array:
    x, condition, block = list(golden.blocks())[number]
    if part == "modulation":
        return block.modulation(condition)
    if part == "attention":
        return block.attention_branch(x, block.modulation(condition))
    return block(x, condition)


def _flow_sample(golden: Golden, solver: Any, steps: int) -> jax.Array:
    flow = replace(golden.config.flow, solver=solver, steps=steps)
    return sample_flow(golden.predict, flow, golden.input("initial_noise"))


_PATTERNS: tuple[tuple[str, Callable[..., Any]], ...] = (
    (r"block_(\d+)(?:_(modulation|attention))?", lambda g, n, part: _block(g, int(n), part)),
    (
        r"loss_(diffusion_epsilon|diffusion_sample|flow)(?:_sigma_min_([\d.]+))?(_masked)?",
        lambda g, kind, sigma, masked: g.loss(kind, sigma, bool(masked)),
    ),
    (
        r"sample_(ddpm|ddim)_(\d+)(?:_(trajectory|unclipped|sample_prediction))?",
        lambda g, sampler, steps, variant: g.sample(sampler, int(steps), variant),
    ),
    (r"sample_flow_(euler|rk4)_(\d+)", lambda g, solver, steps: _flow_sample(g, solver, int(steps))),
    (r"timesteps_(\d+)", lambda g, n: sampling_steps(replace(g.config.diffusion, steps=int(n)))),
    (
        r"lr_factor_warmup_(\d+)",
        lambda g, warmup: rate_factor(np.array(RATE_STEPS), RATE_STEPS[-1], int(warmup)),
    ),
    (r"preprocess_(\d+)", _preprocess),
)
"""Names of outputs with numbers in them, and how each is computed from the groups of its name."""


def compute(golden: Golden, names: list[str]) -> dict[str, np.ndarray]:
    """Our outputs by name; those that nothing here computes are absent."""
    fixed, found = _fixed(golden), {}
    gradients = golden.gradients() if any(name.startswith("grad") for name in names) else {}
    for name in names:
        kind, _, parameter = name.partition("/")
        if kind in ("grad", "grad_norm") and parameter in gradients:
            gradient = gradients[parameter]
            found[name] = gradient if kind == "grad" else jnp.linalg.norm(gradient.reshape(-1))
        elif name in fixed:
            found[name] = fixed[name]()
        else:
            for pattern, make in _PATTERNS:
                if match := re.fullmatch(pattern, name):
                    found[name] = make(golden, *match.groups())
    return {name: np.asarray(value) for name, value in found.items()}


def tolerance(name: str, golden: np.ndarray) -> float:
    """Largest error of an output."""
    if golden.dtype.kind in "iub":
        return 0.0
    hundred = re.fullmatch(r"sample_(\w+_)?100(_\w+)?", name)
    return 2e-5 if hundred or name.startswith("grad") else 1e-5


def compare(file: Path) -> list[tuple[str, float, float, float]]:
    """Rows of (output, largest absolute error, relative error, tolerance) for a golden file."""
    golden = Golden(file)
    names = [name.removeprefix("out/") for name in golden.data if name.startswith("out/")]
    outputs = compute(golden, names)
    norms = [golden.data[f"out/{n}"].max(initial=0) for n in names if n.startswith("grad_norm/")]
    rows = []
    for name in names:
        theirs = golden.data[f"out/{name}"]
        ours = outputs.get(name, np.full(theirs.shape, np.nan))
        if name == "text_last_hidden" and ours.shape == theirs.shape:
            ours, theirs = (x[golden.data["in/token_mask"]] for x in (ours, theirs))
        absolute, relative = errors(ours, theirs)
        if name.startswith("grad_norm/"):
            relative = absolute / float(max(norms))
        rows.append((name, absolute, relative, tolerance(name, theirs)))
    return rows


def main(file: tyro.conf.Positional[Path]) -> None:
    """Compare the Large Behavior Model with a golden file.

    Args:
        file: the file with sizes, parameters, inputs and outputs.
    """
    with jax.default_matmul_precision("highest"):
        rows = compare(file)
    table = Table("output", "absolute", "relative", "tolerance", "", title="largest errors")
    for name, absolute, relative, most in rows:
        good = "ok" if relative <= most else "OVER"
        table.add_row(name, f"{absolute:.2e}", f"{relative:.2e}", f"{most:.0e}", good)
    Console(width=110).print(table)
    failed = [name for name, _, relative, most in rows if not relative <= most]
    print(f"{len(rows)} outputs, {len(failed)} over their tolerance")
    sys.exit(bool(failed))


if __name__ == "__main__":
    tyro.cli(main)
