"""The champion in an MLflow model registry: a version per champion, and the alias `champion` on that of now.

Source: MLflow's REST API 2.0. Whatever is done twice, or was cut off in the middle, leaves the same.
"""

import urllib.parse
from dataclasses import dataclass
from typing import Any

from components.evaluation.champion import Champion
from components.runtime import mlflow
from pi_behavior.config import require

ALIAS = "champion"
_DIGEST = "leaderboard_digest"
"""Tag of a version by which it is found again."""


@dataclass(frozen=True)
class Registry:
    """Where champions are registered."""

    mlflow: str = ""
    """Address of an MLflow server (https://HOST) that is told of each new champion; empty for none. Its
    login is in MLFLOW_TRACKING_TOKEN, or in MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD."""
    model: str = "b1k"
    """Name of the registered model."""

    def __post_init__(self) -> None:
        require(
            (
                not self.mlflow or urllib.parse.urlsplit(self.mlflow).scheme in ("http", "https"),
                f"mlflow is {self.mlflow!r}; expected an address that begins with https:// or http://",
            ),
            (
                bool(self.model) and not set(self.model) & set("/:'"),
                f"model is {self.model!r}; expected a name",
            ),
        )

    def publish(self, champion: Champion) -> None:
        """Register a champion if it is not there yet, and move the alias to it; nothing without a server.

        Raises:
            UserError: the server refuses it.
            PassingError: the server cannot be reached.
        """
        if not self.mlflow:
            return
        self._call("registered-models/create", {"name": self.model}, known="RESOURCE_ALREADY_EXISTS")
        board = champion.leaderboard
        wanted = urllib.parse.urlencode(
            {"filter": f"name = '{self.model}' and tags.{_DIGEST} = '{board.digest}'"}
        )
        found = self._call(f"model-versions/search?{wanted}").get("model_versions", [])
        if found:
            version = min(found, key=lambda one: int(one["version"]))["version"]
        else:
            tags = {
                _DIGEST: board.digest,
                "leaderboard": board.uri,
                "promoted": champion.promoted,
                "q": f"{champion.q:.4f}",
                **{f"q_{task}": f"{q:.4f}" for task, q in champion.by_task.items()},
                **{
                    f"policy_{name.replace(':', '-')}": f"{one.uri} {one.digest}"
                    for name, one in champion.checkpoints.items()
                },
                **({"forced": f"{champion.forced.by}: {champion.forced.why}"} if champion.forced else {}),
            }
            made = self._call(
                "model-versions/create",
                {
                    "name": self.model,
                    # a scheme of its own: the server takes no paths of other machines
                    "source": f"b1k://{board.uri}",
                    "tags": [{"key": key, "value": value} for key, value in tags.items()],
                },
            )
            version = made["model_version"]["version"]
        self._call("registered-models/alias", {"name": self.model, "alias": ALIAS, "version": version})

    def _call(self, path: str, body: dict[str, Any] | None = None, known: str = "") -> dict[str, Any]:
        return mlflow.call(self.mlflow, path, body, known=known)
