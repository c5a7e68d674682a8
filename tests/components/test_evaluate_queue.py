"""Several workers of one evaluation: what they claim, what they leave, and what becomes of it."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from benchmarks import faults as benchmark
from benchmarks.faults import TASK, job
from components.evaluate.config import Limits
from components.evaluate.queue import Claims, Queue
from components.evaluate.supervisor import conclude
from components.evaluation.schedule import Lane, Rules, choose
from components.runtime.processes import ChildError

HOLDER = """
import sys, time
from pathlib import Path
from components.evaluate.queue import Claims, Queue
with Queue(Path(sys.argv[1]), 1, 60.0) as queue:
    assert queue.claim("a", Claims())
    print("claimed", flush=True)
    time.sleep(600)
"""


def test_a_claim_is_one_workers(tmp_path):
    with Queue(tmp_path, 0, 60.0) as one, Queue(tmp_path, 1, 60.0) as other:
        assert one.claim("a", one.claims())
        assert not other.claim("a", Claims())  # it had looked before
        assert not other.claim("a", other.claims())
        assert one.claim("a", one.claims())
        assert other.claims().holders == {"a": one.me}
        one.give_back("a")
        assert other.claim("a", other.claims())
        assert (one.holds("a"), other.holds("a")) == (False, True)
        assert one.working() == {one.me, other.me}
        other.stand_aside()
        assert one.claims().holders == {}
        assert one.working() == {one.me}
    assert os.listdir(tmp_path / "workers") == []


def test_claims_of_a_worker_that_was_killed_return_at_once(tmp_path):
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout.readline() == "claimed\n"
        with Queue(tmp_path, 0, 60.0) as queue, Queue(tmp_path, 2, 60.0) as third:
            assert not queue.claim("a", queue.claims())
            holder.kill()
            holder.wait()
            assert queue.claims().holders == {}
            both = (queue, third)
            views = [one.claims() for one in both]  # two see that it is free, and one gets it
            assert [one.claim("a", seen) for one, seen in zip(both, views, strict=True)] == [True, False]
            assert list(third.claims().holders.values()) == [queue.me]


def test_claims_of_a_worker_that_hangs_return_after_a_while(tmp_path):
    with Queue(tmp_path, 0, 0.5) as hangs, Queue(tmp_path, 1, 0.5) as queue:
        assert hangs.claim("a", Claims())
        begin = time.monotonic()
        while queue.claims().holders:
            queue.beat()
            assert time.monotonic() - begin < 10
            time.sleep(0.02)
        assert time.monotonic() - begin > 0.4
        assert queue.claim("a", queue.claims())
        hangs.beat(now=True)  # it wakes up, and finds that the instance is another's now
        assert hangs.claims().holders == {"a": queue.me}


RULES = Rules(startup=10.0)


def test_a_worker_takes_the_longest_job_that_nobody_does():
    lanes = [Lane("common", 10.0, [0, 1]), Lane("common", 50.0, [0, 1]), Lane("other", 50.0, [0, 1])]
    turn = choose(lanes, "me", None, 3, RULES)
    assert (turn.lane, turn.places, turn.together) == (1, (0, 1), False)
    assert choose(lanes, "me", "other", 3, RULES).lane == 2
    lanes[2].held[0], lanes[2].free = "you", [1]
    lanes[1].held[0], lanes[1].free = "they", [1]
    # before it begins another job it helps where the end would be late
    assert choose(lanes, "me", "common", 3, RULES).lane == 1
    lanes[0].seconds = 60.0
    assert choose(lanes, "me", "common", 3, RULES).lane == 0


def test_helpers_come_from_the_other_end_and_then_from_the_middle():
    lane = Lane("common", 100.0, [1, 2, 3, 4, 5, 6, 7], {0: "a"})
    assert choose([lane], "b", None, 2, RULES).places == (7, 6, 5, 4, 3, 2, 1)
    lane.held[7], lane.free = "b", [1, 2, 3, 4, 5, 6]
    assert choose([lane], "c", None, 3, RULES).places == (4, 3, 2, 1)
    # the one from below has gone: its end is free
    del lane.held[0]
    assert choose([lane], "c", None, 3, RULES).places == (1, 2, 3, 4, 5, 6)


def test_help_that_comes_too_late_is_none():
    assert choose([Lane("common", 100.0, [1], {0: "a"})], "b", None, 2, Rules(startup=40.0)).places == (1,)
    assert choose([Lane("common", 100.0, [1], {0: "a"})], "b", None, 2, Rules(startup=60.0)) is None


def test_what_failed_comes_last():
    lane = Lane("common", 100.0, [0, 1, 2], failures=Counter({0: 1}))
    assert choose([lane], "me", None, 1, RULES).places == (1, 2, 0)
    often = Lane("common", 900.0, [0], failures=Counter({0: 2}))
    assert choose([often, lane], "me", None, 1, RULES).lane == 1


def test_groups_get_smaller_towards_the_end_and_after_failures():
    rules = Rules(10.0, environments=4, in_order=False)
    many = [Lane("common", 100.0, list(range(10))) for _ in range(10)]
    assert choose(many, "me", None, 4, rules).places == (0, 1, 2, 3)
    assert choose([Lane("common", 100.0, [6, 7, 8])], "me", None, 3, rules).places == (6,)
    failed = Lane("common", 100.0, [0, 1, 2, 3], failures=Counter({0: 1, 1: 1, 2: 1, 3: 1}))
    assert choose([failed], "me", None, 1, rules).places == (0, 1)
    failed.failures[0] = failed.failures[1] = 2
    assert choose([failed], "me", None, 1, rules).places == (2, 3)
    failed.free = [0, 1]
    assert choose([failed], "me", None, 1, rules).places == (0,)


class Bench(benchmark.Bench):
    limits = Limits(start=20.0, stalled=5.0, server=5.0, lease=4.0)
    jobs = (job(range(6), videos=(1,)),)

    def start(self, worker: int) -> multiprocessing.Process:
        process = multiprocessing.get_context("spawn").Process(target=work, args=(self.folder, worker))
        process.start()
        return process

    def conclude(self):
        supervisor = self.supervisor(self.jobs)
        return conclude(supervisor.plan, supervisor.evaluator, self.output, print)[0]

    def done(self) -> Counter[str]:
        """How often each rollout was done, from the evaluators' logs."""
        lines = [line for log in self.output.glob("logs/*/*.log") for line in log.read_text().splitlines()]
        return Counter(line.split()[1] for line in lines if line.startswith("rollout "))

    def wait_for(self, results: int) -> None:
        deadline = time.monotonic() + 60
        while len(self.results()) < results:
            assert time.monotonic() < deadline
            time.sleep(0.05)


def work(folder: Path, worker: int) -> None:
    Bench(folder).supervisor(Bench.jobs, worker=worker).run()


@pytest.fixture
def bench(tmp_path):
    return Bench(tmp_path)


def test_two_workers_do_every_rollout_once(bench):
    bench.prepare({"seconds": 1.5})
    workers = [bench.start(worker) for worker in range(2)]
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    assert all(r.outcome is not None and r.attempts == 1 for r in bench.conclude())
    assert bench.done() == Counter(f"{TASK}_{instance}_0" for instance in range(301, 307))
    # each loaded the scene once: they came from both ends and stopped where they met
    first, second = sorted(start["indices"] for start in bench.starts())
    assert first == [0, 1, 2, 3, 4, 5]
    assert second == sorted(second, reverse=True)
    assert second[0] == 5


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_the_rollouts_of_a_worker_that_is_gone_return(bench, number):
    bench.prepare({"seconds": 1.0})
    lost, other = bench.start(0), bench.start(1)
    bench.wait_for(1)
    os.kill(lost.pid, number)
    other.join()
    assert other.exitcode == 0
    assert all(r.outcome is not None for r in bench.conclude())
    before = {path: path.stat().st_mtime_ns for path in bench.results()}
    if number == signal.SIGSTOP:  # it wakes up, sees that all is done, and changes nothing
        os.kill(lost.pid, signal.SIGCONT)
        lost.join()
        assert lost.exitcode == 0
        assert {path: path.stat().st_mtime_ns for path in bench.results()} == before
    lost.join()


def test_a_worker_that_cannot_work_leaves_it_to_the_others(bench, capsys):
    bench.prepare({"seconds": 1.0})
    good = bench.start(1)
    bench.wait_for(1)
    (bench.folder / "broken").touch()  # no more servers start here
    bench.supervisor(bench.jobs, worker=0).run()
    good.join()
    assert good.exitcode == 0
    assert all(r.attempts == 1 for r in bench.conclude())
    assert "stands aside, and leaves the rest to the others: the policy server" in capsys.readouterr().err
    (path,) = {path for path in bench.results() if path.name.endswith("303_0.json")}
    for file in path.parent.iterdir():
        file.unlink()
    path.parent.rmdir()
    with pytest.raises(ChildError, match="cannot load the checkpoint"):  # nobody is left
        bench.supervisor(bench.jobs, worker=0).run()
