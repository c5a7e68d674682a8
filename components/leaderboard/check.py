"""Check a submission before the organisers do: `b1k leaderboard check ZIP`.

Names, counts, digests, values that contradict each other, and what a submission must say about itself. Exit
code 1 if there is a fault; notes are no faults.
"""

import re
import stat
import tempfile
import zipfile
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import tyro

from components.errors import UserError
from components.evaluation import records
from components.evaluation.rollouts import NoResultError, check_video
from components.leaderboard.check_results import Result, contradictions, read_results
from components.leaderboard.check_texts import contradictions_of_texts, lacks
from components.leaderboard.manifest import MANIFEST, MAPPING, METRICS, README, Manifest
from components.store.sums import SUMS, parse_sums, sha256_file
from pi_behavior.challenge import EDITIONS

_TRACKS, _TESTSETS = ("standard", "privileged"), ("public", "hidden")
_INSTANCES = {"public": range(301, 311), "hidden": range(321, 341)}
"""Instance ids of 2026: the prescribed ones of the public test set, and those that the organisers keep."""
_DEADLINE = {"2026": date(2026, 10, 16)}
_DATE = re.compile(r"\d{4}-\d\d-\d\d")
_LARGEST = 1 << 30
"""Bytes that the files of a submission may have together; videos are not part of it."""
_NAMES = ("team", "affiliation")


@dataclass(frozen=True)
class Options:
    """Check a submission before the organisers do."""

    zip: tyro.conf.Positional[Path]
    """The zip of the whole folder, TRACK.TESTSET.TEAM.AFFILIATION.DATE.zip, or that of the results alone."""
    videos: Path | None = None
    """Folder with the videos of the results; when not given, `videos` beside the zip, where that is."""


@dataclass(frozen=True)
class Fault:
    """Something that is wrong with a submission, or worth knowing."""

    text: str
    is_note: bool = False


def run(options: Options) -> int:
    """Print what is wrong; returns exit code 1 if anything is."""
    beside = options.zip.parent / "videos"
    videos = options.videos or (beside if beside.is_dir() else None)
    found = check(options.zip, videos, datetime.now(UTC).date())
    for fault in found:
        print(f"{'note' if fault.is_note else 'fault'}: {fault.text}")
    faults = sum(not fault.is_note for fault in found)
    print(f"{options.zip.name}: {faults or 'no'} fault{'s' * (faults != 1)}")
    return int(faults > 0)


def check(path: Path, videos: Path | None, today: date) -> list[Fault]:
    """All faults of a submission's zip; UserError if there is no such file or folder."""
    if not path.is_file():
        raise UserError(f"there is no file {path}; expected the zip of a submission")
    if videos is not None and not videos.is_dir():
        raise UserError(f"there is no folder {videos}; expected the videos of the submission")
    with tempfile.TemporaryDirectory() as place:
        try:
            with zipfile.ZipFile(path) as archive:
                unfit = list(_unfit(archive))
                if unfit:
                    return unfit
                archive.extractall(place)
        except (zipfile.BadZipFile, NotImplementedError, OSError, EOFError) as error:
            return [Fault(f"the zip cannot be read: {error}")]
        folders = sorted(Path(place).iterdir())
        if len(folders) != 1 or not folders[0].is_dir():
            names = ", ".join(one.name for one in folders) or "nothing"
            return [Fault(f"the zip holds {names} at its top; expected one folder")]
        return list(_Check(path, folders[0], videos, today).faults())


def _unfit(archive: zipfile.ZipFile) -> Iterator[Fault]:
    """Entries for which the zip must not be unpacked."""
    seen: set[str] = set()
    is_fit = True
    for entry in archive.infolist():
        name, faults = entry.filename, []
        if name.startswith(("/", "\\")) or ".." in Path(name).parts or ":" in name.split("/")[0]:
            faults.append(f"the zip holds {name!r}, a path that leads out of it")
        if stat.S_ISLNK(entry.external_attr >> 16):
            faults.append(f"{name} is a link; expected the file")
        if entry.flag_bits & 1:
            faults.append(f"{name} is encrypted")
        if name in seen:
            faults.append(f"the zip holds {name} twice")
        seen.add(name)
        is_fit = is_fit and not faults
        yield from map(Fault, faults)
    if (size := sum(entry.file_size for entry in archive.infolist())) > _LARGEST:
        yield Fault(f"the files have {size / 1e9:.1f} GB; expected results and texts, and videos by link")
    elif is_fit and (damaged := archive.testzip()) is not None:
        yield Fault(f"{damaged} is damaged in the zip")


class _Check:
    """The checks of an unpacked submission."""

    def __init__(self, path: Path, folder: Path, videos: Path | None, today: date) -> None:
        self.path, self.folder, self.videos, self.today = path, folder, videos, today
        self.alone = path.name.endswith(METRICS)
        """Whether it holds the results alone."""
        self.manifest: Manifest | None = None
        self.edition = "2026"
        self.testset = ""

    def faults(self) -> Iterator[Fault]:
        """All of them."""
        yield from self._manifest()
        yield from self._name()
        yield from self._files()
        if not self.alone:
            yield from self._sums()
        results, faults = read_results(self.folder / "json", self.edition)
        yield from map(Fault, faults)
        yield from self._counts(results)
        yield from map(Fault, contradictions(results, EDITIONS[self.edition].time_limit))
        if self.videos is not None:
            yield from self._videos(results, self.videos)
        if self.manifest is not None:
            names = {one.name for one in results}
            yield from map(Fault, contradictions_of_texts(self.folder, self.manifest, names))

    def _manifest(self) -> Iterator[Fault]:
        if self.alone:
            first = next((self.folder / "json").glob("*.json"), None)
            self.edition = "2025" if first and b'"success"' not in first.read_bytes() else "2026"
            return
        try:
            self.manifest = records.read(self.folder / MANIFEST, Manifest, "package it again")
        except UserError as error:
            yield Fault(str(error).replace(f"{self.folder}/", ""))
        else:
            self.edition = self.manifest.edition
            yield from map(Fault, lacks(self.manifest))

    def _name(self) -> Iterator[Fault]:
        name = self.folder.name
        wanted = f"{name}{METRICS if self.alone else '.zip'}"
        if self.path.name != wanted:
            yield Fault(f"the zip is called {self.path.name}; expected {wanted}, as its folder")
        parts = name.split(".")
        if len(parts) != 5:
            yield Fault(f"the folder is called {name}; expected TRACK.TESTSET.TEAM.AFFILIATION.DATE")
            return
        track, self.testset, *names, day = parts
        if track not in _TRACKS:
            yield Fault(f"the track is {track!r}; expected one of {', '.join(_TRACKS)}")
        if self.testset not in _TESTSETS:
            yield Fault(f"the test set is {self.testset!r}; expected one of {', '.join(_TESTSETS)}")
        for what, given in zip(_NAMES, names, strict=True):
            if not given.strip("_") or re.search(r"[^\w-]", given):
                yield Fault(f"the {what} is {given!r}; expected letters, digits, - and _")
        if names[0] == "team":
            yield Fault("the team is called 'team'; set leaderboard.team")
        try:
            found = date.fromisoformat(day) if _DATE.fullmatch(day) else None
        except ValueError:
            found = None
        if found is None:
            yield Fault(f"the date is {day!r}; expected YYYY-MM-DD")
        elif found > self.today + timedelta(days=1):
            yield Fault(f"the date is {day}, which is yet to come")
        elif found > _DEADLINE.get(self.edition, found):
            yield Fault(f"{day} is after the deadline, {_DEADLINE[self.edition]}", is_note=True)

    def _files(self) -> Iterator[Fault]:
        known = set() if self.alone else {MANIFEST, MAPPING, README, SUMS}
        present = {one.name for one in self.folder.iterdir()}
        for name in sorted(known - present - {MANIFEST}):
            yield Fault(f"{name} is missing")
        others = present - known - {"json"}
        conditions = self.manifest.conditions if self.manifest else None
        digests = {name: sha256_file(self.folder / name) for name in others if (self.folder / name).is_file()}
        for what in ("wrapper", "robot_config"):
            digest = getattr(conditions, what, "")
            # one of the evaluator's has a dotted name
            if digest and "." not in digest and digest not in digests.values():
                yield Fault(
                    f"the {what.replace('_', ' ')} that was used is missing, or another one is packed"
                )
            digests = {name: one for name, one in digests.items() if one != digest}
        for name in sorted(others & {*digests, *(n for n in others if (self.folder / n).is_dir())}):
            yield Fault(f"{name} does not belong to a submission")

    def _sums(self) -> Iterator[Fault]:
        file = self.folder / SUMS
        if not file.is_file():
            return
        try:
            sums = parse_sums(file.read_text())
        except ValueError as error:
            yield Fault(f"{SUMS} is damaged: {error}")
            return
        paths = {p.relative_to(self.folder).as_posix(): p for p in self.folder.rglob("*") if p.is_file()}
        del paths[SUMS]
        for name in sorted(paths.keys() | sums.keys()):
            if name not in sums:
                yield Fault(f"{name} is not in {SUMS}: it was added")
            elif name not in paths:
                yield Fault(f"{name} is in {SUMS}, and missing")
            elif sha256_file(paths[name]) != sums[name]:
                yield Fault(f"{name} has another digest than in {SUMS}: it was edited")

    def _counts(self, results: list[Result]) -> Iterator[Fault]:
        edition = EDITIONS[self.edition]
        by_task: dict[str, list[Result]] = defaultdict(list)
        for one in results:
            by_task[one.task].append(one)
            if one.task not in edition.task_names:
                yield Fault(f"{one.task} is no task of {self.edition}")
            if one.rollout >= edition.rollouts:
                yield Fault(f"{one.name} is another rollout of its instance; one is prescribed")
        yield from self._test_set(results)
        for task, ones in sorted(by_task.items()):
            if len(ones) > edition.instances:
                yield Fault(f"{task} has {len(ones)} results; expected {edition.instances}")
        prescribed = edition.tasks * edition.instances
        if not results:
            yield Fault("there is no result")
        elif len(results) < prescribed:
            text = f"{len(results)} of {prescribed} results, of {len(by_task)} of {edition.tasks} tasks"
            yield Fault(f"{text}; the others count as 0", is_note=True)

    def _test_set(self, results: list[Result]) -> Iterator[Fault]:
        """Instances of another test set; in 2025 every task has its own ids."""
        if self.edition != "2026":
            return
        wanted = _INSTANCES.get(self.testset, _INSTANCES["public"])
        for name, ids in (*_INSTANCES.items(), ("", range(0))):
            known = [one.name for one in results if one.instance in ids]
            if not name:
                known = [r.name for r in results if not any(r.instance in i for i in _INSTANCES.values())]
            if known and ids != wanted:
                whose = f"the {name} test set" if name else "no test set"
                of = f"{known[0]} and {len(known) - 1} others are" if known[1:] else f"{known[0]} is"
                yield Fault(f"{of} of {whose}; expected instances {wanted[0]} to {wanted[-1]}")

    def _videos(self, results: list[Result], folder: Path) -> Iterator[Fault]:
        for one in results:
            try:
                check_video(folder / f"{one.name}.mp4")
            except NoResultError as error:
                yield Fault(f"{one.name}: {error}")
        for path in sorted(folder.glob("*.mp4")):
            if path.stem not in {one.name for one in results}:
                yield Fault(f"the video {path.name} has no result")
