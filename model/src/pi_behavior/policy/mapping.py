"""Which checkpoint serves which task. Source: the published mapping file; report, section 6.4."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from pi_behavior.challenge import task as find_task
from pi_behavior.config import from_document
from pi_behavior.policy.config import PolicyConfig

CHAMPION = "champion.json"
"""The mapping in a champion's folder."""
RENEW_CHAMPION = (
    f"A {CHAMPION} written by an earlier version has to be promoted again, by a run of the pipeline evaluate"
)


@dataclass(frozen=True)
class CheckpointEntry:
    """One checkpoint and its tasks."""

    name: str
    path: Path
    tasks: frozenset[int] | None
    """Task indices; None serves every task."""


class _Row(msgspec.Struct):
    path: str
    tasks: list[int | str]


class _Mapping(msgspec.Struct):
    checkpoints: dict[str, _Row]
    policy: dict[str, Any] | None = None


def read_mapping(file: Path) -> tuple[list[CheckpointEntry], PolicyConfig | None]:
    """Read a mapping file, or a `champion.json`: it has the same layout.

    {"checkpoints": {"NAME": {"path": "...", "tasks": [...]}}, "policy": {...}}: tasks are names or numbers,
    relative paths are relative to the file, and `policy` has fields of `PolicyConfig`. Other entries are
    ignored.

    Returns:
        The checkpoints that have tasks; the settings of the policy, None where the file has none.

    Raises:
        ValueError: the file is missing or malformed, a task has two checkpoints, or no checkpoint is there.
    """
    expected = 'expected {"checkpoints": {"NAME": {"path": "...", "tasks": [...]}}}'
    try:
        mapping = msgspec.json.decode(file.read_bytes(), type=_Mapping)
        policy = None if mapping.policy is None else from_document(PolicyConfig, mapping.policy)
        entries = [
            CheckpointEntry(name, file.parent / row.path, frozenset(map(_task_index, row.tasks)))
            for name, row in mapping.checkpoints.items()
            if row.tasks
        ]
    except OSError as error:
        raise ValueError(f"cannot read the mapping {file}: {error.strerror}") from error
    except (msgspec.MsgspecError, ValueError) as error:
        raise ValueError(f"{file} is not a mapping: {error}; {expected}") from error
    if not entries:
        raise ValueError(f"{file} has no checkpoints with tasks; {expected}")
    owner: dict[int, str] = {}
    for entry in entries:
        for task in entry.tasks or ():
            if task in owner:
                raise ValueError(f"{file}: task {task} has two checkpoints, {owner[task]} and {entry.name}")
            owner[task] = entry.name
    if not any(entry.path.is_dir() for entry in entries):
        remedy = f". {RENEW_CHAMPION}" if file.name == CHAMPION and policy is None else ""
        raise ValueError(
            f"{entries[0].path} is not a policy checkpoint: there is no such folder, nor any other that "
            f"{file} names{remedy}"
        )
    return entries, policy


def _task_index(task: int | str) -> int:
    return find_task(task).index if isinstance(task, str) else task
