import asyncio
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from pi_behavior.policy.batching import Batcher
from pi_behavior.policy.interface import NoiseId, Prediction, Request


def request(call: int) -> Request:
    return Request({}, np.zeros(23), task=1, stage=0, saved=None, noise=NoiseId(0, 0, call))


def answer(requests):
    if any(r.noise.call == 13 for r in requests):
        raise ArithmeticError("13")
    return [Prediction(np.full((30, 23), float(r.noise.call)), np.zeros(15)) for r in requests]


def recording(sizes: list[int]):
    def run(requests):
        sizes.append(len(requests))
        return answer(requests)

    return run


def submit(calls, **options):
    """Submit all at once; the answers, and the sizes of the batches."""
    sizes: list[int] = []

    async def run():
        with ThreadPoolExecutor(1) as executor:
            batcher = Batcher(recording(sizes), executor, **options)
            serving = asyncio.create_task(batcher.serve())
            results = await asyncio.gather(
                *(batcher.submit(request(call)) for call in calls), return_exceptions=True
            )
            serving.cancel()
            return results

    return asyncio.run(run()), sizes


def test_requests_run_together_up_to_the_limit_and_keep_their_order():
    results, sizes = submit(range(10), limit=4)
    assert [result.chunk[0, 0] for result in results] == list(range(10))
    assert sizes == [4, 4, 2]


def test_a_bad_request_fails_alone():
    results, sizes = submit([11, 12, 13, 14], limit=4)
    assert [result.chunk[0, 0] for result in results if isinstance(result, Prediction)] == [11, 12, 14]
    assert isinstance(results[2], ArithmeticError)
    assert sizes == [4, 1, 1, 1, 1]


def test_a_single_client_does_not_wait():
    async def run():
        with ThreadPoolExecutor(1) as executor:
            batcher = Batcher(answer, executor, limit=4, window=30.0, clients=lambda: 1)
            serving = asyncio.create_task(batcher.serve())
            async with asyncio.timeout(5):
                await batcher.submit(request(1))
            serving.cancel()

    asyncio.run(run())


def test_the_window_ends_the_wait():
    results, sizes = submit([1], limit=4, window=0.01, clients=lambda: 3)
    assert len(results) == 1
    assert sizes == [1]


def test_an_abandoned_request_is_not_computed():
    sizes: list[int] = []

    async def run():
        with ThreadPoolExecutor(1) as executor:
            batcher = Batcher(recording(sizes), executor, limit=4)
            gone = asyncio.create_task(batcher.submit(request(1)))
            await asyncio.sleep(0)
            gone.cancel()
            with pytest.raises(asyncio.CancelledError):
                await gone
            serving = asyncio.create_task(batcher.serve())
            await batcher.submit(request(2))
            serving.cancel()

    asyncio.run(run())
    assert sizes == [1]
