"""The results that a worker has to make, and which of them are there."""

import dataclasses
from collections.abc import Iterable, Sequence
from pathlib import Path

from components.errors import UserError
from components.evaluation.evaluator import Evaluator
from components.evaluation.plan import Job, Plan
from components.evaluation.rollouts import NoResultError, Outcome, Rollout, RolloutKey, check_video


class Results:
    """A worker's rollouts by job, with the places of their files in its folder."""

    def __init__(self, plan: Plan, jobs: Sequence[Job], evaluator: Evaluator, folder: Path) -> None:
        """Prepare; UserError if the instance ids cannot be read."""
        self._folder = folder
        self._outcomes: dict[str, Outcome] = {}
        self.prescribed = {job: _prescribe(plan, job, evaluator, folder) for job in jobs}
        self.refresh(self.all())

    def all(self) -> list[Rollout]:
        """All rollouts of the worker."""
        return [one for rollouts in self.prescribed.values() for one in rollouts]

    def outcome(self, rollout: Rollout) -> Outcome | None:
        """The outcome of a rollout, once `refresh` has found it."""
        return self._outcomes.get(str(rollout.json))

    def refresh(self, rollouts: Iterable[Rollout]) -> set[str]:
        """Look for new results, and give their files.

        Raises:
            UserError: a result is not understood.
        """
        found = set()
        for one in rollouts:
            if self.outcome(one) is None:
                try:
                    self._outcomes[str(one.json)] = self._read(one)
                except NoResultError:
                    continue
                found.add(str(one.json))
        return found

    def flaw(self, rollout: Rollout) -> NoResultError | None:
        """Why a rollout's JSON is no result; None where there is no JSON, or it is a result."""
        if not (self._folder / str(rollout.json)).exists():
            return None
        try:
            self._read(rollout)
        except NoResultError as error:
            return error
        return None

    def discard(self, rollouts: Iterable[Rollout]) -> None:
        """Remove files that are no results, so that no evaluator takes them for finished."""
        for one in rollouts:
            for name in (one.json, one.video):
                if self.outcome(one) is None and name is not None:
                    (self._folder / name).unlink(missing_ok=True)

    def forget(self, rollout: Rollout) -> Outcome | None:
        """Forget a result, and give it if there was one."""
        return self._outcomes.pop(str(rollout.json), None)

    def _read(self, rollout: Rollout) -> Outcome:
        path, key = self._folder / str(rollout.json), rollout.key
        try:
            outcome = Outcome.read(path, key.task, rollout.instance, key.rollout)
        except NoResultError:
            raise
        except ValueError as error:
            raise UserError(
                f"{path} is not understood: {error}. It is kept, and nothing is scored without it. If the "
                "evaluator is of another version than the image's, use that one; to have the rollout done "
                "again, remove the file"
            ) from error
        if rollout.video is not None:
            check_video(self._folder / rollout.video)
        return outcome


def _prescribe(plan: Plan, job: Job, evaluator: Evaluator, folder: Path) -> list[Rollout]:
    """The rollouts of a job, with the places of the files that its evaluator will write."""
    place = f"rollouts/{job.policy.replace(':', '-')}/{job.split}"
    ids = evaluator.instance_ids(job.task, job.split, job.instances)
    found = []
    for index, instance in zip(job.instances, ids, strict=True):
        for number in range(plan.rollouts):
            key = RolloutKey(job.policy, job.split, job.task, index, number)
            one = Rollout(key, instance, 0, folder=str(folder))
            video = f"{place}/videos/{one.name}.mp4" if job.video else None
            file = f"{place}/{evaluator.results}/{one.name}.json"
            found.append(dataclasses.replace(one, json=file, video=video))
    return found
