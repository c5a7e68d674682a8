import asyncio
import threading
import weakref
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pi_behavior.policy import switching
from pi_behavior.policy.mapping import CheckpointEntry
from pi_behavior.policy.switching import (
    CheckpointPool,
    CheckpointUnavailableError,
    UnknownTaskError,
)


class Loader:
    """Loads predictors that know their name; some cannot be loaded, some take until they are let go."""

    def __init__(self, formula) -> None:
        self.formula = formula
        self.loads: list[str] = []
        self.broken: set[str] = set()
        self.held: dict[str, threading.Event] = {}
        self.alive: weakref.WeakValueDictionary[str, object] = weakref.WeakValueDictionary()

    def __call__(self, path: Path):
        self.loads.append(path.name)
        if path.name in self.held:
            assert self.held[path.name].wait(20)
        if path.name in self.broken:
            raise ValueError("half of a file")
        predictor = self.formula()
        predictor.digest = path.name * 64
        self.alive[path.name] = predictor
        return predictor


@pytest.fixture
def loader(formula) -> Loader:
    return Loader(formula)


def pool_of(loader: Loader, capacity: int, **tasks: set[int] | None) -> CheckpointPool:
    entries = [
        CheckpointEntry(name, Path(name), None if ids is None else frozenset(ids))
        for name, ids in tasks.items()
    ]
    return CheckpointPool(entries, loader, capacity=capacity)


async def name_for(pool: CheckpointPool, task: int) -> str:
    async with pool.use(task) as predictor:
        return predictor.digest[0]


def run(pool: CheckpointPool, work: Callable[[], Awaitable[object]]) -> None:
    async def main():
        async with asyncio.timeout(20):
            await work()

    asyncio.run(main())


def test_the_least_recently_used_checkpoint_leaves(loader):
    pool = pool_of(loader, 2, a={1, 4}, b={2}, c={3})

    async def work():
        await pool.warm()
        assert loader.loads == ["a", "b"]
        assert [await name_for(pool, task) for task in (1, 3, 4, 2)] == ["a", "c", "a", "b"]

    run(pool, work)
    assert loader.loads == ["a", "b", "c", "b"]
    assert pool.loaded == ("a", "b")
    assert pool.description["a"] == {"tasks": [1, 4], "digest": "a" * 64}


def test_a_checkpoint_is_out_of_memory_before_the_next_one_is_loaded(loader):
    pool = pool_of(loader, 1, a={1}, b={2})
    alive = []
    load = loader.__call__

    def watch(path):
        alive.append(set(loader.alive))
        return load(path)

    pool._load = watch

    async def work():
        for task in (1, 2, 1):
            await name_for(pool, task)

    run(pool, work)
    assert alive == [set(), set(), set()]


def test_loading_holds_nobody_up_but_those_who_need_it(loader):
    pool = pool_of(loader, 2, a={1}, b={2})
    loader.held["b"] = threading.Event()

    async def work():
        await name_for(pool, 1)
        waiting = [asyncio.create_task(name_for(pool, 2)) for _ in range(3)]
        for _ in range(50):
            assert await name_for(pool, 1) == "a"
        assert not any(task.done() for task in waiting)
        loader.held["b"].set()
        assert await asyncio.gather(*waiting) == ["b"] * 3

    run(pool, work)
    assert loader.loads == ["a", "b"], "one load for all three"


def test_a_checkpoint_stays_until_its_last_request_is_answered(loader):
    pool = pool_of(loader, 1, a={1}, b={2})

    async def work():
        async with pool.use(1) as predictor:
            other = asyncio.create_task(name_for(pool, 2))
            await asyncio.sleep(0.05)
            assert loader.loads == ["a"]
            # who comes now is served after the other, so that nobody waits forever
            late = asyncio.create_task(name_for(pool, 1))
            await asyncio.sleep(0.05)
            assert predictor.digest[0] == "a"
            del predictor
        assert await other == "b"
        assert await late == "a"

    run(pool, work)
    assert loader.loads == ["a", "b", "a"]


def test_a_broken_checkpoint_fails_only_those_who_need_it(loader, monkeypatch):
    pool = pool_of(loader, 2, a={1}, b={2})
    loader.broken = {"b"}

    async def work():
        await pool.warm()
        for _ in range(3):
            with pytest.raises(CheckpointUnavailableError, match=r"'b' at b cannot be.*half of a file"):
                await name_for(pool, 2)
            assert await name_for(pool, 1) == "a"
        assert loader.loads == ["a", "b"], "it is not tried again at once"
        monkeypatch.setattr(switching, "RETRY_SECONDS", 0.0)
        loader.broken = set()
        assert await name_for(pool, 2) == "b"

    run(pool, work)


def test_a_pool_in_which_nothing_can_be_loaded(loader):
    loader.broken = {"a", "b"}
    with pytest.raises(CheckpointUnavailableError, match=r"'a'.*\n.*'b'"):
        run(pool := pool_of(loader, 1, a={1}, b={2}), lambda: pool.warm())


def test_a_session_that_leaves_while_its_checkpoint_loads(loader):
    pool = pool_of(loader, 1, a={1})
    loader.held["a"] = threading.Event()

    async def work():
        gone = asyncio.create_task(name_for(pool, 1))
        await asyncio.sleep(0.05)
        gone.cancel()
        with pytest.raises(asyncio.CancelledError):
            await gone
        loader.held["a"].set()
        assert await name_for(pool, 1) == "a"

    run(pool, work)
    assert loader.loads == ["a"]


@given(st.data())
def test_any_order_of_requests_gets_the_right_network(data):
    tasks = data.draw(st.lists(st.integers(0, 5), max_size=40))
    loader = Loader(FormulaOfName)
    names = "abcdef"
    pool = pool_of(loader, data.draw(st.integers(1, 4)), **{name: {i} for i, name in enumerate(names)})

    async def work():
        assert await asyncio.gather(*(name_for(pool, task) for task in tasks)) == [names[t] for t in tasks]

    run(pool, work)
    assert len(pool.loaded) <= pool._capacity


class FormulaOfName:
    digest = ""

    def closure(self, task: int):
        return None


def test_closure_is_known_after_a_use_and_survives_eviction(loader):
    pool = pool_of(loader, 1, a={0}, b={2})
    assert pool.closure(0) is None

    async def work():
        await name_for(pool, 0)
        await name_for(pool, 2)

    run(pool, work)
    assert pool.loaded == ("b",)
    assert pool.closure(0).shape == (15, 2)
    assert pool.closure(2) is None


def test_unknown_task(loader):
    pool = pool_of(loader, 1, a={1, 2})
    with pytest.raises(UnknownTaskError, match=r"task 7.*\[1, 2\]"):
        run(pool, lambda: name_for(pool, 7))
    with pytest.raises(ValueError, match="capacity"):
        pool_of(loader, 0, a=None)
