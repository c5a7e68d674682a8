"""Matrices of the report: the correlation of actions (figure 5) and the mix of layers (figure 3).

Each becomes one byte per entry, which the page paints: 0 is the negative limit, 255 the positive one.
"""

import base64
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from pi_behavior.layout import ACTION_DIM, ACTION_HORIZON

_EVERY = 3
"""Of the 30 steps of a chunk, each third is drawn: 230 x 230 entries instead of 690 x 690."""


@dataclass(frozen=True)
class Matrix:
    """A matrix to paint."""

    title: str
    note: str
    summary: str
    """Text in place of the picture."""
    width: int
    height: int
    values: str
    """Bytes of the entries by row, in base64."""
    spectrum: tuple[dict[str, float], ...] = ()
    """Eigenvalues of a covariance, largest first, as points to draw: `step` from 1, `spectrum`."""

    @property
    def data(self) -> dict[str, Any]:
        """What the page's script paints."""
        return {"width": self.width, "height": self.height, "values": self.values}


def paint(matrix: Float[np.ndarray, "h w"], limit: float) -> str:
    """The bytes of a matrix whose entries lie within -limit and limit."""
    scaled = np.clip(np.asarray(matrix, np.float64) / (limit or 1.0), -1, 1)
    return base64.b64encode(np.rint(127.5 + 127.5 * scaled).astype(np.uint8).tobytes()).decode()


def correlation(checkpoint: Path) -> list[Matrix]:
    """The correlation of actions that the noise follows, from a checkpoint's statistics; none without it."""
    try:
        stats = json.loads((checkpoint / "statistics" / "norm_stats.json").read_text())["norm_stats"]
        cholesky = np.asarray(stats["actions"]["action_correlation_cholesky"], np.float64)
    except (OSError, ValueError, KeyError, TypeError):
        return []
    if cholesky.ndim != 2 or cholesky.shape[0] != cholesky.shape[1] or cholesky.shape[0] % ACTION_HORIZON:
        return []
    width = cholesky.shape[0] // ACTION_HORIZON
    covariance = cholesky @ cholesky.T
    steps, dims = np.arange(0, ACTION_HORIZON, _EVERY), np.arange(min(width, ACTION_DIM))
    shown = (dims[:, None] + steps * width).ravel()  # by dimension, so that each is a block
    eigenvalues = np.linalg.eigvalsh(covariance)[::-1]
    share = np.cumsum(eigenvalues) / eigenvalues.sum()
    needed = int(np.searchsorted(share, 0.9)) + 1
    part = covariance[np.ix_(shown, shown)]
    return [
        Matrix(
            title="Correlation of actions",
            note=f"{len(dims)} dimensions, every third of {ACTION_HORIZON} steps each. Green is positive.",
            summary=f"{needed} of {len(eigenvalues)} directions hold 90 % of the variance of the noise",
            width=len(shown),
            height=len(shown),
            values=paint(part, 1.0),
            spectrum=tuple(
                {"step": float(place), "spectrum": float(value)}
                for place, value in enumerate(eigenvalues[eigenvalues > 0], 1)
            ),
        )
    ]


def kv_mix(checkpoint: Path) -> list[Matrix]:
    """How far the learned mix of layers is from the identity, for keys and values; none without a mix."""
    found = {name: _coefficients(checkpoint / "params", name) for name in ("keys", "values")}
    made = []
    for name, matrix in sorted(found.items()):
        if matrix is None or matrix.ndim != 2:
            continue
        change = matrix - np.eye(*matrix.shape)
        limit = float(np.abs(change).max())
        row, column = np.unravel_index(np.abs(change).argmax(), change.shape)
        made.append(
            Matrix(
                title=f"Mix of layers: {name}",
                note="Change since the identity. A row is a layer of the expert, a column one of the prefix.",
                summary=f"largest change {change[row, column]:+.3g}, "
                f"at expert layer {row} and prefix layer {column}",
                width=change.shape[1],
                height=change.shape[0],
                values=paint(change, limit),
            )
        )
    return made


def _coefficients(params: Path, name: str) -> np.ndarray | None:
    """The coefficients of keys or values, straight from Orbax's files; None where there are none.

    Orbax itself would read the whole network, which may be larger than this machine's memory.
    """
    import tensorstore

    for depth in ("", "params."):
        place = f"{depth}kv_mix.{name[:-1]}_coefficients/"
        store = {"driver": "ocdbt", "base": f"file://{params.resolve()}/", "path": place}
        for driver in ("zarr", "zarr3"):
            try:
                opened = tensorstore.open({"driver": driver, "kvstore": store}, open=True, read=True).result()
                return np.asarray(opened.read().result(), np.float64)
            except (ValueError, OSError):
                continue
    return None
