"""Instructions as CLIP's tokens.

Text is lower-cased, runs of white space become one space, words are split by CLIP's pattern and encoded by
byte pairs. The last two tokens of the table are the start and the end of a text; the end also pads.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Int32
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

from pi_behavior.checkpoint_description import CheckpointError
from pi_behavior.files import write_atomic

TOKENIZER = "tokenizer.json"
_VOCABULARY, _MERGES = "vocab.json", "merges.txt"
_START, _END, _WORD_END = "<|startoftext|>", "<|endoftext|>", "</w>"
_WORDS = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"


@dataclass(frozen=True)
class TextTokenizer:
    """A tokenizer for texts of one length.

    Raises:
        CheckpointError: `content` is no tokenizer, or one without CLIP's start and end.
    """

    content: str = field(repr=False)
    """The text of a `tokenizer.json`."""
    length: int
    """Tokens of a text, with start and end; longer texts are cut off, shorter ones padded."""

    def __post_init__(self) -> None:
        """Check that start and end are there."""
        missing = [token for token in (_START, _END) if self._tokenizer.token_to_id(token) is None]
        if missing:
            raise CheckpointError(f"the tokenizer has no {' and no '.join(missing)}; expected CLIP's")

    @cached_property
    def _tokenizer(self) -> Tokenizer:
        try:
            tokenizer = Tokenizer.from_str(self.content)
        except Exception as error:  # the library raises this type itself
            raise CheckpointError(f"the tokenizer cannot be read: {error}") from error
        end = tokenizer.token_to_id(_END)
        if end is not None:
            tokenizer.enable_truncation(self.length)
            tokenizer.enable_padding(length=self.length, pad_id=end, pad_token=_END)
        return tokenizer

    @property
    def vocabulary(self) -> int:
        """One more than the highest token."""
        return 1 + max(self._tokenizer.get_vocab().values())

    def encode(self, texts: Sequence[str]) -> tuple[Int32[np.ndarray, "b n"], Bool[np.ndarray, "b n"]]:
        """Tokens, and a mask that is False for padding."""
        rows = self._tokenizer.encode_batch(list(texts))
        tokens = np.array([row.ids for row in rows], np.int32)
        return tokens, np.array([row.attention_mask for row in rows], bool)

    def save(self, folder: Path) -> None:
        """Write `tokenizer.json`; it appears whole or not at all."""
        write_atomic(folder / TOKENIZER, self.content)

    @classmethod
    def load(cls, folder: Path, length: int) -> "TextTokenizer":
        """Read `tokenizer.json`, or else `vocab.json` and `merges.txt`, of a folder.

        Raises:
            CheckpointError: neither is there, or they are damaged.
        """
        try:
            if (folder / TOKENIZER).is_file():
                return cls((folder / TOKENIZER).read_text(encoding="utf-8"), length)
            vocabulary = json.loads((folder / _VOCABULARY).read_text(encoding="utf-8"))
            lines = (folder / _MERGES).read_text(encoding="utf-8").split("\n")
            merges = [_pair(line) for line in lines if line.strip() and not _is_header(line)]
            return cls(_assemble(vocabulary, merges).to_str(), length)
        except (OSError, ValueError, TypeError) as error:
            raise CheckpointError(
                f"{folder} has no tokenizer that can be read: {error}. Expected {TOKENIZER}, or "
                f"{_VOCABULARY} and {_MERGES}, of CLIP"
            ) from error

    @classmethod
    def train(cls, texts: Iterable[str], vocabulary: int, length: int) -> "TextTokenizer":
        """Make a table of byte pairs from texts; any other text can be encoded with it too.

        Args:
            texts: what to learn from.
            vocabulary: tokens, start and end included; at least 514.
            length: tokens of a text.

        Raises:
            ValueError: the vocabulary has no room for all bytes.
        """
        letters = sorted(pre_tokenizers.ByteLevel.alphabet())
        if vocabulary < 2 * len(letters) + 2:
            raise ValueError(f"the vocabulary is {vocabulary}; expected at least {2 * len(letters) + 2}")
        start = {letter: n for n, letter in enumerate([*letters, *(f"{x}{_WORD_END}" for x in letters)])}
        learner = _assemble({**start, _START: vocabulary - 2, _END: vocabulary - 1}, [])
        trainer = trainers.BpeTrainer(
            vocab_size=vocabulary - 2,
            initial_alphabet=letters,
            end_of_word_suffix=_WORD_END,
            show_progress=False,
        )
        learner.train_from_iterator(sorted(texts), trainer)
        merges = [(left, right) for left, right in json.loads(learner.to_str())["model"]["merges"]]
        merges = merges[: vocabulary - 2 - len(start)]
        for left, right in merges:
            start.setdefault(left + right, len(start))
        table = {**start, _START: vocabulary - 2, _END: vocabulary - 1}
        return cls(_assemble(table, merges).to_str(), length)


def _pair(line: str) -> tuple[str, str]:
    left, right = line.split()
    return left, right


def _is_header(line: str) -> bool:
    return line.startswith("#version")


def _assemble(vocabulary: dict[str, int], merges: list[tuple[str, str]]) -> Tokenizer:
    """CLIP's way to make tokens, with a table."""
    tokenizer = Tokenizer(
        models.BPE(
            vocab=vocabulary,
            merges=merges,
            unk_token=_END,
            continuing_subword_prefix="",
            end_of_word_suffix=_WORD_END,
        )
    )
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_WORDS), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{_START} $A {_END}",
        special_tokens=[(_START, vocabulary[_START]), (_END, vocabulary[_END])],
    )
    return tokenizer
