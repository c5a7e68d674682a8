"""Hooks that training calls every `log_every` steps, with metrics."""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from pi_behavior.files import write_atomic

INPUT_WAIT = "input_wait"
"""Metric: seconds per step that the devices waited for a batch."""


@runtime_checkable
class Hook(Protocol):
    """Called with the mean metrics of the steps since its last call."""

    def __call__(self, step: int, metrics: Mapping[str, float]) -> None:
        """Record metrics, up to and including this step."""


class JsonLines:
    """Appends one line of metrics per call, without times: the same run makes the same file.

    The first call of a run drops the lines of its step and of later ones: they are from steps that a killed
    run made after its last saved state, and that this one repeats.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._begun = False

    def __call__(self, step: int, metrics: Mapping[str, float]) -> None:
        """Append the metrics."""
        if not self._begun:
            write_atomic(self.path, "".join(self._before(step)))
            self._begun = True
        with self.path.open("a") as file:
            row = {name: value for name, value in metrics.items() if name != INPUT_WAIT}
            file.write(json.dumps({"step": step, **row}) + "\n")

    def _before(self, step: int) -> Iterator[str]:
        for line in self.path.read_text().splitlines() if self.path.exists() else ():
            with suppress(ValueError):  # a line that a kill cut off
                if json.loads(line)["step"] < step:
                    yield f"{line}\n"


_LIMITS = {
    "WANDB__GRAPHQL_TIMEOUT_SECONDS": "6",
    "WANDB_X_GRAPHQL_RETRY_MAX": "1",
    "WANDB_INIT_TIMEOUT": "20",
}
"""Weights & Biases waits minutes for a server that does not answer; the environment may say otherwise."""


class WeightsAndBiases:
    """Logs to Weights & Biases; offline unless WANDB_MODE says otherwise, or its server cannot be reached.

    The key comes from the environment (WANDB_API_KEY) and is written nowhere.
    """

    def __init__(self, folder: Path, name: str, config: Mapping[str, Any], identity: str) -> None:
        """Begin a run, or continue that of the same identity.

        Args:
            folder: for the records.
            name: that is shown.
            config: of the run.
            identity: the same for every attempt of a run.
        """
        for variable, value in _LIMITS.items():
            os.environ.setdefault(variable, value)
        import wandb

        folder.mkdir(parents=True, exist_ok=True)
        mode = os.environ.get("WANDB_MODE", "offline")

        def begin(mode: str) -> Any:
            return wandb.init(
                project="b1k",
                name=name,
                id=identity,
                # offline, every attempt is a record of its own, which `wandb sync` puts together by its id
                resume="allow" if mode == "online" else None,
                dir=str(folder),
                config=dict(config),
                mode=mode,  # type: ignore[arg-type]
                settings=wandb.Settings(silent=True, console="off", x_disable_stats=True),
            )

        self.failure = ""
        """Why the run is offline, where it should not be."""
        try:
            self.run = begin(mode)
        except wandb.errors.Error as error:
            if mode == "offline":
                raise
            self.failure = str(error).splitlines()[0]
            wandb.teardown()  # its service keeps the run that could not begin
            self.run = begin("offline")

    def __call__(self, step: int, metrics: Mapping[str, float]) -> None:
        """Log the metrics."""
        self.run.log(dict(metrics), step=step)

    def close(self) -> None:
        """Finish the run."""
        self.run.finish()
