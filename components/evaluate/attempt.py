"""One process of the evaluator for what a worker has claimed: puts results in place, notes what failed."""

import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from components.evaluate.ledger import MOST, Ledger
from components.evaluate.process import Look
from components.evaluate.queue import Queue
from components.evaluate.results import Instance, Results
from components.evaluate.runner import Runner
from components.evaluate.watch import Failure, Watch
from components.evaluation.durations import Times
from components.evaluation.rollouts import NoResultError, PolicyFailedError, Rollout
from components.runtime.processes import ChildError, last_lines

_EXCERPT = 12
"""Lines of the evaluator's log that are kept with a rollout."""
_LOOK_AROUND = 5.0
"""Seconds between two looks at what other workers have finished, while an evaluator runs."""


def missing(results: Results, ledger: Ledger, instance: Instance) -> list[Rollout]:
    """Rollouts of an instance to do, without those that were given up."""
    return [
        one
        for one in instance.rollouts
        if results.outcome(one) is None and not ledger.given_up(str(one.json))
    ]


class Attempt:
    """Does instances with one process; what it does not finish, others may."""

    def __init__(
        self,
        instances: Sequence[Instance],
        *,
        together: bool,
        worker: int,
        runner: Runner,
        queue: Queue,
        results: Results,
        ledger: Ledger,
        finished: Callable[[Rollout], None],
        output: Path,
    ) -> None:
        """Prepare.

        Args:
            instances: of one job.
            together: whether all of them are claimed; else the first, and each of the others when its turn
                comes.
            worker: number of the worker.
            runner: its processes.
            queue: the claims.
            results: the results.
            ledger: the faults.
            finished: called with every rollout that is put in place.
            output: a folder for the evaluator.
        """
        self._instances = instances
        self._together = together
        self._worker = worker
        self._runner = runner
        self._queue = queue
        self._results = results
        self._ledger = ledger
        self._finished = finished
        self._output = output
        self._wanted = [rollout for one in instances for rollout in self._missing(one)]
        self._begun = time.time()
        self._ours: set[Rollout] = set()
        """What this process has finished."""
        self._is_first = True
        """Whether no result has come yet, so that the start of the process is a part of its time."""
        self._looked = time.monotonic()
        self._log = runner.log(instances[0].rollouts[0].key)
        self._logged = 0
        """Its size when the last result came."""

    def run(self) -> None:
        """Run the evaluator.

        Raises:
            UserError: it does not accept its command line, or a result is not understood.
            ChildError: the policy server does not start, or a rollout was started too often.
        """
        if not self._wanted:
            return
        shutil.rmtree(self._output, ignore_errors=True)
        every = [rollout for one in self._instances for rollout in one.rollouts]
        self._results.lay_out((one for one in every if self._results.outcome(one)), self._output)
        self._begun = time.time()
        self._logged = self._log_size()
        failure = self._runner.run(self._wanted, self._output, self._look)
        left = [one for one in self._wanted if self._results.outcome(one) is None]
        if failure is not None and left:
            self._note(failure, left)
        shutil.rmtree(self._output, ignore_errors=True)

    def _missing(self, instance: Instance) -> list[Rollout]:
        return missing(self._results, self._ledger, instance)

    def _note(self, failure: Failure, left: Sequence[Rollout]) -> None:
        """Note a failure for the rollouts that it may be of."""
        environments = self._runner.plan.environments
        is_group = environments > 0 and len(self._instances) > 1
        among = f", with {len(self._instances)} environments together" if is_group else ""
        self._ledger.failed()
        for one in left:
            flaw = self._flaw(one)
            words = [failure.what + among] if is_group or one is left[0] else []
            words += [] if flaw is None else [str(flaw)]
            if words:
                own = not isinstance(flaw, PolicyFailedError) and not failure.of_server
                # of several together it is not known which one failed
                self._ledger.add(str(one.json), "; ".join(words), own=own and not is_group)
                self._runner.say(f"{one.key.policy} {one.name}: {'; '.join(words)}; it is started again")
        worn_out = self._ledger.worn_out()
        if worn_out is not None:
            reasons = "; ".join(self._ledger.reasons(worn_out)[-MOST:])
            raise ChildError(f"{self._runner.name}: {worn_out} was started too often, of late: {reasons}")

    def _flaw(self, rollout: Rollout) -> NoResultError | None:
        """Why a rollout's JSON is no result; None where there is no JSON."""
        if not (self._output / self._runner.evaluator.results / f"{rollout.name}.json").exists():
            return None
        try:
            self._results.read(rollout, self._output)
        except NoResultError as error:
            return error
        return None

    def _look(self, watch: Watch) -> Look:
        """Put new results in place, and claim the instance that the evaluator goes on with."""
        self._queue.beat()
        if self._results.is_published():
            return Look(0, 0, goes_on=False)
        if time.monotonic() - self._looked > _LOOK_AROUND:
            self._results.refresh()
            self._looked = time.monotonic()
        found = self._commit(self._times(watch))
        if found:
            self._logged = self._log_size()
            self._ledger.finished(found)
            if not self._runner.plan.environments:
                self._begun, self._is_first = time.time(), False
        left = sum(self._results.outcome(one) is None for one in self._wanted)
        goes_on = self._together or len(self._ours) == len(self._wanted) or self._claim_next()
        return Look(len(found), left, goes_on)

    def _times(self, watch: Watch) -> Times:
        now = time.time()
        startup = 0.0
        if self._is_first:
            startup = min(watch.first_step or now, now - self._begun)
        count = len(self._instances) if self._runner.plan.environments else 1
        return Times(self._worker, self._begun, now, startup, count, self._runner.processes, self._queue.me)

    def _commit(self, times: Times) -> set[str]:
        found = set()
        for one in self._wanted:
            if self._results.outcome(one) is not None:
                continue
            try:
                if self._results.commit(one, self._output, times, self._queue.me, self._excerpt):
                    found.add(str(one.json))
                    self._ours.add(one)
                    self._finished(one)
                else:
                    self._results.refresh()  # another worker's was there first
            except NoResultError:
                continue
        return found

    def _excerpt(self) -> str:
        """The end of what the evaluator has logged since its last result."""
        return "\n".join(last_lines(self._log, _EXCERPT, self._logged))

    def _log_size(self) -> int:
        return self._log.stat().st_size if self._log.exists() else 0

    def _claim_next(self) -> bool:
        """Hold the instance that the evaluator does now, and no other; False if it is somebody else's, or
        another worker has finished it, which the evaluator does not know.
        """
        now = next(one for one in self._instances if not self._is_ours(one))
        if self._queue.holds(now.name):
            return True
        for one in self._instances:
            self._queue.give_back(one.name)
        self._results.refresh()
        return bool(self._missing(now)) and self._queue.claim(now.name, self._queue.claims())

    def _is_ours(self, instance: Instance) -> bool:
        """Whether this process has finished an instance."""
        return not any(one in self._wanted and one not in self._ours for one in instance.rollouts)
