"""A predictor without a network, and a running policy service, for the policy's tests."""

import asyncio
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import numpy as np
import pytest

from pi_behavior.challenge import MAX_STAGES
from pi_behavior.layout import (
    ACTION_DIM,
    ACTION_HORIZON,
    CAMERA_OBSERVATION_KEYS,
    PROPRIOCEPTION_KEY,
    TASK_ID_KEY,
)
from pi_behavior.policy.config import PolicyConfig
from pi_behavior.policy.interface import ClosureTable, Prediction, Request
from pi_behavior.policy.mapping import CheckpointEntry
from pi_behavior.policy.protocol import ProtocolError
from pi_behavior.policy.service import PolicyService
from pi_behavior.policy.switching import CheckpointPool

BROKEN_TASK = 48


class FormulaPredictor:
    """Chunks by a formula of everything in the request, so that a mix-up of requests shows."""

    batch_sizes: Sequence[int] = (1, 2, 4)
    digest = "d" * 64

    def __init__(self, offset: float = 0.0) -> None:
        self.offset = offset
        self.batches: list[int] = []
        self.stages: list[int] = []
        self.base_velocities: list[str | None] = []

    @property
    def observation_steps(self) -> int:
        return 1

    def check(self, request: Request) -> None:
        if request.task > 99:
            raise ProtocolError(f"task {request.task} is unknown")

    def predict(self, requests: Sequence[Request]) -> list[Prediction]:
        self.batches.append(len(requests))
        self.stages += [request.stage for request in requests]
        self.base_velocities += [request.base_velocity for request in requests]
        return [self._predict(request) for request in requests]

    def _predict(self, request: Request) -> Prediction:
        if request.task == BROKEN_TASK:
            raise RuntimeError("task 48 breaks this network")
        noise = np.random.default_rng([*request.noise, request.task]).normal(size=(1, ACTION_DIM)) * 0.01
        start = request.state if request.saved is None else request.saved[0]
        ramp = np.arange(ACTION_HORIZON)[:, None] * 0.001
        pixels = sum(float(image.mean()) for image in request.images.values()) * 1e-4
        chunk = start + ramp + noise + pixels + self.offset
        chunk[:, [14, 22]] = 1.0
        logits = np.full(MAX_STAGES, -np.inf, np.float32)
        logits[:3] = [0.0, 1.0, 0.5]
        return Prediction(chunk.astype(np.float32), logits)

    def closure(self, task: int) -> ClosureTable | None:
        return None if task else np.zeros((MAX_STAGES, 2), bool)


def make_observation(
    seed: int, environments: int | None = None, task: int = 1, size: int = 8
) -> dict[str, object]:
    """A random observation message; environments None is a single one without a leading axis."""
    rng = np.random.default_rng(seed)
    lead = () if environments is None else (environments,)
    proprioception = rng.uniform(-0.3, 0.3, (*lead, 256)).astype(np.float32)
    proprioception[..., 193:195] = proprioception[..., 232:234] = 0.05
    return {
        PROPRIOCEPTION_KEY: proprioception,
        TASK_ID_KEY: np.array([task], np.int64),
        **{
            key: rng.integers(0, 255, (*lead, size, size, 4), dtype=np.uint8)
            for key in CAMERA_OBSERVATION_KEYS.values()
        },
    }


Serve = Callable[..., AbstractContextManager[int]]


@contextmanager
def _serve(
    predictor: FormulaPredictor,
    config: PolicyConfig | None = None,
    api_key: str | None = None,
    window: float = 0.005,
    ports: int = 1,
) -> Iterator[int]:
    pool = CheckpointPool([CheckpointEntry("formula", Path(), None)], lambda _: predictor, capacity=1)
    service = PolicyService(config or PolicyConfig(), pool, max_batch=4, window=window, api_key=api_key)
    bound: list[int] = []
    started = threading.Event()
    stops: list[Callable[[], object]] = []
    errors: list[BaseException] = []

    async def main() -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        stops.append(lambda: loop.call_soon_threadsafe(stop.set))

        def ready(port: int) -> None:
            bound.append(port)
            started.set()

        await pool.warm()
        await service.run("127.0.0.1", 0, ports=ports, ready=ready, stop=stop)

    def run() -> None:
        try:
            asyncio.run(main())
        except BaseException as error:
            errors.append(error)
        finally:
            started.set()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        assert started.wait(20)
        assert bound, errors
        yield bound[0]
    finally:
        stops[0]()
        thread.join(30)
    assert not thread.is_alive()
    assert not errors


@pytest.fixture
def serve() -> Serve:
    """Run a service in a thread: `with serve(predictor, config) as port`."""
    return _serve


@pytest.fixture
def observation() -> Callable[..., dict[str, object]]:
    """Make an observation message."""
    return make_observation


@pytest.fixture
def formula() -> type[FormulaPredictor]:
    """The predictor's class."""
    return FormulaPredictor
