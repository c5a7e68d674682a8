"""Where training shows its metrics: Weights & Biases, and MLflow where the environment names a server."""

import math
import os
import time
import urllib.parse
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from components.errors import PassingError, UserError
from components.runtime import mlflow
from pi_behavior.training.hooks import Hook

_EXPERIMENT = "b1k"
_IDENTITY = "b1k.identity"
"""Tag of a run by which another attempt finds it again."""
_PATIENCE = 10.0
"""Longest wait for MLflow, in seconds; training waits as long."""
_LONGEST_PARAMETER = 6000
_MOST_PARAMETERS = 100


@contextmanager
def tracked(
    workspace: Path, name: str, identity: str, config: Mapping[str, Any], *, on: bool = True
) -> Iterator[list[Hook]]:
    """Hooks that show the metrics of a training; it goes on without a server that does not answer.

    Args:
        workspace: for records that a server has not got yet.
        name: that is shown.
        identity: the same for every attempt of a training.
        config: of the training.
        on: whether to show anything at all.
    """
    if not on:
        yield []
        return
    hooks: list[Hook] = []
    with ExitStack() as stack:
        if os.environ.get("WANDB_MODE") != "disabled":
            from pi_behavior.training.hooks import WeightsAndBiases

            folder = workspace / "wandb"
            wandb = WeightsAndBiases(folder, name, config, identity)
            stack.callback(wandb.close)
            if wandb.failure:
                _say(
                    f"Weights & Biases is offline, which failed: {wandb.failure}. The records are in "
                    f"{folder} for `wandb sync`"
                )
            hooks.append(wandb)
        if address := os.environ.get(mlflow.ADDRESS):
            run = MlflowRun(address, name, identity, config)
            stack.push(run.close)
            hooks.append(run)
        yield hooks


class MlflowRun:
    """Logs to a run of an MLflow server: to MLFLOW_RUN_ID, or to one of its own that attempts share.

    A server that fails is left alone from then on: the metrics are in the artifact too.
    """

    def __init__(self, address: str, name: str, identity: str, config: Mapping[str, Any]) -> None:
        self._address = address
        self._run, self._is_ours = os.environ.get("MLFLOW_RUN_ID", ""), False
        self._failed = False
        self._ask(lambda: self._begin(name, identity, config))

    def __call__(self, step: int, metrics: Mapping[str, float]) -> None:
        """Log the metrics."""
        now = round(time.time() * 1000)
        values = [
            {"key": key, "value": value, "timestamp": now, "step": step}
            for key, value in metrics.items()
            if math.isfinite(value)
        ]
        self._ask(lambda: self._call("runs/log-batch", {"run_id": self._run, "metrics": values}))

    def close(self, kind: type[BaseException] | None, *_: object) -> None:
        """End the run, if it is our own; that of a task of Kubeflow is ended by Kubeflow."""
        if self._is_ours:
            end = {"run_id": self._run, "status": "FINISHED" if kind is None else "FAILED"}
            self._ask(lambda: self._call("runs/update", {**end, "end_time": round(time.time() * 1000)}))

    def _begin(self, name: str, identity: str, config: Mapping[str, Any]) -> None:
        if not self._run:
            self._run, self._is_ours = self._own(name, identity), True
            self._call("runs/update", {"run_id": self._run, "status": "RUNNING"})
        flat = list(_flat("", config))[:_MOST_PARAMETERS]
        parameters = [{"key": key, "value": str(value)[:_LONGEST_PARAMETER]} for key, value in flat]
        self._call("runs/log-batch", {"run_id": self._run, "params": parameters})

    def _own(self, name: str, identity: str) -> str:
        experiment = os.environ.get("MLFLOW_EXPERIMENT_ID") or self._experiment()
        wanted = {"experiment_ids": [experiment], "filter": f"tags.`{_IDENTITY}` = '{identity}'"}
        found = self._call("runs/search", {**wanted, "max_results": 1}).get("runs")
        if found:
            return str(found[0]["info"]["run_id"])
        made = self._call(
            "runs/create",
            {
                "experiment_id": experiment,
                "run_name": name,
                "start_time": round(time.time() * 1000),
                "tags": [{"key": _IDENTITY, "value": identity}],
            },
        )
        return str(made["run"]["info"]["run_id"])

    def _experiment(self) -> str:
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or _EXPERIMENT
        self._call("experiments/create", {"name": name}, known="RESOURCE_ALREADY_EXISTS")
        query = urllib.parse.urlencode({"experiment_name": name})
        return str(self._call(f"experiments/get-by-name?{query}")["experiment"]["experiment_id"])

    def _call(self, path: str, body: dict[str, Any] | None = None, known: str = "") -> dict[str, Any]:
        return mlflow.call(self._address, path, body, known=known, timeout=_PATIENCE)

    def _ask(self, work: Any) -> None:
        if self._failed:
            return
        try:
            work()
        except (UserError, PassingError, KeyError, IndexError, TypeError) as error:
            self._failed = True
            _say(f"continues without MLflow, which failed: {error}")


def _flat(prefix: str, values: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(f"{prefix}{key}.", value)
        else:
            yield f"{prefix}{key}", value


def _say(what: str) -> None:
    print(f"train: {what}", flush=True)
