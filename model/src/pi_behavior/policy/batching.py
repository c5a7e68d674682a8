"""Requests of several sessions run as one batch through the network."""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Generic, TypeVar

Q = TypeVar("Q")
A = TypeVar("A")


@dataclass(frozen=True)
class _Waiting(Generic[Q, A]):
    request: Q
    answer: "asyncio.Future[A]"


class Batcher(Generic[Q, A]):
    """Collects requests for a few milliseconds and runs them as one batch in another thread.

    While a batch runs, the next one collects. A batch that fails is run again request by request, so that
    one bad request does not fail those of the other sessions.
    """

    def __init__(
        self,
        run: Callable[[Sequence[Q]], list[A]],
        executor: Executor,
        *,
        limit: int,
        window: float = 0.005,
        clients: Callable[[], int] = lambda: 2,
    ) -> None:
        """Make a batcher; `serve` must run for requests to be answered.

        Args:
            run: answers a batch; called in the executor.
            executor: with one thread: the device runs one batch at a time.
            limit: largest batch.
            window: seconds to wait for more requests after the first.
            clients: number of sessions now; with a single one there are no others to wait for.
        """
        self._run = run
        self._executor = executor
        self._limit = limit
        self._window = window
        self._clients = clients
        self._queue: asyncio.Queue[_Waiting[Q, A]] = asyncio.Queue()

    async def submit(self, request: Q) -> A:
        """Ask the network. Raises what the network raises for this request."""
        waiting: _Waiting[Q, A] = _Waiting(request, asyncio.get_running_loop().create_future())
        self._queue.put_nowait(waiting)
        return await waiting.answer

    async def serve(self) -> None:
        """Run batches until cancelled."""
        while True:
            batch = await self._collect()
            # without those whose client has gone
            batch = [waiting for waiting in batch if not waiting.answer.done()]
            if batch:
                await self._answer(batch)

    async def _collect(self) -> list[_Waiting[Q, A]]:
        batch = [await self._queue.get()]
        deadline = asyncio.get_running_loop().time() + self._window
        while len(batch) < self._limit:
            if not self._queue.empty():
                batch.append(self._queue.get_nowait())
                continue
            if len(batch) >= self._clients():
                break
            try:
                async with asyncio.timeout_at(deadline):
                    batch.append(await self._queue.get())
            except TimeoutError:
                break
        return batch

    async def _answer(self, batch: list[_Waiting[Q, A]]) -> None:
        loop = asyncio.get_running_loop()
        try:
            answers = await loop.run_in_executor(self._executor, self._run, [w.request for w in batch])
        except Exception as error:
            if len(batch) == 1:
                if not batch[0].answer.done():
                    batch[0].answer.set_exception(error)
                return
            for waiting in batch:
                await self._answer([waiting])
            return
        for waiting, answer in zip(batch, answers, strict=True):
            if not waiting.answer.done():
                waiting.answer.set_result(answer)
