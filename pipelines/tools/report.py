"""The report of a leaderboard: open it, build it again with labels, and the labels of its failures.

A report is a folder of static files. `b1k results serve` shows all reports of a workspace, and takes labels.
"""

import os
import shutil
import sys
import webbrowser
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console
from rich.table import Table

from components.errors import UserError
from components.leaderboard.causes import CAUSES
from components.results.labels import FOLDER, Labels, from_csv, kappa, to_csv
from components.results.listing import boards, decision_of
from components.results.site import write_again
from components.store.artifact import Artifact
from components.store.files import write_atomic

CURRENT = "report"
"""The folder of a workspace with the report that was made or opened last."""


@dataclass(frozen=True)
class _Board:
    board: Path | None = None
    """A leaderboard's folder; by default the workspace's last one."""
    workspace: Path = Path("workspace")
    """Where the last one is looked for."""

    def find(self) -> Artifact:
        """The leaderboard; UserError if there is none."""
        if self.board is not None:
            return Artifact.load(self.board)
        found = boards(self.workspace.resolve()) if self.workspace.is_dir() else []
        if not found:
            raise UserError(
                f"{self.workspace} has no leaderboard; run `b1k demo`, or give a leaderboard's --board"
            )
        return Artifact.load(self.workspace / found[0].place)

    def labels(self) -> Labels:
        """The leaderboard's labels."""
        return _labels(self.find())


@dataclass(frozen=True)
class Open(_Board):
    """Open a report in the browser, with labels and the promotion's decision; by default the last one of the
    workspace. It is written into `report/` of the workspace.
    """


@dataclass(frozen=True)
class Build(_Board):
    """Write a report again, with labels and the promotion's decision, into a folder that is no artifact."""

    output: Path = Path("report")
    """The folder to write."""


@dataclass(frozen=True)
class Export(_Board):
    """Write the labels that count as CSV."""

    output: Path = Path("labels.csv")
    """The file to write."""


@dataclass(frozen=True)
class Import(_Board):
    """Add labels from CSV, as `export-labels` writes it."""

    file: Path = Path("labels.csv")
    """The file to read."""


@dataclass(frozen=True)
class Agreement(_Board):
    """Cohen's kappa of each two people who have labelled the same rollouts, by cause."""


Command = (
    Annotated[Open, tyro.conf.subcommand("open")]
    | Annotated[Build, tyro.conf.subcommand("build")]
    | Annotated[Export, tyro.conf.subcommand("export-labels")]
    | Annotated[Import, tyro.conf.subcommand("import-labels")]
    | Annotated[Agreement, tyro.conf.subcommand("agreement")]
)


def run(command: Command) -> int:
    """Run one of the commands; returns exit code 0."""
    match command:
        case Open():
            page = current(command.find())
            has_screen = (
                sys.platform == "darwin" or "DISPLAY" in os.environ or "WAYLAND_DISPLAY" in os.environ
            )
            if not (has_screen and webbrowser.open(page.as_uri())):
                print(
                    "there is no browser here; copy the folder, or run `b1k results serve` and use a tunnel"
                )
            print(page)
        case Build():
            print(_write(command.find(), command.output.resolve()))
        case Export():
            labels = command.labels()
            found = labels.current()
            write_atomic(command.output, to_csv(found))
            print(f"labels of {len(found)} rollouts in {command.output}")
        case Import():
            _import(command)
        case Agreement():
            _agreement(command)
    return 0


def current(board: Artifact) -> Path:
    """Make a leaderboard's report with what is known now the one in the workspace; returns its page."""
    folder = board.workspace / CURRENT
    aside = folder.with_name(f".{CURRENT}.{os.getpid()}.partial")
    try:
        shutil.rmtree(aside, ignore_errors=True)
        page = _write(board, aside)
        shutil.rmtree(folder, ignore_errors=True)
        return aside.rename(folder) / page.name
    except OSError as error:  # a workspace that may only be read
        page = board.path / CURRENT / "index.html"
        print(f"without labels and decision, since {folder} cannot be written: {error.strerror}")
        return page


def _write(board: Artifact, folder: Path) -> Path:
    return write_again(board, folder, _labels(board).for_report(), decision_of(board.path))


def _labels(board: Artifact) -> Labels:
    return Labels(board.workspace / FOLDER, board.digest)


def _import(command: Import) -> None:
    labels = command.labels()
    try:
        found = from_csv(command.file.read_text())
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{command.file} cannot be read: {error}") from error
    known = {tuple(vars(one).values()) for one in labels.history()}
    new = [one for one in found if tuple(vars(one).values()) not in known]
    labels.add(new)
    print(f"{len(new)} labels added, {len(found) - len(new)} were there")


def _agreement(command: Agreement) -> None:
    labels = command.labels()
    people: dict[str, dict[str, tuple[str, ...]]] = {}
    for rollout, given in labels.current().items():
        for who, label in given.items():
            people.setdefault(who, {})[rollout] = label.causes
    shown = 0
    for first, second in combinations(sorted(people), 2):
        both = len(people[first].keys() & people[second].keys())
        if not both:
            continue
        shown += 1
        table = Table(title=f"{first} and {second}: Cohen's kappa over {both} rollouts")
        table.add_column("cause")
        table.add_column("kappa", justify="right")
        values = kappa(people[first], people[second])
        for cause in CAUSES:
            value = values[cause.id]
            table.add_row(cause.name, "not defined" if value is None else f"{value:.2f}")
        Console().print(table)
    if not shown:
        print("no two people have labelled the same rollout yet")
