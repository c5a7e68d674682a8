"""The results of an evaluation: read from an evaluator's output, and put in place as a whole or not at all.

A finished rollout is a folder with its JSON, its video and how long it took. It is made aside and renamed, so
of two workers that did the same rollout the first one's stays, with all that belongs to it.
"""

import errno
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from components.errors import UserError
from components.evaluation import records
from components.evaluation.durations import TIMES, Times
from components.evaluation.evaluator import Evaluator
from components.evaluation.plan import Job, Plan
from components.evaluation.rollouts import (
    NoResultError,
    Outcome,
    Rollout,
    RolloutKey,
    check_video,
    excerpt_of,
)
from components.store.files import sync, write_atomic

_VIDEOS = "videos"


@dataclass(frozen=True)
class Instance:
    """An instance of a job: the piece of work that workers claim."""

    job: Job
    index: int
    rollouts: tuple[Rollout, ...]
    """With the places of their files in the artifact."""

    @property
    def name(self) -> str:
        """Its name among the claims."""
        return f"{self.job.policy.replace(':', '-')}~{self.job.split}~{self.rollouts[0].name}"


class Results:
    """The results in the folder that becomes the evaluation's artifact."""

    def __init__(self, plan: Plan, evaluator: Evaluator, content: Path, refused: Path) -> None:
        """Prepare; UserError if the instance ids cannot be read.

        `refused` is a folder for results that are not understood.
        """
        self._evaluator = evaluator
        self._content = content
        self._refused = refused
        self._outcomes: dict[str, Outcome] = {}
        self.instances = {job: _prescribe(plan, job, evaluator) for job in plan.jobs}
        self._places = {str(one.json): one for one in self.all()}
        for folder in {_place(one).parent for one in self.all()}:
            (content / folder).mkdir(parents=True, exist_ok=True)

    def all(self) -> Iterator[Rollout]:
        """All rollouts of the evaluation."""
        return (one for those in self.instances.values() for instance in those for one in instance.rollouts)

    def is_published(self) -> bool:
        """Whether another worker has finished the evaluation, and its folder is an artifact now."""
        return not self._content.is_dir()

    def outcome(self, rollout: Rollout) -> Outcome | None:
        """The outcome of a rollout, once `refresh` or `commit` has seen it."""
        return self._outcomes.get(str(rollout.json))

    def refresh(self) -> None:
        """Look for what other workers have put in place.

        Raises:
            UserError: a result was not understood.
        """
        for folder in {_place(one).parent for one in self._places.values()}:
            try:
                names = os.listdir(self._content / folder)
            except FileNotFoundError:
                return
            for name in names:
                one = self._places.get(f"{folder}/{name}/{name}.json")
                if one is not None and self.outcome(one) is None:
                    self._keep(one, self._content / str(one.json))
        for path in self._refused.glob("*/*.json"):
            raise _not_understood(path, (path.parent / "why").read_text())

    def read(self, rollout: Rollout, output: Path) -> Outcome:
        """The outcome of a rollout in an evaluator's output folder.

        Raises:
            NoResultError: there is none.
            UserError: it is not understood.
        """
        path, key = output / self._evaluator.results / f"{rollout.name}.json", rollout.key
        try:
            outcome = Outcome.read(path, key.task, rollout.instance, key.rollout)
        except NoResultError:
            raise
        except ValueError as error:
            place = self._refused / str(_place(rollout)).replace("/", "~")
            place.mkdir(parents=True, exist_ok=True)
            (place / "why").write_text(str(error))
            raise _not_understood(path.replace(place / path.name), str(error)) from error
        if rollout.video is not None:
            check_video(output / _VIDEOS / f"{rollout.name}.mp4")
        return outcome

    def commit(self, rollout: Rollout, output: Path, times: Times, me: str, log: Callable[[], str]) -> bool:
        """Put a result that `read` has understood in place, with an excerpt of the evaluator's log.

        Returns:
            False if another worker's is there already.
        """
        outcome, place = self.read(rollout, output), self._content / _place(rollout)
        aside = place.with_name(f".{place.name}.{me}.partial")
        moves = [(output / self._evaluator.results, f"{rollout.name}.json")]
        moves += [(output / _VIDEOS, f"{rollout.name}.mp4")] if rollout.video is not None else []
        trace = output / "traces" / f"{rollout.name}.jsonl"  # the household's
        moves += [(trace.parent, trace.name)] if trace.exists() else []
        try:
            aside.mkdir()
            for folder, name in moves:
                sync(folder / name)
                (folder / name).rename(aside / name)
            records.write(aside / TIMES, times)
            write_atomic(excerpt_of(aside / f"{rollout.name}.json"), log())
            aside.rename(place)
            sync(place.parent)
        except OSError as error:
            shutil.rmtree(aside, ignore_errors=True)
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOENT):
                raise
            return False
        self._outcomes[str(rollout.json)] = outcome
        return True

    def lay_out(self, rollouts: Iterable[Rollout], output: Path) -> None:
        """Show an evaluator what is finished of the instances that it is to do, so that it need not do it
        again. One that does not look for it does it again, and its second result is nobody's.
        """
        for one in rollouts:
            for file, folder in ((one.json, self._evaluator.results), (one.video, _VIDEOS)):
                if file is not None:
                    (output / folder).mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(self._content / file, output / folder / Path(file).name)

    def times(self, rollout: Rollout) -> Times:
        """When a finished rollout was done, and by whom."""
        path = self._content / _place(rollout) / TIMES
        return records.read(path, Times, "run the evaluation again")

    def _keep(self, rollout: Rollout, path: Path) -> None:
        key = rollout.key
        try:
            self._outcomes[str(rollout.json)] = Outcome.read(path, key.task, rollout.instance, key.rollout)
        except ValueError as error:
            raise _not_understood(path, str(error)) from error


def _not_understood(path: Path, why: str) -> UserError:
    return UserError(
        f"{path} is not understood: {why}. It is kept, and nothing is scored without it. If the "
        "evaluator is of another version than the image's, use that one; to have the rollout done "
        "again, remove the file"
    )


def _place(rollout: Rollout) -> Path:
    return Path(str(rollout.json)).parent


def _prescribe(plan: Plan, job: Job, evaluator: Evaluator) -> tuple[Instance, ...]:
    """The instances of a job, with the places of their rollouts' files."""
    folder = f"rollouts/{job.policy.replace(':', '-')}/{job.split}"
    found = []
    ids = evaluator.instance_ids(job.task, job.split, job.instances)
    for index, instance in zip(job.instances, ids, strict=True):
        rollouts = []
        for number in range(plan.rollouts):
            name = f"{job.task}_{instance}_{number}"
            key = RolloutKey(job.policy, job.split, job.task, index, number)
            video = f"{folder}/{name}/{name}.mp4" if index in job.videos else None
            rollouts.append(Rollout(key, instance, 0, f"{folder}/{name}/{name}.json", video))
        found.append(Instance(job, index, tuple(rollouts)))
    return tuple(found)
