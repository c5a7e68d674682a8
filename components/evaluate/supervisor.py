"""Run a worker's jobs: a policy server and evaluators beside it, both supervised.

Simulators crash, hang and leak memory (report, section 8.3: rerun episodes that crash). What counts is the
file of a finished rollout: an evaluator that ends or hangs is started again for the rollouts that have none.
The fault is put down to the first of them, as evaluators go through instances in order; after three faults a
rollout is given up, so that one bad instance cannot keep the others from being done.
"""

import contextlib
import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from components.evaluate.server import HOST, PolicyServer, ServerCommand, log_file
from components.evaluation.evaluators import Evaluator, Order
from components.evaluation.plan import Job, Plan
from components.evaluation.rollouts import Outcome, Rollout, RolloutKey
from components.runtime.errors import UserError
from components.runtime.processes import Child, ChildError, describe_exit
from components.runtime.progress import Progress, TaskProgress
from components.store.artifact import write_atomic

MAX_ATTEMPTS = 3
_POLL = 0.2
_CLOSING = 30.0
"""Seconds that an evaluator may take to end after its last file; some hang there."""


@dataclass(frozen=True)
class _Slot:
    """One prescribed rollout of a job."""

    key: RolloutKey
    instance: int
    folder: str
    """Where its evaluator writes, relative to the worker's folder."""
    results: str
    """The folder in it that gets the JSONs."""

    @property
    def stem(self) -> str:
        return f"{self.key.task}_{self.instance}_{self.key.rollout}"

    @property
    def json(self) -> str:
        return f"{self.folder}/{self.results}/{self.stem}.json"

    @property
    def video(self) -> str:
        return f"{self.folder}/videos/{self.stem}.mp4"


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
        self._slots = {job: self._prescribed(job) for job in self._jobs}
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
        slots = [slot for job in self._jobs for slot in self._slots[job]]
        with self._progress.task(f"rollouts of {self._name}", len(slots)) as shown:
            shown.update(completed=self._done(slots))
            for _, jobs in groupby(self._jobs, key=lambda job: job.policy):
                self._run_policy(list(jobs), slots, shown)
        rollouts = [self._rollout(slot) for slot in slots]
        if not any(rollout.outcome for rollout in rollouts):
            # the machine is at fault, not the policy: a score of 0 would be a lie, and a retry starts afresh
            self._faults_file.unlink(missing_ok=True)
            raise ChildError(
                f"{self._name}: none of {len(slots)} rollouts could be finished; see {self._folder / 'logs'}"
            )
        return rollouts

    def _prescribed(self, job: Job) -> list[_Slot]:
        folder = f"rollouts/{job.policy.replace(':', '-')}/{job.split}"
        return [
            _Slot(
                RolloutKey(job.policy, job.split, job.task, index, rollout),
                instance,
                folder,
                self._evaluator.results,
            )
            for index, instance in zip(
                job.instances, self._evaluator.instance_ids(job.task, job.split, job.instances), strict=True
            )
            for rollout in range(self._plan.rollouts)
        ]

    def _outcome(self, slot: _Slot) -> Outcome | None:
        """A finished rollout's outcome; None where it is missing or its file is not whole."""
        path = self._folder / slot.json
        if not path.exists():
            return None
        try:
            return Outcome.read(path, slot.key.task, slot.instance, slot.key.rollout)
        except ValueError:
            return None

    def _done(self, slots: Sequence[_Slot]) -> int:
        return sum(self._outcome(slot) is not None for slot in slots)

    def _missing(self, job: Job) -> list[_Slot]:
        """Rollouts still to do, in the evaluator's order, without those that were given up."""
        return [
            slot
            for slot in self._slots[job]
            if self._faults.get(str(slot.json), 0) < MAX_ATTEMPTS and self._outcome(slot) is None
        ]

    def _server(self, jobs: Sequence[Job]) -> PolicyServer:
        name = jobs[0].policy
        return PolicyServer(
            name,
            self._workspace / jobs[0].checkpoint,
            sorted({job.task_index for job in jobs}),
            self._server_command,
            log_file(self._folder, name),
        )

    def _run_policy(self, jobs: Sequence[Job], slots: Sequence[_Slot], shown: TaskProgress) -> None:
        server: PolicyServer | None = None
        with ExitStack() as stack:
            for job in jobs:
                while missing := self._missing(job):
                    if server is None:
                        server = stack.enter_context(self._server(jobs))
                    server.ensure()
                    shown.update(note=f"{job.policy}, {job.task}, {job.split}")
                    fault = self._run_evaluator(job, missing, server, slots, shown)
                    self._discard_broken(job)
                    left = self._missing(job)
                    if left:
                        self._record_fault(left[0], fault)

    def _run_evaluator(
        self,
        job: Job,
        missing: Sequence[_Slot],
        server: PolicyServer,
        slots: Sequence[_Slot],
        shown: TaskProgress,
    ) -> str:
        """Run one evaluator process to its end; returns how it ended."""
        output = self._folder / missing[0].folder
        kind = "-video" if job.video else ""
        log = self._folder / "logs" / f"{output.parent.name}-{job.split}-{job.task}{kind}.log"
        command = self._evaluator.command(
            Order(
                task=job.task,
                split=job.split,
                indices=tuple(dict.fromkeys(slot.key.index for slot in missing)),
                rollouts=self._plan.rollouts,
                video=job.video,
                host=HOST,
                port=server.port,
                output=output,
                image_size=self._plan.image_size,
                action_chunk_size=self._plan.action_chunk_size,
                oracle_stage=self._plan.settings.oracle_stage,
            )
        )
        with Child(f"the evaluator of {job.task}", command, log) as child:
            last_sign, changed = self._signs_of_life(output, log), time.monotonic()
            while child.poll() is None:
                time.sleep(_POLL)
                sign = self._signs_of_life(output, log)
                if sign != last_sign:
                    last_sign, changed = sign, time.monotonic()
                    shown.update(completed=self._done(slots))
                silent = time.monotonic() - changed
                if not server.alive():
                    return "the policy server ended"
                if silent > _CLOSING and not self._missing(job):
                    break
                if silent > self._evaluator.stall_seconds:
                    return f"no output for {self._evaluator.stall_seconds:.0f} s"
            code = child.poll()
            shown.update(completed=self._done(slots))
            if code == 2 and self._missing(job) == list(missing):
                raise UserError(f"the evaluator does not accept its command line{child.tail()}")
            return "its file is missing" if code == 0 else "" if code is None else describe_exit(code)

    def _signs_of_life(self, output: Path, log: Path) -> tuple[int, int, int]:
        """Changes whenever the log or any output file grows or appears."""
        sizes = [*_sizes(output / self._evaluator.results), *_sizes(output / "videos")]
        return log.stat().st_size, len(sizes), sum(sizes)

    def _discard_broken(self, job: Job) -> None:
        """Remove files that are not whole, so that no evaluator takes them for finished."""
        for slot in self._slots[job]:
            if self._outcome(slot) is None:
                (self._folder / slot.json).unlink(missing_ok=True)

    def _record_fault(self, slot: _Slot, fault: str) -> None:
        count = self._faults.get(slot.json, 0) + 1
        self._faults[slot.json] = count
        write_atomic(self._faults_file, json.dumps(self._faults, indent=1) + "\n")
        self.restarts += 1
        what = "giving it up, it counts as 0" if count == MAX_ATTEMPTS else "starting again"
        print(
            f"{self._name}: {slot.key.policy} {slot.stem}: {fault}"
            f" (attempt {count} of {MAX_ATTEMPTS}); {what}",
            file=sys.stderr,
            flush=True,
        )

    def _rollout(self, slot: _Slot) -> Rollout:
        outcome = self._outcome(slot)
        has_video = (self._folder / slot.video).is_file()
        return Rollout(
            slot.key,
            slot.instance,
            min(self._faults.get(slot.json, 0) + (outcome is not None), MAX_ATTEMPTS),
            slot.json if outcome else None,
            slot.video if outcome and has_video else None,
            outcome,
            self._folder,
        )


def _sizes(folder: Path) -> Iterator[int]:
    """Sizes of a folder's files, while the evaluator writes, renames and removes some of them."""
    with contextlib.suppress(FileNotFoundError):  # no folder yet
        for entry in os.scandir(folder):
            with contextlib.suppress(FileNotFoundError):  # renamed since it was listed
                if entry.is_file():
                    yield entry.stat().st_size
