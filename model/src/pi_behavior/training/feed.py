"""Brings batches to the devices ahead of the steps, and measures how long the devices wait for them."""

import queue
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from threading import Event, Thread
from types import TracebackType
from typing import Any, Generic, TypeVar

import jax

B = TypeVar("B")
T = TypeVar("T")
_POLL = 0.1


class Feed(Generic[B, T]):
    """Takes batches from the input and transfers them in a thread of its own. A context manager.

    Args:
        source: the input; closed at the end if it can be.
        put: transfers a batch to the devices.
        ahead: batches that wait on the devices.
    """

    def __init__(self, source: Iterator[B], put: Callable[[B], T], ahead: int = 2) -> None:
        self._source, self._put = source, put
        self._ready: queue.Queue[T | BaseException] = queue.Queue(ahead)
        self._ended = Event()
        self._thread = Thread(target=self._fill, name="feed", daemon=True)
        self._thread.start()
        self.waited = 0.0
        """Seconds that the devices had nothing to do, because there was no batch."""

    def next(self, running: Any) -> T:
        """The next batch.

        Args:
            running: arrays of the step that runs now; the wait is counted from its end.
        """
        try:
            item = self._ready.get_nowait()
        except queue.Empty:
            jax.block_until_ready(running)
            start = time.perf_counter()
            item = self._ready.get()
            self.waited += time.perf_counter() - start
        if isinstance(item, BaseException):
            raise item
        return item

    def __enter__(self) -> "Feed[B, T]":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join(timeout=1.0)
        close = getattr(self._source, "close", None)
        if close is not None:
            with suppress(ValueError):  # a generator that still works on a batch
                close()
        self._thread.join(timeout=5.0)

    def _fill(self) -> None:
        item: T | BaseException
        while not self._ended.is_set():
            try:
                item = self._put(next(self._source))
            except BaseException as error:
                item = error
            while not self._ended.is_set():
                try:
                    self._ready.put(item, timeout=_POLL)
                    break
                except queue.Full:
                    continue
            if isinstance(item, BaseException):
                return
