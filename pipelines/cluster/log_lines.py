"""What the lines of a stage's log say: how far it is, why it failed."""

import re
from collections.abc import Sequence
from typing import Any

_LAUNCHER = re.compile(r"([IWEF])\d{4} \d\d:\d\d:\d\d\.\d+ +\d+ [\w.]+:\d+\] (.*)")
"""A line of Kubeflow's launcher, driver or importer, not of the program: how serious it is, and its text."""
_OF_PROGRAM = re.compile(r"exit status \d+|signal: ")
"""What the launcher says last where the program has failed, not the launcher."""
_ENDED = re.compile(r"attempt (\d+) of \d+ ended with (exit code|signal) \w+; .*")
"""A line of what starts a stage again, `components/runtime/attempts.py`."""
_NUMBER = r"\d[\d,]*(?:\.\d+)?"
_PROGRESS = re.compile(
    rf"(?P<description>\S.*?) (?P<completed>{_NUMBER})(?:/(?P<total>{_NUMBER}) \(\d+ ?%\))?"
    r"(?:, (?P<left>\d+(?::\d\d){1,2}) left)?(?:, (?P<note>.*))?"
)
"""A line as `components/runtime/progress.py` writes it."""


def progress(lines: Sequence[str]) -> dict[str, Any]:
    """The last progress that a stage has written, as the events of local runs have it; empty if none."""
    for line in reversed(lines):
        found = _PROGRESS.fullmatch(line.strip())
        if found and (found["total"] or found["left"]):
            return {
                "description": found["description"],
                "completed": _number(found["completed"]),
                "total": _number(found["total"]),
                "left": _seconds(found["left"]),
                "note": found["note"] or "",
            }
    return {}


def reason(lines: Sequence[str]) -> str:
    """What the program of a failed task said last, or Kubeflow's launcher, driver or importer if that failed.

    Of an error the stage has said more than what starts it again; of a signal it has said nothing.
    """
    own = [" ".join(line.split()) for line in lines if not _LAUNCHER.match(line)]
    fatal = [
        " ".join(found[2].split()) for line in lines if (found := _LAUNCHER.match(line)) and found[1] == "F"
    ]
    if fatal and not (own and _OF_PROGRAM.search(fatal[-1])):
        return fatal[-1]
    if not own:
        return ""
    said = []
    if ended := _ENDED.fullmatch(own[-1]):
        said = [line for line in own if line.startswith(f"attempt {ended[1]} is ended: ")]
        if not said and ended[2] == "exit code":
            said = [line for line in own if not _ENDED.fullmatch(line)]
    return (said or own)[-1]


def _number(text: str | None) -> float:
    return float(text.replace(",", "")) if text else 0.0


def _seconds(text: str | None) -> float | None:
    if text is None:
        return None
    total = 0.0
    for part in text.split(":"):
        total = 60 * total + int(part)
    return total
