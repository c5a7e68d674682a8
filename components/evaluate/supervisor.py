"""One worker of an evaluation: takes what is next, with a policy server and an evaluator, both supervised.

Simulators crash, hang and leak memory (report, section 8.3: rerun episodes that crash). What counts is the
result of a finished rollout: an evaluator that failed is started again for the missing ones. Its failure
counts for the first of them, as evaluators go through instances in order; of several that were simulated
together for none of them, and they are done again in smaller groups, in the end alone. A rollout is given up
after three faults of its own. Where the policy server or the machine may be at fault, a finished rollout is
done once more to see, and if that fails too, the worker stands aside: the others do what is left.
"""

import dataclasses
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from components.evaluate.attempt import Attempt, missing
from components.evaluate.config import Limits
from components.evaluate.ledger import Ledger
from components.evaluate.process import Look
from components.evaluate.queue import Queue
from components.evaluate.results import Instance, Results
from components.evaluate.runner import Runner
from components.evaluate.server import ServerCommand
from components.evaluation.evaluator import Evaluator
from components.evaluation.plan import Job, Plan
from components.evaluation.rollouts import NoResultError, Rollout, RolloutKey
from components.evaluation.schedule import Lane, choose
from components.runtime.processes import ChildError, log_tail
from components.runtime.progress import Progress, TaskProgress
from components.store.making import CONTENT

FAULTS, LOGS, REFUSED = "faults", "logs", "refused"
"""In the workers' folder: what failed, the logs, and results that are not understood."""
_CGROUP = Path("/sys/fs/cgroup")
_IDLE = 1.0


class Supervisor:
    """Works on an evaluation in a folder that it shares with others, and that survives a kill of any."""

    def __init__(
        self,
        plan: Plan,
        worker: int,
        evaluator: Evaluator,
        server: ServerCommand,
        *,
        folder: Path,
        workspace: Path,
        progress: Progress,
        files: Path = Path(),
        limits: Limits | None = None,
        cgroup: Path = _CGROUP,
        finished: Callable[[Rollout], None] = lambda rollout: None,
        suffice: Callable[[list[Rollout]], bool] | None = None,
    ) -> None:
        """Prepare; UserError if the instance ids cannot be read.

        `files` is the plan's artifact, for its own wrapper and robot configuration. `finished` is called with
        every rollout that this worker has finished and put in place. `suffice` says whether those that ended
        are enough, so that no more are begun.
        """
        self.plan = plan
        self.evaluator = evaluator
        self._worker = worker
        self._progress = progress
        self._finished = finished
        self._suffice = suffice
        limits = (limits or Limits()).of(evaluator, plan.environments)
        self._results = Results(plan, evaluator, folder / CONTENT, folder / REFUSED)
        plan.save(folder)  # for those who watch
        self._queue = Queue(folder, worker, limits.lease)
        self._ledger = Ledger(folder / FAULTS, self._queue.me)
        self._scratch = folder / "scratch" / self._queue.me
        self._runner = Runner(
            plan,
            evaluator,
            server,
            name=f"worker {worker}",
            workspace=workspace,
            files=files,
            logs=folder / LOGS / self._queue.me,
            limits=limits,
            cgroup=cgroup,
            beat=self._queue.beat,
        )

    def run(self) -> None:
        """Work until every rollout of the evaluation is finished or given up, by whomever.

        Raises:
            UserError: the evaluator does not accept its command line, or a result is not understood.
            ChildError: the policy server does not start, or rollouts fail for reasons that are not theirs,
                and no other worker is left.
        """
        total, label = sum(1 for _ in self._results.all()), f"rollouts, as {self._runner.name} sees them"
        with self._queue, self._runner, self._progress.task(label, total) as shown:
            try:
                self._work(shown)
            except ChildError as error:
                self._runner.stop()
                self._queue.stand_aside()
                if self._queue.working():
                    self._runner.say(f"stands aside, and leaves the rest to the others: {error}")
                while not self._is_done(shown):
                    if not self._queue.working():
                        raise
                    time.sleep(_IDLE)
            finally:
                shutil.rmtree(self._scratch, ignore_errors=True)

    def _work(self, shown: TaskProgress) -> None:
        while not self._is_done(shown):
            turn = self._turn()
            if turn is None:
                shown.update(note="waiting for other workers")
                time.sleep(_IDLE)
                continue
            instances, together = turn
            job = instances[0].job
            shown.update(note=f"{job.policy}, {job.task}, {job.split}")
            try:
                self._attempt(instances, shown, together=together)
            finally:
                self._queue.give_back()
            if self._ledger.in_doubt():
                self._test(job)

    def _is_done(self, shown: TaskProgress) -> bool:
        self._queue.beat()
        if self._results.is_published():
            return True
        self._results.refresh()
        self._ledger.refresh()
        self._show(shown)
        every = self._results.instances.values()
        is_left = any(missing(self._results, self._ledger, one) for instances in every for one in instances)
        if not is_left or self._suffice is None:
            return not is_left
        return self._suffice(_ended(self._results, self._ledger))

    def _turn(self) -> tuple[list[Instance], bool] | None:
        """Claim what comes next: instances, and whether all of them are claimed; None where nothing does."""
        claims = self._queue.claims()
        jobs = self._open()
        lanes = [self._lane(job, instances, claims.holders) for job, instances in jobs]
        workers = max(1, len(self._queue.working()))
        turn = choose(lanes, self._queue.me, self._runner.policy, workers, self.plan.rules)
        if turn is None:
            return None
        chosen = [jobs[turn.lane][1][place] for place in turn.places]
        if turn.together:
            chosen = [one for one in chosen if self._queue.claim(one.name, claims)]
        elif not self._queue.claim(chosen[0].name, claims):
            chosen = []
        return (chosen, turn.together) if chosen else None

    def _open(self) -> list[tuple[Job, tuple[Instance, ...]]]:
        """The jobs that workers may do now."""
        jobs = list(self._results.instances.items())
        while jobs and not any(missing(self._results, self._ledger, one) for one in jobs[0][1]):
            del jobs[0]
        return jobs[: self.plan.window or len(jobs)]

    def _lane(self, job: Job, instances: Sequence[Instance], holders: Mapping[str, str]) -> Lane:
        """What is left of a job."""
        lane = Lane(job.policy, job.seconds, [])
        for place, one in enumerate(instances):
            left = missing(self._results, self._ledger, one)
            if left:
                lane.failures[place] = max(len(self._ledger.reasons(str(r.json))) for r in left)
                if one.name in holders:
                    lane.held[place] = holders[one.name]
                else:
                    lane.free.append(place)
        return lane

    def _attempt(self, instances: Sequence[Instance], shown: TaskProgress, *, together: bool) -> None:
        def finished(rollout: Rollout) -> None:
            self._show(shown)
            self._finished(rollout)

        Attempt(
            instances,
            together=together,
            worker=self._worker,
            runner=self._runner,
            queue=self._queue,
            results=self._results,
            ledger=self._ledger,
            finished=finished,
            output=self._scratch / "output",
        ).run()

    def _test(self, failed: Job) -> None:
        """Do a finished rollout once more: if it succeeds, those that failed are to blame.

        Raises:
            ChildError: it fails, or there is none.
        """
        # first choice: the same task, which says most; then the shortest rollout
        finished = [
            (job.task != failed.task, outcome.steps, one.name, one)
            for job, instances in self._results.instances.items()
            for one in (rollout for instance in instances for rollout in instance.rollouts)
            if job.policy == failed.policy and one.key.rollout == 0
            if (outcome := self._results.outcome(one)) is not None
        ]
        last = RolloutKey(failed.policy, failed.split, failed.task, 0, 0)
        is_good = False
        if finished:
            *_, one = min(finished, key=lambda entry: entry[:3])
            self._runner.say(
                f"rollouts fail one after the other; {one.name}, which succeeded, is done once more"
            )
            again, output, last = dataclasses.replace(one, video=None), self._scratch / "control", one.key
            shutil.rmtree(output, ignore_errors=True)
            is_good = self._runner.run([again], output, lambda _: self._again(again, output)) is None
            if is_good:
                self._ledger.finished({str(again.json)})
        if not is_good:
            why = "one that had succeeded fails too" if finished else "none has succeeded"
            raise ChildError(
                f"{self._runner.name}: rollouts of {failed.policy} fail one after the other, and {why}. So "
                "the machine, the policy server or the evaluator is at fault: none of them counts as 0. A "
                f"new start continues from what is finished. The logs are in {self._runner.logs}"
                f"{log_tail(self._runner.log(last))}"
            )

    def _again(self, rollout: Rollout, output: Path) -> Look:
        self._queue.beat()
        try:
            self._results.read(rollout, output)
        except NoResultError:
            return Look(0, 1)
        return Look(1, 0)

    def _show(self, shown: TaskProgress) -> None:
        shown.update(completed=sum(self._results.outcome(one) is not None for one in self._results.all()))


def _ended(results: Results, ledger: Ledger) -> list[Rollout]:
    """The rollouts that are finished or given up."""
    return [
        dataclasses.replace(one, outcome=results.outcome(one))
        for one in results.all()
        if results.outcome(one) is not None or ledger.given_up(str(one.json))
    ]


def conclude(
    plan: Plan, evaluator: Evaluator, folder: Path, say: Callable[[str], None]
) -> tuple[list[Rollout], Results]:
    """The rollouts of an evaluation that ended, from the folder that its workers shared.

    Raises:
        UserError: a result is not understood.
    """
    results = Results(plan, evaluator, folder / CONTENT, folder / REFUSED)
    ledger = Ledger(folder / FAULTS, "")
    results.refresh()
    found = []
    for one in (dataclasses.replace(each, folder=str(folder / CONTENT)) for each in _ended(results, ledger)):
        reasons = ledger.reasons(str(one.json))
        one = dataclasses.replace(one, attempts=len(reasons) + 1, reruns=reasons)
        if one.outcome is None:
            say(f"{one.key.policy} {one.name} is given up and counts as 0: {'; '.join(reasons)}")
            one = dataclasses.replace(one, attempts=len(reasons), json=None, video=None)
        found.append(one)
    return found, results
