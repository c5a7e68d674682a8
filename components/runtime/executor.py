"""The adapter to KFP's executor input and output, without importing kfp.

KFP hands a container component its inputs and the places of its outputs as one JSON text (the placeholder
`{{$}}`), and reads metrics, artifact metadata and parameters back from a JSON file. The same code serves the
cluster's launcher and kfp.local.
"""

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.errors import UserError
from components.runtime.declaration import ARTIFACT, METRICS, PAGE, C, Declaration, In
from components.runtime.values import build, fields, mapping, merge, spread
from components.store.artifact import Artifact
from components.store.files import write_atomic

_MOUNTS = {"s3://": "/s3/", "minio://": "/minio/", "gs://": "/gcs/"}
FLAG = "--executor-input"
PROFILE, SETTINGS, SECTIONS = "profile", "settings", "sections"
"""Parameters of every component: the profile's values and the run's, both by section, and the names of the
stage's sections. Typed inputs count more than the first section; later sections hold what differs from it."""
RUN_ID, TASK_ID = "run_id", "task_id"


def local_path(uri: str) -> Path:
    """Where KFP's launcher mounts an artifact's URI; a path stays itself, UserError for other schemes."""
    for scheme, mount in _MOUNTS.items():
        if uri.startswith(scheme):
            return Path(mount + uri.removeprefix(scheme))
    if "://" in uri:
        raise UserError(f"artifact URI {uri!r}: expected a path or one of {', '.join(_MOUNTS)}")
    return Path(uri)


@dataclass(frozen=True)
class KfpTask:
    """One task as KFP describes it."""

    parameters: Mapping[str, Any]
    artifacts: Mapping[str, Any]
    outputs: Mapping[str, Any]

    @classmethod
    def from_arguments(cls, arguments: list[str]) -> "KfpTask | None":
        """Read the argument of `--executor-input`; None where there is none, as in a call from a shell."""
        if FLAG not in arguments:
            return None
        try:
            document = json.loads(arguments[arguments.index(FLAG) + 1])
            inputs = document.get("inputs", {})
            return cls(inputs.get("parameterValues", {}), inputs.get("artifacts", {}), document["outputs"])
        except (IndexError, ValueError, KeyError, AttributeError) as error:
            raise UserError(
                f"{FLAG} is not KFP's executor input (JSON with inputs and outputs): {error}"
            ) from error

    def config(self, declaration: Declaration[C, In]) -> C:
        """The stage's configuration, from the profile's values, the run's settings and the typed inputs."""
        if declaration.from_parameters is not None:
            return declaration.from_parameters(self.parameters)
        own = {PROFILE, SETTINGS, SECTIONS, RUN_ID, TASK_ID}
        given = {name: value for name, value in self.parameters.items() if name not in own}
        known = {one.name for one in fields(declaration.config)}
        if given.keys() - known or SECTIONS not in self.parameters:
            raise UserError(
                f"the stage {declaration.name} does not know all that KFP passes to it "
                f"({', '.join(sorted(self.parameters))}): the run was compiled with another version than the "
                "image's. Compile the pipeline, and make its schedules, with the version of the image"
            )
        kind = declaration.config
        layers: list[Mapping[str, Any]] = []
        for number, section in enumerate(str(self.parameters[SECTIONS]).split()):
            sources = (mapping(self.parameters.get(name, {})) for name in (PROFILE, SETTINGS))
            layers += [source.get(section, {}) for source in sources]
            if number == 0:
                layers.append(spread(kind, given))
        return build(kind, merge(kind, *layers), f"{declaration.name}.")

    def inputs(self, declaration: Declaration[C, In]) -> In:
        """The stage's artifacts."""
        found: dict[str, Any] = {}
        for name, (many, _) in declaration.artifacts().items():
            group = self.artifacts.get(name, {}).get("artifacts", [])
            # tasks of a loop that made one artifact together all pass it on
            different = {one.path: one for one in (Artifact.load(local_path(one["uri"])) for one in group)}
            loaded = tuple(different.values())
            if many or loaded:
                found[name] = loaded if many else loaded[0]
        return declaration.inputs(**found)

    def write(
        self,
        artifact: Artifact,
        *,
        cached: bool,
        metrics: Mapping[str, float],
        parameters: Mapping[str, Any],
        html: str | None,
    ) -> None:
        """Write the artifact's record, the metrics, the page and the parameters where KFP expects them.

        A retried task finds what its first attempt wrote, because KFP reuses the folder: it is cleared.
        """
        facts: dict[str, dict[str, Any]] = {
            ARTIFACT: {
                **artifact.metadata,
                "bulk_uri": artifact.uri,
                "sha256": artifact.digest,
                "lineage_sha256": artifact.lineage_digest,
                "cached": cached,
            },
            METRICS: dict(metrics),
            PAGE: {},
        }
        written = {}
        for name, metadata in facts.items():
            group = self.outputs.get("artifacts", {}).get(name, {}).get("artifacts", [])
            if not group:
                continue
            path = local_path(group[0]["uri"])
            _clear(path)
            if name == ARTIFACT:
                artifact.write_record(path)
            else:
                write_atomic(path, (html or "") if name == PAGE else json.dumps(metadata))
            one = {"name": group[0].get("name", name), "uri": group[0]["uri"], "metadata": metadata}
            written[name] = {"artifacts": [one]}
        values = {}
        for name, target in self.outputs.get("parameters", {}).items():
            if name not in parameters:
                raise KeyError(
                    f"the component declares the output parameter {name!r}; the stage gave {list(parameters)}"
                )
            value = values[name] = parameters[name]
            write_atomic(Path(target["outputFile"]), value if isinstance(value, str) else json.dumps(value))
        document = {"artifacts": written, "parameterValues": values}
        write_atomic(Path(self.outputs["outputFile"]), json.dumps(document))


def _clear(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
