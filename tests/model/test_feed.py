"""Batches on their way to the devices: order, errors, and the time that the devices wait."""

import threading
import time
from collections.abc import Iterator

import jax.numpy as jnp
import pytest

from pi_behavior.training.feed import Feed


def test_batches_come_in_order_and_ahead() -> None:
    taken: list[int] = []

    def source() -> Iterator[int]:
        for n in range(100):
            taken.append(n)
            yield n

    with Feed(source(), lambda n: n * 10, ahead=2) as feed:
        assert [feed.next(None) for _ in range(3)] == [0, 10, 20]
        time.sleep(0.3)
        # two wait, and a third in the thread's hand
        assert len(taken) == 6


def test_waiting_is_counted_from_the_end_of_the_running_step() -> None:
    def slow() -> Iterator[int]:
        while True:
            time.sleep(0.2)
            yield 1

    running = jnp.ones(3)
    with Feed(slow(), lambda n: n) as feed:
        feed.next(running)
        feed.next(running)
        assert 0.2 < feed.waited < 1.0
        time.sleep(0.6)
        before = feed.waited
        feed.next(None)
        assert feed.waited == before


def test_errors_of_the_input_reach_the_training_and_the_thread_ends() -> None:
    closed: list[bool] = []

    class Broken:
        def __iter__(self) -> "Broken":
            return self

        def __next__(self) -> int:
            raise ValueError("episode 7 cannot be read")

        def close(self) -> None:
            closed.append(True)

    with pytest.raises(ValueError, match="episode 7"), Feed(Broken(), lambda n: n) as feed:
        feed.next(None)
    assert closed == [True]
    assert not any(thread.name == "feed" for thread in threading.enumerate())
