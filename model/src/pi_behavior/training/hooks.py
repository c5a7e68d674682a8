"""What surrounds the training step: hooks that are called every so many steps."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable


@runtime_checkable
class Hook(Protocol):
    """Called after steps, with the metrics since the last call."""

    def __call__(self, step: int, metrics: Mapping[str, float]) -> None:
        """Take note of the metrics of a step."""


class JsonLines:
    """Appends one line of metrics per call; a resumed run first drops lines from after its step."""

    def __init__(self, path: Path, start: int) -> None:
        self.path = path
        kept = []
        if path.exists():
            for line in path.read_text().splitlines():
                try:
                    if json.loads(line)["step"] <= start:
                        kept.append(line)
                except ValueError:  # cut off by a kill
                    continue
        aside = path.with_suffix(".partial")
        aside.write_text("".join(f"{line}\n" for line in kept))
        aside.replace(path)

    def __call__(self, step: int, metrics: Mapping[str, float]) -> None:
        """Append the metrics."""
        with self.path.open("a") as file:
            file.write(json.dumps({"step": step, **metrics}) + "\n")


class WeightsAndBiases:
    """Logs to Weights & Biases; offline unless WANDB_MODE says otherwise.

    The key comes from the environment (WANDB_API_KEY) and is never written by us.
    """

    def __init__(self, folder: Path, name: str, config: Mapping[str, Any]) -> None:
        import wandb

        folder.mkdir(parents=True, exist_ok=True)
        self.run = wandb.init(
            project="b1k",
            name=name,
            dir=str(folder),
            config=dict(config),
            mode=os.environ.get("WANDB_MODE", "offline"),  # type: ignore[arg-type]
            settings=wandb.Settings(silent=True, console="off", x_disable_stats=True),
        )

    def __call__(self, step: int, metrics: Mapping[str, float]) -> None:
        """Log the metrics."""
        self.run.log(dict(metrics), step=step)

    def close(self) -> None:
        """Finish the run."""
        self.run.finish()
