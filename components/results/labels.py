"""Labels of failed rollouts by people: one file per leaderboard, to which lines are only ever appended.

`labels/DIGEST.jsonl` has a line per change: when, who, which rollout, its causes and a note. The last line of
a person and rollout counts, and the others are the audit trail. No artifact is changed.
"""

import csv
import fcntl
import io
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from components.errors import UserError
from components.leaderboard.causes import CAUSES, IDS

FOLDER = "labels"
_LONGEST = {"rollout": 400, "who": 80, "note": 2000}
_FIELDS = ("time", "rollout", "who", "causes", "note")
_FORMULAS = ("=", "+", "-", "@", "\t", "\r")
"""What a spreadsheet would take for a formula at the start of a cell."""


@dataclass(frozen=True)
class Label:
    """What one person said of one rollout."""

    time: str
    """ISO 8601 in UTC."""
    rollout: str
    """POLICY/TASK/INSTANCE/NUMBER."""
    who: str
    causes: tuple[str, ...]
    """Of the closed list; none takes the label back."""
    note: str

    @classmethod
    def make(cls, rollout: object, who: object, causes: object, note: object, time: str = "") -> "Label":
        """Check what was given; ValueError with what is wrong."""
        texts = {"rollout": rollout, "who": who, "note": note}
        for name, value in texts.items():
            if not isinstance(value, str) or len(value) > _LONGEST[name]:
                raise ValueError(
                    f"{name} is {value!r:.60}; expected text of at most {_LONGEST[name]} characters"
                )
        if not str(who).strip() or str(rollout).count("/") != 3:
            raise ValueError("expected a name, and a rollout as POLICY/TASK/INSTANCE/NUMBER")
        if not isinstance(causes, list | tuple) or not set(map(str, causes)) <= IDS:
            raise ValueError(f"causes is {causes!r:.60}; expected a list of {', '.join(sorted(IDS))}")
        order = [cause.id for cause in CAUSES if cause.id in causes]
        when = time or datetime.now(UTC).isoformat(timespec="seconds")
        return cls(when, str(rollout), str(who).strip(), tuple(order), str(note).strip())


class Labels:
    """The labels of one leaderboard."""

    def __init__(self, folder: Path, digest: str) -> None:
        """`folder` is the workspace's `labels`, `digest` the leaderboard's hex SHA-256."""
        if not digest or not set(digest) <= set("0123456789abcdef"):
            raise ValueError(f"the digest is {digest!r:.80}; expected hexadecimal digits")
        self.path = folder / f"{digest}.jsonl"

    def history(self) -> list[Label]:
        """All lines, the earliest first; a line that a kill cut off is left out."""
        found = []
        for line in self.path.read_text(errors="replace").splitlines() if self.path.is_file() else ():
            try:
                row = json.loads(line)
                found.append(Label.make(row["rollout"], row["who"], row["causes"], row["note"], row["time"]))
            except (ValueError, KeyError, TypeError):
                continue
        return found

    def current(self) -> dict[str, dict[str, Label]]:
        """The label that counts, by rollout and person."""
        found: dict[str, dict[str, Label]] = {}
        for label in self.history():
            people = found.setdefault(label.rollout, {})
            people[label.who] = label
            if not label.causes and not label.note:
                del people[label.who]
        return {rollout: people for rollout, people in found.items() if people}

    def add(self, labels: Iterable[Label]) -> None:
        """Append labels; each is on the disk, whole, when this returns."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        lines = "".join(json.dumps(asdict(label)) + "\n" for label in labels)
        with self.path.open("a+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.seek(0, os.SEEK_END)
            if file.tell():  # a line that a kill cut off ends here
                file.seek(-1, os.SEEK_END)
                lines = lines if file.read(1) == b"\n" else "\n" + lines
            file.write(lines.encode())
            file.flush()
            os.fsync(file.fileno())

    def for_report(self) -> dict[str, dict[str, dict[str, object]]]:
        """As the report's page takes them."""
        return {
            rollout: {who: {"causes": label.causes, "note": label.note} for who, label in people.items()}
            for rollout, people in self.current().items()
        }


def to_csv(labels: Mapping[str, Mapping[str, Label]]) -> str:
    """The labels that count as CSV; causes with spaces between."""
    text = io.StringIO()
    writer = csv.DictWriter(text, _FIELDS, lineterminator="\n")
    writer.writeheader()
    for _, people in sorted(labels.items()):
        for _, label in sorted(people.items()):
            row = {**asdict(label), "causes": " ".join(label.causes)}
            writer.writerow({name: _no_formula(value) for name, value in row.items()})
    return text.getvalue()


def from_csv(text: str) -> list[Label]:
    """Labels from CSV; UserError that names the line if one cannot be."""
    found = []
    reader = csv.DictReader(io.StringIO(text))
    if not set(_FIELDS[1:]) <= set(reader.fieldnames or ()):
        raise UserError(f"the columns are {reader.fieldnames}; expected {', '.join(_FIELDS)}")
    for row in reader:
        cells = {name: _formula_back(row.get(name) or "") for name in _FIELDS}
        try:
            causes = cells["causes"].split()
            found.append(Label.make(cells["rollout"], cells["who"], causes, cells["note"], cells["time"]))
        except ValueError as error:
            raise UserError(f"line {reader.line_num}: {error}") from error
    return found


def _no_formula(value: str) -> str:
    return f"'{value}" if value.startswith((*_FORMULAS, "'")) else value


def _formula_back(value: str) -> str:
    return value[1:] if value.startswith("'") else value


def kappa(first: Mapping[str, Iterable[str]], second: Mapping[str, Iterable[str]]) -> dict[str, float | None]:
    """Cohen's kappa of two people for each cause, over the rollouts that both have labelled.

    Args:
        first: causes by rollout.
        second: the same of the other person.

    Returns:
        By cause: 1 is full agreement, 0 what chance would give. None where it is not defined, as when both
        say the same of every rollout because the cause never, or always, applies.
    """
    both = sorted(first.keys() & second.keys())
    found: dict[str, float | None] = {}
    for cause in (one.id for one in CAUSES):
        pairs = [(cause in first[one], cause in second[one]) for one in both]
        agreed = sum(a == b for a, b in pairs) / len(pairs) if pairs else 0.0
        yes = [sum(pair[side] for pair in pairs) / len(pairs) if pairs else 0.0 for side in (0, 1)]
        chance = yes[0] * yes[1] + (1 - yes[0]) * (1 - yes[1])
        found[cause] = (agreed - chance) / (1 - chance) if pairs and chance < 1 else None
    return found
