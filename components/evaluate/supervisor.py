"""Run a worker's jobs: a policy server and evaluators beside it, both supervised.

Simulators crash, hang and leak memory (report, section 8.3: rerun episodes that crash). What counts is the
file of a finished rollout: an evaluator that ends or hangs is started again for the rollouts that have none.
The fault is put down to the first of them, as evaluators go through instances in order; after three faults a
rollout is given up, so that one bad instance cannot keep the others from being done.
"""

import contextlib
import dataclasses
import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from itertools import groupby
from pathlib import Path

from components.errors import UserError
from components.evaluate.server import HOST, PolicyServer, ServerCommand, log_file
from components.evaluation.evaluator import Evaluator, Order
from components.evaluation.plan import Job, Plan
from components.evaluation.rollouts import Outcome, Rollout, RolloutKey
from components.runtime.processes import Child, ChildError, describe_exit
from components.runtime.progress import Progress, TaskProgress
from components.store.files import write_atomic

MAX_ATTEMPTS = 3
_POLL = 0.2
_CLOSING = 30.0
"""Seconds that an evaluator may take to end after its last file; some hang there."""


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
    ) -> None:
        """Prepare the worker.

        Args:
            plan: the evaluation.
            worker: number of the worker.
            evaluator: the program that runs rollouts.
            server: the policy server's command line.
            folder: the worker's output folder.
            workspace: the folder that checkpoint paths are relative to.
            progress: where to show what is done.

        Raises:
            UserError: the plan has no such worker, or the instance ids cannot be read.
        """
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
        self._prescribed = {job: self._prescribe(job) for job in self._jobs}
        self._name = f"worker {worker}"
        self._faults_file = folder / "faults.json"
        self._faults: dict[str, int] = (
            json.loads(self._faults_file.read_text()) if self._faults_file.exists() else {}
        )
        self.restarts = 0

    def run(self) -> list[Rollout]:
        """Do all rollouts of the worker.

        Returns:
            Every prescribed rollout, finished or given up.

        Raises:
            UserError: the evaluator does not take its command line.
            ChildError: the policy server does not start, or not a single rollout could be finished.
        """
        total = sum(map(len, self._prescribed.values()))
        with self._progress.task(f"rollouts of {self._name}", total) as shown:
            shown.update(completed=self._done())
            for _, jobs in groupby(self._jobs, key=lambda job: job.policy):
                self._run_policy(list(jobs), shown)
        rollouts = [self._result(one) for job in self._jobs for one in self._prescribed[job]]
        if not any(rollout.outcome for rollout in rollouts):
            # the machine is at fault, not the policy: a score of 0 would be a lie, and a retry starts afresh
            self._faults_file.unlink(missing_ok=True)
            raise ChildError(
                f"{self._name}: none of {total} rollouts could be finished; see {self._folder / 'logs'}"
            )
        return rollouts

    def _prescribe(self, job: Job) -> list[Rollout]:
        """The rollouts of a job, with the places of the files that its evaluator will write."""
        folder = f"rollouts/{job.policy.replace(':', '-')}/{job.split}"
        ids = self._evaluator.instance_ids(job.task, job.split, job.instances)
        found = []
        for index, instance in zip(job.instances, ids, strict=True):
            for number in range(self._plan.rollouts):
                key = RolloutKey(job.policy, job.split, job.task, index, number)
                one = Rollout(key, instance, 0, folder=str(self._folder))
                file = f"{folder}/{self._evaluator.results}/{one.name}.json"
                found.append(dataclasses.replace(one, json=file, video=f"{folder}/videos/{one.name}.mp4"))
        return found

    def _outcome(self, rollout: Rollout) -> Outcome | None:
        """A finished rollout's outcome; None where its file is missing or not whole."""
        path, key = self._folder / str(rollout.json), rollout.key
        if not path.exists():
            return None
        try:
            return Outcome.read(path, key.task, rollout.instance, key.rollout)
        except ValueError:
            return None

    def _done(self) -> int:
        return sum(
            self._outcome(one) is not None for rollouts in self._prescribed.values() for one in rollouts
        )

    def _missing(self, job: Job) -> list[Rollout]:
        """Rollouts still to do, in the evaluator's order, without those that were given up."""
        return [
            rollout
            for rollout in self._prescribed[job]
            if self._faults.get(str(rollout.json), 0) < MAX_ATTEMPTS and self._outcome(rollout) is None
        ]

    def _server(self, jobs: Sequence[Job]) -> PolicyServer:
        name = jobs[0].policy
        return PolicyServer(
            name,
            self._workspace / self._plan.policies[name].checkpoint,
            sorted({job.task for job in jobs}),
            self._server_command,
            log_file(self._folder, name),
        )

    def _run_policy(self, jobs: Sequence[Job], shown: TaskProgress) -> None:
        server: PolicyServer | None = None
        with ExitStack() as stack:
            for job in jobs:
                while missing := self._missing(job):
                    if server is None:
                        server = stack.enter_context(self._server(jobs))
                    server.ensure()
                    shown.update(note=f"{job.policy}, {job.task}, {job.split}")
                    fault = self._run_evaluator(job, missing, server, shown)
                    self._discard_broken(job)
                    left = self._missing(job)
                    if left:
                        self._record_fault(left[0], fault)

    def _run_evaluator(
        self, job: Job, missing: Sequence[Rollout], server: PolicyServer, shown: TaskProgress
    ) -> str:
        """Run one evaluator process to its end; returns how it ended."""
        output = (self._folder / str(missing[0].json)).parents[1]
        kind = "-video" if job.video else ""
        log = self._folder / "logs" / f"{output.parent.name}-{job.split}-{job.task}{kind}.log"
        command = self._evaluator.command(
            Order(
                task=job.task,
                split=job.split,
                indices=tuple(dict.fromkeys(rollout.key.index for rollout in missing)),
                rollouts=self._plan.rollouts,
                video=job.video,
                host=HOST,
                port=server.port,
                output=output,
                image_size=self._plan.image_size,
                action_chunk_size=self._plan.action_chunk_size,
                oracle_stage=self._plan.oracle_stage,
            )
        )
        with Child(f"the evaluator of {job.task}", command, log) as child:
            last_sign, changed = self._signs_of_life(output, log), time.monotonic()
            while child.poll() is None:
                time.sleep(_POLL)
                sign = self._signs_of_life(output, log)
                if sign != last_sign:
                    last_sign, changed = sign, time.monotonic()
                    shown.update(completed=self._done())
                silent = time.monotonic() - changed
                if not server.alive():
                    return "the policy server ended"
                if silent > _CLOSING and not self._missing(job):
                    break
                if silent > self._evaluator.stall_seconds:
                    return f"no output for {self._evaluator.stall_seconds:.0f} s"
            code = child.poll()
            shown.update(completed=self._done())
            if code == 2 and self._missing(job) == list(missing):
                raise UserError(f"the evaluator does not accept its command line{child.tail()}")
            return "its file is missing" if code == 0 else "" if code is None else describe_exit(code)

    def _signs_of_life(self, output: Path, log: Path) -> tuple[int, int, int]:
        """Changes whenever the log or any output file grows or appears."""
        sizes = [*_sizes(output / self._evaluator.results), *_sizes(output / "videos")]
        return log.stat().st_size, len(sizes), sum(sizes)

    def _discard_broken(self, job: Job) -> None:
        """Remove files that are not whole, so that no evaluator takes them for finished."""
        for rollout in self._prescribed[job]:
            if self._outcome(rollout) is None:
                (self._folder / str(rollout.json)).unlink(missing_ok=True)

    def _record_fault(self, rollout: Rollout, fault: str) -> None:
        file = str(rollout.json)
        count = self._faults[file] = self._faults.get(file, 0) + 1
        write_atomic(self._faults_file, json.dumps(self._faults, indent=1) + "\n")
        self.restarts += 1
        what = "giving it up, it counts as 0" if count == MAX_ATTEMPTS else "starting again"
        print(
            f"{self._name}: {rollout.key.policy} {rollout.name}: {fault}"
            f" (attempt {count} of {MAX_ATTEMPTS}); {what}",
            file=sys.stderr,
            flush=True,
        )

    def _result(self, rollout: Rollout) -> Rollout:
        """A rollout as it ended."""
        outcome = self._outcome(rollout)
        faults = self._faults.get(str(rollout.json), 0)
        if outcome is None:
            return dataclasses.replace(rollout, attempts=faults, json=None, video=None)
        video = rollout.video if (self._folder / str(rollout.video)).is_file() else None
        attempts = min(faults + 1, MAX_ATTEMPTS)
        return dataclasses.replace(rollout, attempts=attempts, video=video, outcome=outcome)


def _sizes(folder: Path) -> Iterator[int]:
    """Sizes of a folder's files, while the evaluator writes, renames and removes some of them."""
    with contextlib.suppress(FileNotFoundError):  # no folder yet
        for entry in os.scandir(folder):
            with contextlib.suppress(FileNotFoundError):  # renamed since it was listed
                if entry.is_file():
                    yield entry.stat().st_size
