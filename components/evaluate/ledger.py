"""Which rollouts were started again, why, and whether they are to blame.

An evaluator that crashes may do so because of the rollout, or because of the machine. So a fault counts
against its rollout only after another rollout was finished later on the same machine.
"""

from collections import Counter
from collections.abc import Set
from dataclasses import dataclass, replace
from pathlib import Path

from components.evaluation import records

MOST = 3
"""Own faults after which a rollout is given up, and faults in a row after which the machine is in doubt."""
_MOST_STARTS = 20


@dataclass(frozen=True)
class Fault:
    """How a start of a rollout ended."""

    what: str
    own: bool = False
    """Whether the rollout is to blame."""


Faults = dict[str, list[Fault]]
"""By the files of the rollouts' results."""


def read_faults(path: Path) -> Faults:
    """The faults that a worker noted."""
    return records.read(path, Faults, "remove it: the rollouts' earlier faults are then forgotten")


class Ledger:
    """The faults of an evaluation. Each worker writes its own into a file, and reads those of the others."""

    def __init__(self, folder: Path, me: str) -> None:
        self._folder, self._path = folder, folder / f"{me}.json"
        self._faults: Faults = {}
        self._others: Faults = {}
        self._open: set[tuple[str, int]] = set()
        """Faults, as file and number, of which is not known yet who is to blame."""
        self._in_a_row = 0
        self.refresh()

    def refresh(self) -> None:
        """Read what the other workers noted, and those that were killed."""
        self._others = {}
        for path in sorted(self._folder.glob("[!.]*.json")):
            if path != self._path:
                for file, faults in read_faults(path).items():
                    self._others.setdefault(file, []).extend(faults)

    def reasons(self, file: str) -> tuple[str, ...]:
        """How the starts of a rollout ended that gave no result."""
        return tuple(fault.what for fault in self._all(file))

    def given_up(self, file: str) -> bool:
        """Whether a rollout has had its last start."""
        return sum(fault.own for fault in self._all(file)) >= MOST

    def in_doubt(self) -> bool:
        """Whether a finished rollout is needed to tell whether rollouts or the machine are to blame."""
        undecided = Counter(file for file, _ in self._open)
        return self._in_a_row >= MOST or any(
            undecided[file] + sum(fault.own for fault in self._all(file)) >= MOST for file in undecided
        )

    def worn_out(self) -> str | None:
        """A rollout that was started too often for reasons that are not its own; None where there is none."""
        return next((file for file in self._faults if len(self._all(file)) >= _MOST_STARTS), None)

    def add(self, file: str, what: str, *, own: bool) -> None:
        """Note a fault; `own`: the rollout may be to blame."""
        faults = self._faults.setdefault(file, [])
        if own:
            self._open.add((file, len(faults)))
        faults.append(Fault(what))
        self._save()

    def failed(self) -> None:
        """A process of the evaluator failed."""
        self._in_a_row += 1

    def finished(self, files: Set[str]) -> None:
        """Rollouts were finished on this machine, so open faults of others were their own."""
        self._in_a_row = 0
        for file, number in self._open:
            self._faults[file][number] = replace(self._faults[file][number], own=bool(files - {file}))
        if self._open:
            self._save()
        self._open.clear()

    def _all(self, file: str) -> list[Fault]:
        return [*self._others.get(file, ()), *self._faults.get(file, ())]

    def _save(self) -> None:
        records.write(self._path, self._faults)
