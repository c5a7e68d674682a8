"""Run a worker's jobs: a policy server and evaluators beside it, both supervised.

Simulators crash, hang and leak memory (report, section 8.3: rerun episodes that crash). What counts is the
result of a finished rollout: an evaluator that failed is started again for the missing ones. Its failure
counts for the first of them, as evaluators go through instances in order, and that one comes last in the next
start. A rollout is given up after three faults of its own. Where the policy server or the machine may be at
fault, a finished rollout is done once more to see, and if that fails too, the worker ends without scores.
"""

import dataclasses
import shutil
import sys
import time
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

from components.errors import UserError
from components.evaluate.ledger import MOST, Ledger
from components.evaluate.results import Results
from components.evaluate.server import HOST, PolicyServer, ServerCommand, log_file
from components.evaluate.watch import Failure, Limits, Watch
from components.evaluation.evaluator import Evaluator, Order
from components.evaluation.plan import Job, Plan
from components.evaluation.rollouts import PolicyFailedError, Rollout
from components.runtime.attempts import memory_share
from components.runtime.processes import Child, ChildError, describe_exit, log_tail
from components.runtime.progress import Progress, TaskProgress

_CGROUP = Path("/sys/fs/cgroup")
_POLL = 0.2
_CONTROL = "control"
"""Folder for a finished rollout that is done once more."""


class Supervisor:
    """Does one worker's jobs in a folder that survives a kill; what is finished there is not repeated."""

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
        limits: Limits | None = None,
        cgroup: Path = _CGROUP,
    ) -> None:
        """Prepare; UserError if the plan has no such worker, or the instance ids cannot be read."""
        self._jobs = [job for job in plan.jobs if job.worker == worker]
        if not self._jobs:
            workers = sorted({job.worker for job in plan.jobs})
            raise UserError(f"the plan has no worker {worker}; expected one of {workers}")
        self._plan = plan
        self._evaluator = evaluator
        self._server_command = server
        self._folder = folder
        self._workspace = workspace
        self._progress = progress
        self._limits = limits or Limits.of(evaluator)
        self._cgroup = cgroup
        self._name = f"worker {worker}"
        self._results = Results(plan, self._jobs, evaluator, folder)
        self._ledger = Ledger(folder / "faults.json")

    def run(self) -> list[Rollout]:
        """Do all rollouts of the worker, and return every one, finished or given up.

        Raises:
            UserError: the evaluator does not accept its command line, or a result is not understood.
            ChildError: the policy server does not start, or rollouts fail for reasons that are not theirs.
        """
        rollouts = self._results.all()
        shutil.rmtree(self._folder / _CONTROL, ignore_errors=True)  # from a worker that was killed
        with self._progress.task(f"rollouts of {self._name}", len(rollouts)) as shown:
            self._show(shown)
            for _, jobs in groupby(self._jobs, key=lambda job: job.policy):
                of_policy = list(jobs)
                with self._server(of_policy) as server:
                    while (job := self._next(of_policy)) is not None:
                        shown.update(note=f"{job.policy}, {job.task}, {job.split}")
                        self._attempt(job, server, shown)
                        if self._ledger.in_doubt():
                            self._test(job, of_policy, server, shown)
        return [self._final(one) for one in rollouts]

    def _server(self, jobs: Sequence[Job]) -> PolicyServer:
        name = jobs[0].policy
        return PolicyServer(
            name,
            self._workspace / self._plan.policies[name].checkpoint,
            sorted({job.task for job in jobs}),
            self._server_command,
            log_file(self._folder, name),
        )

    def _missing(self, job: Job) -> list[Rollout]:
        """Rollouts to do, without those that were given up, in the evaluator's order: instances that failed
        come last.
        """
        missing = [
            one
            for one in self._results.prescribed[job]
            if self._results.outcome(one) is None and not self._ledger.given_up(str(one.json))
        ]
        failures: dict[int, int] = {}
        for one in missing:
            failures[one.key.index] = max(failures.get(one.key.index, 0), self._failures(one))
        return sorted(missing, key=lambda one: failures[one.key.index])

    def _failures(self, rollout: Rollout) -> int:
        return len(self._ledger.reasons(str(rollout.json)))

    def _next(self, jobs: Sequence[Job]) -> Job | None:
        """The job whose next rollout failed least; None where nothing is left to do."""
        first = {job: missing[0] for job in jobs if (missing := self._missing(job))}
        return min(first, key=lambda job: self._failures(first[job]), default=None)

    def _attempt(self, job: Job, server: PolicyServer, shown: TaskProgress) -> None:
        """Run an evaluator for what is missing of a job, and note what failed."""
        missing = self._missing(job)
        self._results.discard(missing)
        failure = self._run(job, missing, server, shown)
        left = [one for one in missing if self._results.outcome(one) is None]
        if failure is None or not left:
            return
        self._ledger.failed()
        for one in left:
            flaw = self._results.flaw(one)
            words = [failure.what] if one is left[0] else []
            words += [] if flaw is None else [str(flaw)]
            if words:
                own = not isinstance(flaw, PolicyFailedError) and not failure.of_server
                self._ledger.add(str(one.json), "; ".join(words), own=own)
                self._say(f"{one.key.policy} {one.name}: {'; '.join(words)}; it is started again")
        worn_out = self._ledger.worn_out()
        if worn_out is not None:
            reasons = "; ".join(self._ledger.reasons(worn_out)[-MOST:])
            raise ChildError(f"{self._name}: {worn_out} was started too often, of late: {reasons}")

    def _test(self, failed: Job, jobs: Sequence[Job], server: PolicyServer, shown: TaskProgress) -> None:
        """Do a finished rollout once more: if it succeeds, those that failed are to blame.

        Raises:
            ChildError: it fails, or there is none.
        """
        # first choice: the same task, which says most; then the shortest rollout
        finished = [
            (job.task != failed.task, outcome.steps, one.name, job, one)
            for job in jobs
            for one in self._results.prescribed[job]
            if (outcome := self._results.outcome(one)) is not None and one.key.rollout == 0
        ]
        found, tail = None, log_tail(self._log(failed))
        if finished:
            *_, job, one = min(finished, key=lambda entry: entry[:3])
            self._say(f"rollouts fail one after the other; {one.name}, which succeeded, is done once more")
            place = f"{_CONTROL}/{self._evaluator.results}/{one.name}.json"
            again = dataclasses.replace(one, json=place, video=None)
            self._run(job, [again], server, shown)
            found, tail = self._results.forget(again), log_tail(self._log(job))
            shutil.rmtree(self._folder / _CONTROL, ignore_errors=True)
        if found is None:
            why = "one that had succeeded fails too" if finished else "none has succeeded"
            raise ChildError(
                f"{self._name}: rollouts of {failed.policy} fail one after the other, and {why}. So the "
                "machine, the policy server or the evaluator is at fault: none of them counts as 0. A new "
                f"start continues from what is finished. The logs are in {self._folder / 'logs'}{tail}"
            )

    def _log(self, job: Job) -> Path:
        kind = "-video" if job.video else ""
        policy = job.policy.replace(":", "-")
        return self._folder / "logs" / f"{policy}-{job.split}-{job.task}{kind}.log"

    def _run(
        self, job: Job, wanted: Sequence[Rollout], server: PolicyServer, shown: TaskProgress
    ) -> Failure | None:
        """Run one process of the evaluator; None if it made all results, or was ended for its memory."""
        server.ensure()
        output = (self._folder / str(wanted[0].json)).parents[1]
        log = self._log(job)
        watch = Watch(server, log, self._limits)
        with Child(f"the evaluator of {job.task}", self._command(job, wanted, server, output), log) as child:
            count, last = 0, time.monotonic()
            while (code := child.poll()) is None:
                time.sleep(_POLL)
                if found := self._note_results(wanted, shown):
                    count, last = count + len(found), time.monotonic()
                    watch.progress()
                    share = memory_share(self._cgroup)
                    if share > self._limits.memory and count < len(wanted):
                        self._say(
                            f"the pod holds {share:.0%} of its memory limit; starting the evaluator again"
                        )
                        return None
                if count == len(wanted):
                    if time.monotonic() - last > self._limits.closing:
                        return None
                elif (failure := watch.look()) is not None:
                    child.stop(1.0)  # it may be stopped, and then hears no signal but the last
                    self._note_results(wanted, shown)
                    if failure.of_server:
                        server.stop()
                    return failure
            count += len(self._note_results(wanted, shown))
            if count == len(wanted):
                return None
            if code == 2 and count == 0:
                raise UserError(f"the evaluator does not accept its command line{child.tail()}")
        failure = watch.after_end(
            "the evaluator ended without a result" if code == 0 else describe_exit(code)
        )
        if failure.of_server:
            server.stop()
        return failure

    def _command(self, job: Job, wanted: Sequence[Rollout], server: PolicyServer, output: Path) -> list[str]:
        return self._evaluator.command(
            Order(
                task=job.task,
                split=job.split,
                indices=tuple(dict.fromkeys(rollout.key.index for rollout in wanted)),
                rollouts=max(rollout.key.rollout for rollout in wanted) + 1,
                video=wanted[0].video is not None,
                host=HOST,
                port=server.port,
                output=output,
                image_size=self._plan.image_size,
                action_chunk_size=self._plan.action_chunk_size,
                oracle_stage=self._plan.oracle_stage,
            )
        )

    def _note_results(self, wanted: Sequence[Rollout], shown: TaskProgress) -> set[str]:
        found = self._results.refresh(wanted)
        if found:
            self._ledger.finished(found)
            self._show(shown)
        return found

    def _show(self, shown: TaskProgress) -> None:
        shown.update(completed=sum(self._results.outcome(one) is not None for one in self._results.all()))

    def _say(self, text: str) -> None:
        print(f"{self._name}: {text}", file=sys.stderr, flush=True)

    def _final(self, rollout: Rollout) -> Rollout:
        """A rollout as it ended."""
        outcome, reasons = self._results.outcome(rollout), self._ledger.reasons(str(rollout.json))
        if outcome is None:
            self._say(
                f"{rollout.key.policy} {rollout.name} is given up and counts as 0: {'; '.join(reasons)}"
            )
            return dataclasses.replace(rollout, attempts=len(reasons), json=None, video=None, reruns=reasons)
        return dataclasses.replace(rollout, attempts=len(reasons) + 1, outcome=outcome, reruns=reasons)
