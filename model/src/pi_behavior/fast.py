"""FAST tokens of action chunks, for the auxiliary loss.

A chunk, mapped to [-1, 1] by `Statistics.normalise_quantiles`, goes through the orthonormal DCT-II along
time. The coefficients are scaled and rounded, laid out frequency by frequency with the lowest first, and
written as one character each. Byte-pair encoding shortens the text: runs of zeros, as most high frequencies
are, become few tokens. Source: report, section 4.7 and appendix D; arXiv 2501.09747.
"""

import json
import math
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float32, Int, Int32
from tokenizers import Tokenizer, decoders, models, trainers

from pi_behavior.layout import ACTION_DIM, ACTION_HORIZON

FOLDER = "fast_tokenizer"
"""Where a folder of statistics keeps its tokenizer, as published ones do."""
TOKENIZER = "tokenizer.json"
PROCESSOR = "processor_config.json"
MAX_TOKENS = 200
"""Tokens of one chunk that training reads; further ones, of the highest frequencies, are cut off."""
DIMENSIONS = np.array([*range(6), *range(7, ACTION_DIM)])
"""Encoded dimensions: all but the trunk's last joint, which is constant in the demonstrations."""
COEFFICIENTS = ACTION_HORIZON * len(DIMENSIONS)
"""Characters of one chunk, 660."""
_SURROGATES = range(0xD800, 0xE000)
"""Code points that no text may hold."""


class TokenRows(NamedTuple):
    """FAST tokens of a batch of chunks, padded with zeros to one length."""

    tokens: Int32[np.ndarray, "b f"]
    mask: Bool[np.ndarray, "b f"]
    """True for tokens, False for padding."""


@dataclass(frozen=True)
class FastTokenizer:
    """A trained tokenizer.

    Raises:
        ValueError: `bpe` is no tokenizer, has more tokens than `vocab_size`, or none for any coefficient.
    """

    bpe: str = field(repr=False)
    """Byte-pair encoding: the content of `tokenizer.json`."""
    min_token: int
    """Coefficient of the character 0."""
    scale: float = 10.0
    """Steps per unit of a coefficient."""
    vocab_size: int = 1024
    """Tokens are below this; there may be fewer."""

    def __post_init__(self) -> None:
        """Check that the parts fit each other."""
        if self._tokenizer.get_vocab_size() > self.vocab_size:
            raise ValueError(
                f"the tokenizer has {self._tokenizer.get_vocab_size()} tokens; expected at most the "
                f"vocab_size {self.vocab_size}"
            )
        if not len(self._characters):
            raise ValueError(
                f"the tokenizer has no token for any coefficient from -{self._bound} to {self._bound}; "
                f"expected one trained on characters that count from min_token {self.min_token}"
            )

    @cached_property
    def _tokenizer(self) -> Tokenizer:
        try:
            return Tokenizer.from_str(self.bpe)
        except Exception as error:  # the library raises nothing narrower
            raise ValueError(f"not a tokenizer of the library tokenizers: {error}") from error

    @property
    def _bound(self) -> int:
        """Largest coefficient of values in [-1, 1]."""
        return math.ceil(self.scale * math.sqrt(ACTION_HORIZON))

    @cached_property
    def _characters(self) -> Int[np.ndarray, " c"]:
        """Characters of possible coefficients that survive encoding and decoding.

        Byte-level tokenizers, as published ones are, may lack some in between.
        """
        possible = range(max(0, -self._bound - self.min_token), self._bound - self.min_token + 1)
        allowed = [c for c in possible if c not in _SURROGATES]
        rows = self._tokenizer.encode_batch_fast([chr(c) for c in allowed], add_special_tokens=False)
        texts = self._tokenizer.decode_batch([row.ids for row in rows], skip_special_tokens=False)
        return np.array([c for c, text in zip(allowed, texts, strict=True) if text == chr(c)], int)

    @cached_property
    def _character_of(self) -> Int[np.ndarray, " c"]:
        """The character of every coefficient from -bound to bound: the nearest one that there is."""
        wanted = np.arange(-self._bound, self._bound + 1) - self.min_token
        return self._characters[np.abs(wanted[:, None] - self._characters).argmin(axis=1)]

    @classmethod
    def train(
        cls, chunks: Float[np.ndarray, "n 30 23"], *, vocab_size: int = 1024, scale: float = 10.0
    ) -> "FastTokenizer":
        """Train on chunks in [-1, 1]; the same chunks give the same tokenizer.

        Every coefficient between the smallest and the largest seen gets a token. Takes about 75 MB of memory
        per 1,000 chunks.

        Args:
            chunks: delta chunks, mapped to [-1, 1] by quantiles.
            vocab_size: most tokens; few chunks may give fewer.
            scale: steps per unit of a coefficient.

        Raises:
            ValueError: there are more different coefficients than tokens.
        """
        coefficients = _coefficients(chunks, scale)
        low, high = int(coefficients.min()), int(coefficients.max())
        count = high - low + 1
        if count > min(vocab_size, _SURROGATES.start):
            raise ValueError(
                f"the coefficients span {count} values, from {low} to {high}; expected at most "
                f"{min(vocab_size, _SURROGATES.start)}: use a vocabulary of more than {vocab_size} tokens, "
                f"or a scale below {scale:g}"
            )
        # no pre-tokenizer: those of published tokenizers split English, and here a space is just a number
        tokenizer = Tokenizer(models.BPE())
        tokenizer.decoder = decoders.Fuse()
        trainer = trainers.BpeTrainer(
            vocab_size=vocab_size,
            min_frequency=2,
            initial_alphabet=[chr(c) for c in range(count)],
            show_progress=False,
        )
        tokenizer.train_from_iterator(_texts(coefficients - low), trainer)
        return cls(tokenizer.to_str(), low, scale, vocab_size)

    def encode(self, chunks: Float[np.ndarray, "b 30 23"]) -> list[list[int]]:
        """Tokens of chunks in [-1, 1], as many as they need.

        Each coefficient is rounded by at most 0.5 / scale, so the root mean square over time of a
        dimension's error is at most 0.5 / scale, in units of half the range of its quantiles. Only
        coefficients for which the tokenizer has no character, as they were not in its training data, are
        changed by more: to the nearest one that has.
        """
        coefficients = np.clip(_coefficients(chunks, self.scale), -self._bound, self._bound)
        texts = _texts(self._character_of[coefficients + self._bound])
        return [row.ids for row in self._tokenizer.encode_batch_fast(texts, add_special_tokens=False)]

    def encode_batch(self, chunks: Float[np.ndarray, "b 30 23"], length: int = MAX_TOKENS) -> TokenRows:
        """Tokens of chunks in [-1, 1], cut off and padded to one length."""
        rows = self.encode(chunks)
        result = TokenRows(np.zeros((len(rows), length), np.int32), np.zeros((len(rows), length), bool))
        for tokens, mask, ids in zip(*result, rows, strict=True):
            tokens[: len(ids)] = ids[:length]
            mask[: len(ids)] = True
        return result

    def decode(self, rows: Sequence[Sequence[int]]) -> Float32[np.ndarray, "b 30 23"]:
        """Invert `encode`, up to rounding; the dimension that is not encoded becomes 0, its range's middle.

        Args:
            rows: the tokens of each chunk, without padding.

        Raises:
            ValueError: the tokens of a row are not those of one whole chunk, as when they were cut off.
        """
        from scipy.fft import idct  # imported late: 0.1 s that every user of statistics would wait for

        for number, row in enumerate(rows):
            if len(row) and not 0 <= min(row) <= max(row) < self.vocab_size:
                raise ValueError(
                    f"row {number} has tokens from {min(row)} to {max(row)}; expected 0 to "
                    f"{self.vocab_size - 1}"
                )
        texts = self._tokenizer.decode_batch([list(row) for row in rows], skip_special_tokens=False)
        for number, text in enumerate(texts):
            if len(text) != COEFFICIENTS:
                raise ValueError(
                    f"the {len(rows[number])} tokens of row {number} stand for {len(text)} coefficients; "
                    f"expected {COEFFICIENTS}, those of {ACTION_HORIZON} steps x {len(DIMENSIONS)} dimensions"
                )
        codes = np.frombuffer("".join(texts).encode("utf-32-le"), "<u4").astype(np.int64)
        coefficients = np.clip(codes + self.min_token, -self._bound, self._bound) / self.scale
        result = np.zeros((len(rows), ACTION_HORIZON, ACTION_DIM), np.float32)
        result[..., DIMENSIONS] = idct(
            coefficients.reshape(-1, ACTION_HORIZON, len(DIMENSIONS)), axis=1, norm="ortho"
        )
        return result

    def save(self, folder: Path) -> None:
        """Write the folder in the published layout; it appears whole, and replaces one of the same name."""
        processor = {
            "action_dim": len(DIMENSIONS),
            "min_token": self.min_token,
            "scale": self.scale,
            "time_horizon": ACTION_HORIZON,
            "vocab_size": self.vocab_size,
        }
        aside = folder.with_name(f".{folder.name}.{os.getpid()}.partial")
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(parents=True)
        for name, text in ((TOKENIZER, self.bpe), (PROCESSOR, json.dumps(processor, indent=2) + "\n")):
            with (aside / name).open("w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
        shutil.rmtree(folder, ignore_errors=True)
        aside.rename(folder)

    @classmethod
    def load(cls, folder: Path) -> "FastTokenizer":
        """Read what `save` wrote, or a published folder; further files and entries are ignored.

        Raises:
            ValueError: a file cannot be read, or the tokenizer is for chunks of another shape.
        """
        try:
            processor = json.loads((folder / PROCESSOR).read_text(encoding="utf-8"))
            for name, expected in (("time_horizon", ACTION_HORIZON), ("action_dim", len(DIMENSIONS))):
                # the tokenizer that the paper published fits every shape, and says null
                if processor.get(name) not in (None, expected):
                    raise ValueError(f"{name} is {processor[name]!r}; expected {expected}")
            return cls(
                (folder / TOKENIZER).read_text(encoding="utf-8"),
                processor["min_token"],
                float(processor["scale"]),
                processor["vocab_size"],
            )
        except KeyError as error:
            raise ValueError(f"{folder / PROCESSOR} has no entry {error}") from error
        except (AttributeError, OSError, TypeError, ValueError) as error:
            raise ValueError(f"cannot read a FAST tokenizer from {folder}: {error}") from error


def _coefficients(chunks: Float[np.ndarray, "b 30 23"], scale: float) -> Int[np.ndarray, "b 660"]:
    """Rounded coefficients, row-major (frequency, dimension)."""
    from scipy.fft import dct  # imported late: 0.1 s that every user of statistics would wait for

    transformed = dct(chunks[..., DIMENSIONS].astype(np.float64), axis=1, norm="ortho")
    rounded: np.ndarray = np.rint(transformed * scale).astype(np.int64).reshape(len(chunks), COEFFICIENTS)
    return rounded


def _texts(codes: Int[np.ndarray, "b 660"]) -> list[str]:
    """One text per row, of the characters with these code points."""
    text = codes.astype("<u4").tobytes().decode("utf-32-le")
    return [text[start : start + COEFFICIENTS] for start in range(0, len(text), COEFFICIENTS)]
