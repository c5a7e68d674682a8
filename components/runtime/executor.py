"""The adapter to KFP's executor input and output, without importing kfp.

KFP hands a container component its inputs and the places of its outputs as one JSON text (the placeholder
`{{$}}`), and reads metrics, artifact metadata and parameters back from a JSON file. The same code serves the
cluster's launcher and kfp.local.
"""

import dataclasses
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_origin

from components.runtime.errors import UserError
from components.store.artifact import Artifact, write_atomic

_MOUNTS = {"s3://": "/s3/", "minio://": "/minio/", "gs://": "/gcs/"}
FLAG = "--executor-input"
FIRST = "first_"
OUTPUT = "artifact"
METRICS = "metrics"
HTML = "html"


def local_path(uri: str) -> Path:
    """Where KFP's launcher puts an artifact of this URI; a plain path stays itself.

    Raises:
        UserError: the scheme is not one that the launcher mounts.
    """
    for scheme, mount in _MOUNTS.items():
        if uri.startswith(scheme):
            return Path(mount + uri.removeprefix(scheme))
    if "://" in uri:
        raise UserError(f"artifact URI {uri!r}: expected a path or one of {', '.join(_MOUNTS)}")
    return Path(uri)


def _words(name: str, value: Any, wanted: Any) -> list[str]:
    """Command-line words that give a parameter its value."""
    if value is None:
        return []
    if isinstance(value, bool) or wanted is bool:
        flag = value if isinstance(value, bool) else str(value).lower() == "true"
        prefix, _, last = name.rpartition(".")
        option = last.replace("_", "-")
        return [f"--{prefix}.{option if flag else 'no-' + option}"]
    option = f"--{name.replace('_', '-')}"
    if get_origin(wanted) is tuple and isinstance(value, str):
        value = value.split()  # inside a loop over dicts KFP types every item as text: "task_a task_b"
    if isinstance(value, list):
        return [option, *(_scalar(v) for v in value)]
    return [f"{option}={_scalar(value)}"]


def _scalar(value: Any) -> str:
    # kfp.local turns every number into a float: 3 arrives as 3.0
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


@dataclass(frozen=True)
class KfpTask:
    """One task as KFP describes it."""

    inputs: Mapping[str, Any]
    outputs: Mapping[str, Any]

    @classmethod
    def from_arguments(cls, arguments: list[str]) -> tuple["KfpTask | None", list[str]]:
        """Take `--executor-input JSON` out of a command line.

        Returns:
            The task, or None for a call from a shell, and the other arguments.

        Raises:
            UserError: the text is not KFP's executor input.
        """
        if FLAG not in arguments:
            return None, arguments
        place = arguments.index(FLAG)
        rest = arguments[:place] + arguments[place + 2 :]
        try:
            document = json.loads(arguments[place + 1])
            return cls(document.get("inputs", {}), document["outputs"]), rest
        except (IndexError, ValueError, KeyError, AttributeError) as error:
            raise UserError(
                f"{FLAG} is not KFP's executor input (JSON with inputs and outputs): {error}"
            ) from error

    def command_line(self, config: type, inputs: type) -> list[str]:
        """The stage's own command-line words for the parameters and artifacts of this task.

        Raises:
            UserError: KFP passes a parameter or artifact that the stage does not know.
        """
        fields = {f.name: f.type for f in dataclasses.fields(config)}
        artifacts = {f.name for f in dataclasses.fields(inputs)}
        given = self.inputs.get("parameterValues", {})
        unknown = sorted(
            (given.keys() - fields.keys())
            | (self.inputs.get("artifacts", {}).keys() - artifacts - {FIRST + name for name in artifacts})
        )
        unknown = [name for name in unknown if name not in ("workspace", "run_id", "task_id")]
        if unknown:
            raise UserError(
                f"KFP passes {', '.join(unknown)}; expected parameters {', '.join(fields)} and artifacts "
                f"{', '.join(sorted(artifacts))}. Compile the pipeline with the version of the image"
            )
        words: list[str] = []
        for name, value in given.items():
            if name in fields:
                words += _words(f"config.{name}", value, fields[name])
        for name in sorted(artifacts):
            # a pipeline cannot put one artifact before those that it collects from a loop: two inputs can
            groups = [self.inputs.get("artifacts", {}).get(key, {}) for key in (FIRST + name, name)]
            paths = [str(local_path(a["uri"])) for group in groups for a in group.get("artifacts", [])]
            if paths:
                words += [f"--inputs.{name.replace('_', '-')}", *paths]
        return words

    def _place(self, name: str) -> tuple[dict[str, Any], Path] | None:
        group = self.outputs.get("artifacts", {}).get(name, {}).get("artifacts", [])
        return (group[0], local_path(group[0]["uri"])) if group else None

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

        Args:
            artifact: the stage's artifact.
            cached: whether it was there already; shown in the UI.
            metrics: flat numbers for `system.Metrics`.
            parameters: output parameters by name.
            html: a page for `system.HTML`, where the component declares one.
        """
        metadata: dict[str, dict[str, Any]] = {
            OUTPUT: {
                **artifact.metadata,
                "bulk_uri": artifact.uri,
                "sha256": artifact.digest,
                "lineage_sha256": artifact.lineage_digest,
                "cached": cached,
            },
            METRICS: dict(metrics),
            HTML: {},
        }
        written = {}
        for name, facts in metadata.items():
            place = self._place(name)
            if place is None:
                continue
            description, path = place
            _clear(path)
            if name == OUTPUT:
                artifact.write_record(path)
            else:
                write_atomic(path, (html or "") if name == HTML else json.dumps(facts))
            written[name] = {
                "artifacts": [
                    {"name": description.get("name", name), "uri": description["uri"], "metadata": facts}
                ]
            }
        values = {}
        for name, target in self.outputs.get("parameters", {}).items():
            if name not in parameters:
                raise KeyError(
                    f"the component declares the output parameter {name!r}; the stage gave {list(parameters)}"
                )
            values[name] = parameters[name]
            value = values[name]
            write_atomic(Path(target["outputFile"]), value if isinstance(value, str) else json.dumps(value))
        document = {"artifacts": written, "parameterValues": values}
        write_atomic(Path(self.outputs["outputFile"]), json.dumps(document))


def _clear(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
