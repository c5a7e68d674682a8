"""Break an evaluation in every way and compare: `python -m benchmarks.faults [--faults N] [--kinds K ...]`.

Real processes and signals under the real supervisor. Small programs with the command line, files and metrics
of evaluator and policy server stand in for them, so that hundreds of faults fit into minutes. Prints a row
per kind of fault; exits with 1 if results or videos differ from those of an undisturbed run in a single byte,
or if a fault was noted for another rollout than the one that it was planted in.
"""

import dataclasses
import json
import multiprocessing
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tyro

from benchmarks.failing_s3 import failing_s3, objects
from components.errors import PassingError, UserError
from components.evaluate.config import Limits
from components.evaluate.ledger import read_faults
from components.evaluate.supervisor import FAULTS, Supervisor, conclude
from components.evaluate.upload import Uploads, find_destination
from components.evaluation.evaluators import find_evaluator
from components.evaluation.plan import Job, Plan, Policy
from components.evaluation.rollouts import Rollout
from components.runtime.processes import ChildError
from components.runtime.progress import Progress
from household.video import write_rollout_video
from pi_behavior.policy.config import PolicyConfig

TASK = "turning_on_radio"
PROGRAMS = Path(__file__).parents[1] / "tests" / "components" / "standins"
OF_EVALUATOR = ("SIGSEGV", "SIGKILL", "SIGSTOP", "hang", "exit", "torn json", "torn mp4", "no mp4")
OF_SERVER = (
    "server-die",
    "server-error",
    "server-SIGKILL",
    "server-SIGSTOP",
    "server-stuck",
    "policy failed",
)
OF_S3 = ("S3 500", "S3 503", "S3 reset", "S3 torn")
"""Errors of the store that results are copied to."""
OTHERS = ("unknown json", "memory", "machine", "worker killed")
"""Results of an unknown form; memory that grows; faults that also hit a finished rollout; SIGKILL of all."""


@dataclass(frozen=True)
class Config:
    """Break an evaluation in every way; exit code 1 if a result differs from an undisturbed run's."""

    faults: int = 16
    """Faults of every kind."""
    kinds: tuple[str, ...] = (*OF_EVALUATOR, *OF_SERVER, *OF_S3, *OTHERS)
    """Kinds of faults."""
    processes: int = 2
    """Evaluations at a time."""


class Bench:
    """A worker with small programs in place of simulator and policy server, which fail on demand."""

    limits = Limits(start=30.0, stalled=4.0, server=4.0)

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.output = folder / "output"

    def prepare(self, faults: Mapping[str, Any], q: float = 0.5) -> None:
        """Lay out the programs; `faults` are those of an instance's starts, one after the other."""
        self.folder.mkdir(exist_ok=True)
        for program in PROGRAMS.glob("*.py"):
            shutil.copy(program, self.folder)
        (self.folder / "faults.json").write_text(json.dumps(faults))
        (self.folder / "outcome.json").write_text(outcome(666, 777, q))
        write_rollout_video(self.folder / "video.mp4", np.zeros((9, 32, 48, 3), np.uint8), 30)
        (self.folder / "artifacts" / "checkpoint").mkdir(parents=True)

    def limit_memory(self) -> None:
        """Let the evaluator hold 40 % more of its memory after every rollout."""
        (self.folder / "memory.max").write_text("100")
        (self.folder / "memory.stat").write_text("file 0\nshmem 0\n")

    def run(self, jobs: Sequence[Job], **changes: Any) -> list[Rollout]:
        """Do the rollouts with the real supervisor, and give them as they ended."""
        supervisor = self.supervisor(jobs, **changes)
        supervisor.run()
        return conclude(
            supervisor.plan, supervisor.evaluator, self.output, lambda text: print(text, file=sys.stderr)
        )[0]

    def supervisor(
        self,
        jobs: Sequence[Job],
        *,
        worker: int = 0,
        edition: Any = "2026",
        limits: Limits | None = None,
        files: Path = Path(),
        finished: Callable[[Rollout], None] = lambda rollout: None,
        **changes: Any,
    ) -> Supervisor:
        """The real supervisor of a worker."""
        name: Any = "household" if edition == "2026" else "omnigibson"
        program = (sys.executable, str(self.folder / "evaluator.py"))
        values: dict[str, Any] = {"rollouts": 1, "policy": PolicyConfig(), **changes}
        plan = Plan(
            edition=edition,
            evaluator=name,
            tasks=(TASK,),
            image_size=56,
            action_chunk_size=10,
            policies={"common": Policy("artifacts", "digest", "checkpoint")},
            jobs=tuple(jobs),
            **values,
        )
        return Supervisor(
            plan,
            worker,
            dataclasses.replace(find_evaluator(name, edition), program=program),
            lambda mapping, port: [sys.executable, str(self.folder / "server.py"), str(mapping), str(port)],
            folder=self.output,
            workspace=self.folder,
            progress=Progress(),
            files=files,
            limits=limits or self.limits,
            cgroup=self.folder,
            finished=finished,
        )

    def file(self, instance: int, rollout: int = 0) -> Path:
        """Where the result of a rollout lies."""
        name = f"{TASK}_{instance}_{rollout}"
        return self.output / f"content/rollouts/common/reported/{name}/{name}.json"

    def results(self) -> list[Path]:
        """All results that are in place."""
        return list(self.output.glob("content/rollouts/*/*/[!.]*/*_*.json"))

    def starts(self) -> list[dict[str, Any]]:
        """What the evaluator was asked for, start by start."""
        return [json.loads(line) for line in (self.folder / "starts").read_text().splitlines()]

    def own(self) -> dict[int, list[bool]]:
        """Whether the faults that workers noted are the rollouts' own, by instance."""
        found: dict[int, list[bool]] = {}
        for path in sorted((self.output / FAULTS).glob("*.json")):
            for file, those in read_faults(path).items():
                found.setdefault(int(file.split("_")[-2]), []).extend(fault.own for fault in those)
        return found


def job(instances: Sequence[int], *, videos: Sequence[int] = ()) -> Job:
    """A job."""
    return Job("common", TASK, "reported", tuple(instances), tuple(videos), 1.0)


def outcome(instance: int, rollout: int, q: float = 0.5) -> str:
    """A rollout's JSON as the 2026 evaluator writes it."""
    value = {
        "task": TASK,
        "instance_id": instance,
        "rollout_id": rollout,
        "steps": 10,
        "success": False,
        "agent_distance": {"base": 2.0, "left": 1.5, "right": 1.2},
        "normalized_agent_distance": {"base": float("inf"), "left": 1.2, "right": 1.1},
        "q_score": {"final": q},
        "time": {"simulator_steps": 10, "simulator_time": 0.3, "normalized_time": 1.6},
    }
    return json.dumps(value)


@dataclass(frozen=True)
class Row:
    """What came of one kind of faults."""

    kind: str
    planted: int
    noted: int
    """Of these, in the artifact, at the rollout that they were planted in."""
    charged: int
    """Of these, as the rollout's own."""
    starts: int
    """Processes of the evaluator."""
    seconds: float
    wrong: str
    """What is not as it should be; empty where all is."""


def plant(kind: str, count: int) -> dict[str, list[str]]:
    """Faults of every second instance; of every third of these, two."""
    planted: dict[str, list[str]] = {}
    left, instance = count, 302
    while left > 0:
        number = min(left, 2 if (instance - 302) % 6 == 0 else 1)
        planted[str(instance)] = [kind] * number
        left, instance = left - number, instance + 2
    return planted


def run(kind: str, count: int, folder: Path) -> Row:
    """Run an evaluation undisturbed and one with faults, and compare."""
    planted = plant(kind, 3 if kind == "machine" else count)
    if kind == "machine":  # three in a row, and then the finished one too
        planted = {"302": ["SIGSEGV"], "303": ["SIGSEGV"], "304": ["SIGSEGV"], "control": ["SIGSEGV"]}
    instances = range(2 * len(planted) + 1)
    (calm, broken), jobs = (
        (Bench(folder / name) for name in ("calm", "broken")),
        [job(instances, videos=instances)],
    )
    calm.prepare({}, q=0.666)  # the program puts the instance in place of 666: no two scores are equal
    expected = calm.run(jobs)
    here = {} if kind in ("memory", "worker killed", *OF_S3) else planted
    broken.prepare({**here, "seconds": 0.0 if here else 0.3}, q=0.666)
    started = time.monotonic()
    found, happened = _do(kind, broken, jobs, count)
    seconds = time.monotonic() - started
    own = broken.own()
    noted = {} if kind == "unknown json" else {int(i): len(f) for i, f in here.items() if i != "control"}
    wrong = [
        *(["scores"] if list(map(_score, found)) != list(map(_score, expected)) else []),
        *(["files"] if _files(broken) != _files(calm) else []),
        *([f"noted {own}"] if {i: len(those) for i, those in own.items()} != noted else []),
        *(["charged"] if kind not in OF_EVALUATOR and any(map(any, own.values())) else []),
        *(["lost"] if happened < (count if kind in OF_S3 else sum(map(len, here.values()))) else []),
    ]
    charged = sum(map(sum, own.values()))
    return Row(
        kind, happened, sum(map(len, own.values())), charged, len(broken.starts()), seconds, ", ".join(wrong)
    )


def _do(kind: str, bench: Bench, jobs: Sequence[Job], count: int) -> tuple[list[Rollout], int]:
    """The rollouts at the end, however often the worker ended; and how many faults happened."""
    ends = 0
    if kind in OF_S3:
        return _copy(kind.removeprefix("S3 "), bench, jobs, count)
    if kind == "memory":
        bench.limit_memory()
    if kind == "worker killed":
        ends = _kill_workers(bench, jobs, count)
    while True:
        try:
            rollouts = bench.run(jobs)
        except UserError:  # a result that is not understood: the user removes it
            assert kind == "unknown json"
            for path in bench.output.glob("refused/*/*.json"):
                path.unlink()
        except ChildError:
            assert kind == "machine"
        else:
            break
    if kind == "memory":
        ends = len(bench.starts()) - 1
    return rollouts, ends + len(list(bench.folder.glob("fault-*")))


def _copy(fault: str, bench: Bench, jobs: Sequence[Job], count: int) -> tuple[list[Rollout], int]:
    """The same with results that are copied to S3, where every second upload fails at first."""
    with failing_s3("results") as (app, client):
        app.faults = [fault, ""] * count
        place, sent = find_destination("s3://results"), bench.folder / "sent"
        with Uploads(place, "faults", sent) as uploads:
            rollouts = bench.run(jobs, finished=lambda one: uploads.add(one, bench.output / "content"))
        while True:
            with suppress(PassingError):  # the stage is started again
                Uploads(place, "faults", sent).complete(rollouts)
                break
        stored = {Path(name).name: content for name, content in objects(client).items()}
    arrived = stored == {Path(name).name: content for name, content in _files(bench).items()}
    return rollouts, len(app.happened) if arrived else 0


def _work(folder: Path, jobs: Sequence[Job]) -> None:
    _be_quiet()
    Bench(folder).supervisor(jobs).run()


def _kill_workers(bench: Bench, jobs: Sequence[Job], count: int) -> int:
    """Kill workers, each after one more result."""
    for kills in range(count):
        worker = multiprocessing.get_context("spawn").Process(target=_work, args=(bench.folder, jobs))
        worker.start()
        before = len(bench.results())
        while len(bench.results()) == before and worker.is_alive():
            time.sleep(0.02)
        if not worker.is_alive():
            return kills
        assert worker.pid is not None
        os.kill(worker.pid, signal.SIGKILL)
        worker.join()
    return count


def _score(rollout: Rollout) -> Rollout:
    """A rollout without what a rerun changes."""
    return dataclasses.replace(rollout, attempts=1, reruns=(), folder="")


def _files(bench: Bench) -> dict[str, bytes]:
    """The evaluator's results and videos."""
    folder = bench.output / "content" / "rollouts"
    files = [path for path in folder.glob("*/*/[!.]*/*_*.*") if path.suffix in (".json", ".mp4")]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def main() -> None:
    """Run the command."""
    config = tyro.cli(Config, description=__doc__)
    print(
        f"{'kind':16}{'faults':>8}{'noted':>8}{'charged':>9}{'starts':>8}{'seconds':>9}  result", flush=True
    )
    rows = []
    with tempfile.TemporaryDirectory(prefix="b1k-faults-") as temporary:
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(config.processes, mp_context=context, initializer=_be_quiet) as pool:
            folders = [Path(temporary, str(number)) for number in range(len(config.kinds))]
            for folder in folders:
                folder.mkdir()
            for row in pool.map(run, config.kinds, [config.faults] * len(folders), folders):
                rows.append(row)
                print(
                    f"{row.kind:16}{row.planted:8}{row.noted:8}{row.charged:9}{row.starts:8}{row.seconds:9.1f}"
                    f"  {f'WRONG: {row.wrong}' if row.wrong else 'equal'}",
                    flush=True,
                )
    print(
        f"{sum(row.planted for row in rows)} faults; {sum(bool(row.wrong) for row in rows)} kinds are wrong"
    )
    sys.exit(any(row.wrong for row in rows))


def _be_quiet() -> None:
    """What the supervisors say of each fault would hide the table."""
    sys.stderr = open(os.devnull, "w")  # noqa: SIM115


if __name__ == "__main__":
    main()
