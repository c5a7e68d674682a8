"""Compares the network with tensors computed by an independent implementation.

Run as `python -m benchmarks.golden FILE.npz`. The file holds parameters in the published names
(`param/...`), inputs (`in/...`) and outputs (`out/...`); every size is inferred from the parameters' shapes.
Prints one row per output and exits with 1 if a relative error, max|a - b| / max|b|, is over its tolerance.
"""

import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from flax import nnx
from rich.console import Console
from rich.table import Table

from pi_behavior.correlation import correction_matrix
from pi_behavior.flow import Inpainting, flow_loss, sample
from pi_behavior.layout import CAMERA_CHECKPOINT_KEYS, CAMERAS
from pi_behavior.losses import fast_loss
from pi_behavior.network import PiBehavior
from pi_behavior.network.masks import prefix_blocks, prefix_mask
from pi_behavior.observation import FastTokens, Observation
from pi_behavior.published_layout import infer_config, load_published

TOLERANCES = {
    **dict.fromkeys(("stage_sincos", "stage_fusion", "prefix_tokens"), 2e-3),
    **dict.fromkeys(("prefix_out", "fast_logits", "kv_keys", "kv_values", "stage_logits"), 5e-4),
}
"""Largest relative error by output, 1e-4 for the others; the sine-cosine form is ill-conditioned."""

Arrays = Mapping[str, np.ndarray]


def compute(model: PiBehavior, data: Arrays) -> dict[str, jax.Array]:
    """All outputs of the golden file from its inputs."""
    task, stage = jnp.asarray(data["in/task_stage"]).T
    images = {c: jnp.asarray(data[f"in/image/{CAMERA_CHECKPOINT_KEYS[c]}"]) for c in CAMERAS}
    observation = Observation(images=images, state=jnp.asarray(data["in/state"]), task=task, stage=stage)
    fast = FastTokens(tokens=jnp.asarray(data["in/fast_tokens"]), mask=jnp.asarray(data["in/fast_mask"]))
    tokens, valid = model.embed_prefix(observation, fast)
    trained = model.encode(observation, fast)
    assert trained.fast_logits is not None
    prefix = model.encode(observation)
    noise, time = (jnp.moveaxis(jnp.asarray(data[f"in/{n}"]), 0, 1) for n in ("noise", "time"))
    length = model.config.prefix_tokens
    outputs = {
        "stage_sincos": model.stage_fusion.encode_stage(task, stage),
        "stage_fusion": tokens[:, model.config.image_tokens + 1 :][:, :4],
        "prefix_tokens": tokens,
        "prefix_mask": valid,
        "prefix_attn_mask": prefix_mask(prefix_blocks(model.config, tokens.shape[1] - length), valid),
        "prefix_out": trained.output,
        "stage_logits": prefix.stage_logits,
        "fast_logits": trained.fast_logits,
        "fast_loss": fast_loss(trained.fast_logits, fast),
        "kv_keys": prefix.keys,
        "kv_values": prefix.values,
        "flow_velocity": jnp.moveaxis(
            model.velocity(
                prefix,
                time[..., None, None] * noise + (1 - time[..., None, None]) * data["in/actions"][:, None],
                time,
            ),
            1,
            0,
        ),
        "flow_action_loss": flow_loss(model, prefix, jnp.asarray(data["in/actions"]), noise, time).mean(
            (1, 2)
        ),
        "sample_20": sample(model, prefix, noise[:, 0], steps=20),
        "sample_10": sample(model, prefix, noise[:, 0], steps=10),
    }
    covariance = data["in/cholesky_regularised"].astype(np.float64)
    correction = correction_matrix(covariance @ covariance.T, data["in/inpaint_initial_small"].shape[1])
    outputs["inpaint_correction_matrix"] = jnp.asarray(correction)
    given = jnp.ones(task.shape, bool)
    for size in ("small", "large", "huge"):
        initial = Inpainting(jnp.asarray(data[f"in/inpaint_initial_{size}"]), given)
        outputs[f"inpaint_sample_{size}"] = sample(
            model,
            prefix,
            noise[:, 0],
            steps=20,
            inpainting=initial,
            correction=jnp.asarray(correction, jnp.float32),
        )
    return outputs


def errors(ours: np.ndarray, golden: np.ndarray) -> tuple[float, float]:
    """Largest absolute error, and relative to the largest golden value, over the finite golden entries."""
    finite = np.isfinite(golden)
    if ours.shape != golden.shape or not np.array_equal(np.isfinite(ours), finite):
        return float("inf"), float("inf")
    a, b = ours[finite].astype(np.float64), golden[finite].astype(np.float64)
    absolute = float(np.abs(a - b).max(initial=0.0))
    return absolute, absolute / max(float(np.abs(b).max(initial=0.0)), 1e-30)


def compare(file: Path, *, serving: bool = False) -> list[tuple[str, float, float, float]]:
    """Rows of (output, largest absolute error, relative error, tolerance) for a golden file.

    Args:
        file: the golden file.
        serving: rearrange the weights as the policy server does.
    """
    with np.load(file) as archive:
        data = {name: archive[name] for name in archive.files}
    parameters = {n.removeprefix("param/"): v for n, v in data.items() if n.startswith("param/")}
    shapes = {name: tensor.shape for name, tensor in parameters.items()}
    config = replace(infer_config(shapes), dtype="float32")
    model = PiBehavior(config, nnx.Rngs(0))
    load_published(model, parameters)
    if serving:
        model.prepare_for_serving()
    with jax.default_matmul_precision("highest"):
        outputs = compute(model, data)
    valid = data["out/prefix_mask"]
    rows = []
    for name in (n.removeprefix("out/") for n in data if n.startswith("out/")):
        ours, golden = np.asarray(outputs[name]), data[f"out/{name}"]
        if name == "prefix_out":  # a padded row is the mean of whatever padding holds: no meaning
            ours, golden = ours[valid], golden[valid]
        elif name == "fast_logits":
            ours, golden = (x[valid[:, config.prefix_tokens :]] for x in (ours, golden))
        rows.append((name, *errors(ours, golden), TOLERANCES.get(name, 1e-4)))
    return rows


def main(file: tyro.conf.Positional[Path]) -> None:
    """Compare the network with a golden file.

    Args:
        file: the file with parameters, inputs and outputs.
    """
    rows = compare(file)
    table = Table("output", "absolute", "relative", "tolerance", "", title="largest errors")
    for name, absolute, relative, tolerance in rows:
        table.add_row(
            name,
            f"{absolute:.2e}",
            f"{relative:.2e}",
            f"{tolerance:.0e}",
            "ok" if relative <= tolerance else "OVER",
        )
    Console().print(table)
    sys.exit(any(relative > tolerance for *_, relative, tolerance in rows))


if __name__ == "__main__":
    tyro.cli(main)
