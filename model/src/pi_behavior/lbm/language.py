"""Instructions of the challenge's tasks, in several wordings, as tokens."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int32

from pi_behavior.challenge import TASKS_BY_INDEX, Task
from pi_behavior.checkpoint_description import STATISTICS
from pi_behavior.lbm.config import LbmConfig
from pi_behavior.lbm.tokens import TOKENIZER, TextTokenizer


class TaskTokens(NamedTuple):
    """Tokens by task index and wording; the first wording is the instruction itself."""

    tokens: Int32[np.ndarray, "t p n"]
    mask: Bool[np.ndarray, "t p n"]


def wordings(task: Task) -> tuple[str, ...]:
    """A task's instruction, and the same in other words."""
    sentence = task.instruction
    inside = sentence[:1].lower() + sentence[1:]
    name = task.name.replace("_", " ")
    return (sentence, f"Please {inside}", f"Your task is to {inside}", f"The task is {name}.", name)


def task_tokens(tokenizer: TextTokenizer) -> TaskTokens:
    """Tokens of all tasks; rows of indices without a task are of an empty text."""
    rows = [
        wordings(TASKS_BY_INDEX[index]) if index in TASKS_BY_INDEX else ("",) * 5
        for index in range(max(TASKS_BY_INDEX) + 1)
    ]
    tokens, mask = tokenizer.encode([text for row in rows for text in row])
    shape = (len(rows), len(rows[0]), tokenizer.length)
    return TaskTokens(tokens.reshape(shape), mask.reshape(shape))


def tokenizer_of(config: LbmConfig, start: Path | None) -> TextTokenizer:
    """The tokenizer that a training uses.

    Args:
        config: the policy.
        start: the checkpoint that it starts from, whose tokenizer it keeps.

    Returns:
        The checkpoint's; or, where there is none, one that is learned from the instructions.
    """
    if start is not None and (start / STATISTICS / TOKENIZER).is_file():
        return TextTokenizer.load(start / STATISTICS, config.text.length)
    texts = [text for task in TASKS_BY_INDEX.values() for text in wordings(task)]
    return TextTokenizer.train(texts, config.text.vocabulary, config.text.length)
