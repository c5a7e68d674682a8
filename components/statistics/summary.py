"""A page that shows the statistics: what the policy's inputs and outputs look like."""

import io
from base64 import b64encode

import av
import numpy as np

from components.runtime.curves import draw
from components.runtime.page import figure, page, table
from components.statistics.tokenizer import Measurements
from pi_behavior.fast import MAX_TOKENS
from pi_behavior.layout import ACTION_GROUPS
from pi_behavior.reproducible import gram
from pi_behavior.statistics import Statistics


def summary_page(statistics: Statistics, fast: Measurements | None) -> str:
    """A self-contained HTML page."""
    return page("Statistics of the demonstrations", *summary_sections(statistics, fast))


def summary_sections(statistics: Statistics, fast: Measurements | None = None) -> list[str]:
    """Parts of a page: moments, deviation by step, correlation, tokenizer, human means, closure table."""
    step_std = statistics.action_step_std
    columns = (statistics.state_mean, statistics.state_std, statistics.action_mean, step_std[0], step_std[-1])
    moments = [
        [name, str(d), *(f"{column[d]:.4f}" for column in columns)]
        for name, dims in ACTION_GROUPS.items()
        for d in dims
    ]
    human = [[name, *(f"{v:.2f}" for v in row.values())] for name, row in statistics.human.items()]
    closed = [
        [task, ("left", "right")[hand], " ".join("closed" if s[hand] else "-" for s in stages)]
        for task, stages in statistics.closure.items()
        for hand in (0, 1)
    ]
    measurements = list(next(iter(statistics.human.values()), {}))
    steps = [
        {"step": float(h), **{name: float(row[list(dims)].mean()) for name, dims in ACTION_GROUPS.items()}}
        for h, row in enumerate(step_std)
    ]
    deviation = draw("", "standard deviation by step of the chunk", steps, list(ACTION_GROUPS))
    return [
        f"<p>{statistics.num_frames:,} frames, {statistics.num_chunks:,} whole chunks of "
        f"{statistics.horizon} actions.</p>",
        "<h2>State and delta actions</h2>",
        table(
            ["group", "dimension", "state mean", "state std", "action mean", "std, step 0", "std, last"],
            moments,
        ),
        *([figure(deviation)] if deviation else []),
        "<h2>Correlation of normalised actions</h2><p>690 x 690: step, then dimension. Red is positive, blue "
        "negative.</p>",
        f'<img alt="correlation matrix of the action chunks" src="{_correlation_image(statistics)}">',
        *_tokenizer(statistics, fast),
        "<h2>Demonstrators, means per task</h2>",
        table(["task", *measurements], human),
        "<h2>Closed grippers by stage</h2>",
        table(["task", "hand", "stages, first to last"], closed),
    ]


def _tokenizer(statistics: Statistics, fast: Measurements | None) -> list[str]:
    if fast is None or statistics.fast is None:
        return []
    rows = [
        ["vocabulary", str(statistics.fast.vocab_size)],
        ["numbers per token", f"{fast.compression:.1f}"],
        ["tokens per chunk, mean", f"{fast.tokens_mean:.1f}"],
        ["tokens per chunk, 99 %", f"{fast.tokens_p99:.0f}"],
        [f"chunks of more than {MAX_TOKENS} tokens", f"{fast.truncated:.2%}"],
        ["round-trip error, root mean square", f"{fast.error:.4f}"],
    ]
    return [
        "<h2>FAST tokenizer</h2>",
        f"<p>Measured on {fast.chunks:,} chunks, of held-out episodes where there are several. The error is "
        "in units of half the range from the 1 % to the 99 % quantile; rounding alone gives at most "
        f"{0.5 / statistics.fast.scale:g}.</p>",
        table(["", ""], rows),
    ]


def _correlation_image(statistics: Statistics) -> str:
    """The correlation matrix as a PNG, white at 0."""
    value = np.clip(gram(statistics.correlation_cholesky.T), -1.0, 1.0)
    pale = 255.0 * (1.0 - np.abs(value))
    red, blue = np.where(value >= 0, 255.0, pale), np.where(value <= 0, 255.0, pale)
    pixels = np.stack([red, pale, blue], axis=-1).astype(np.uint8)
    codec = av.CodecContext.create("png", "w")
    assert isinstance(codec, av.VideoCodecContext)
    codec.height, codec.width = pixels.shape[:2]
    codec.pix_fmt = "rgb24"
    file = io.BytesIO()
    for packet in [*codec.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")), *codec.encode(None)]:
        file.write(bytes(packet))
    return f"data:image/png;base64,{b64encode(file.getvalue()).decode()}"
