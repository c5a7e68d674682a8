"""Small artifacts, published as stages publish theirs."""

import os
import time
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from components.store import lineage
from components.store.artifact import RESULT, Artifact
from components.store.identity import fingerprint
from components.store.lineage import Dependency
from components.store.making import partial_of, publish


@dataclass(frozen=True)
class Config:
    """What is in it."""

    text: str = ""
    champion: str = ""


def make(
    workspace: Path,
    text: str,
    *inputs: Artifact,
    stage: str = "shared",
    content: str = "",
    champion: str = "",
    external: tuple[Dependency, ...] = (),
    days_old: float = 0.0,
    parameters: dict[str, Any] | None = None,
) -> Artifact:
    """An artifact with two files that was made, and last used, so many days ago."""
    config = Config(text, champion)
    final = workspace / "artifacts" / stage / fingerprint(stage, config, {"sources": inputs}, external, "")
    partial = partial_of(final)
    (partial / "meta").mkdir(parents=True)
    (partial / "episode.bin").write_bytes((content or text).encode() * 3)
    (partial / "meta" / "info.json").write_text('{"a": 1}')
    (partial / RESULT).write_text('{"metadata": {}}')
    used = [Dependency.of(f"sources[{i}]", artifact, workspace) for i, artifact in enumerate(inputs)]
    then = time.time() - days_old * 86400
    at = datetime.fromtimestamp(then, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    publish(
        partial,
        final,
        lambda digest: lineage.statement(
            subject=final.relative_to(workspace).as_posix(),
            digest=digest,
            stage=stage,
            fingerprint=final.name,
            parameters=parameters or asdict(config),
            dependencies=[*used, *external],
            version="0",
            invocation="test",
            started=at,
            finished=at,
        ),
    )
    os.utime(final, (then, then))
    return Artifact.load(final)
