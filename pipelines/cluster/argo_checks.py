"""What the settings of Argo Workflows, which starts the pods of a run, mean for our pipelines."""

from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from pipelines.cluster.node_checks import Finding

CONFIG_MAP = "workflow-controller-configmap"
_CHECK = "Argo Workflows"


def check_argo(data: Mapping[str, str] | None, longest_hours: float) -> Iterator[Finding]:
    """Read the workflow controller's config map.

    Args:
        data: its data; None where there is no such config map.
        longest_hours: longest life that a step of the profile gives a pod.
    """
    if data is None:
        found = f"there is no config map {CONFIG_MAP}; Argo's own defaults hold"
        yield Finding(_CHECK, "warning", found, "look for Argo's settings, or give --kfp-namespace")
        return
    try:
        # all of it may be one document under the key `config`
        settings = {key: yaml.safe_load(text) for key, text in data.items()}
    except yaml.YAMLError as error:
        yield Finding(_CHECK, "fail", f"{CONFIG_MAP} is not YAML: {error}", "correct it")
        return
    policies = {str(value) for value in _values(settings, "retryPolicy")}
    again = policies & {"Always", "OnFailure"}
    if again:
        found = f"retryPolicy {', '.join(sorted(again))}: programs that fail are started again at every level"
        remedy = "take it out: stages try again by themselves, and a mistake would be tried many times"
        yield Finding(_CHECK, "warning", found, remedy)
    else:
        found = (
            "lost pods are replaced, programs that fail are not; stages start again in their pod, but not "
            "after the kernel has killed all of it for its memory (control groups 2)"
        )
        yield Finding(_CHECK, "ok", found)
    spec = _inner(_inner(settings, "config") or settings, "workflowDefaults", "spec")
    seconds = spec.get("activeDeadlineSeconds")
    if seconds and float(seconds) < longest_hours * 3600:
        found = f"activeDeadlineSeconds ends every run after {float(seconds) / 3600:g} hours"
        remedy = f"raise it: one step of the profile may take {longest_hours:g} hours"
        yield Finding("Argo's time limit", "warning", found, remedy)
    kept = any(value is True for value in _values(settings, "archiveLogs"))
    strategy = _inner(spec, "podGC").get("strategy", "")
    if strategy and not kept:
        found = f"pods are removed ({strategy}) and their logs are not kept"
        remedy = "set archiveLogs: true, or take podGC out; executor-logs remain in the artifact store"
        yield Finding("Argo's logs", "warning", found, remedy)


def _inner(settings: Mapping[str, Any], *names: str) -> Mapping[str, Any]:
    for name in names:
        found = settings.get(name)
        settings = found if isinstance(found, Mapping) else {}
    return settings


def _values(settings: Any, name: str) -> Iterator[Any]:
    """All values of a name, at any depth."""
    if isinstance(settings, Mapping):
        for key, value in settings.items():
            if key == name:
                yield value
            yield from _values(value, name)
    elif isinstance(settings, list):
        for one in settings:
            yield from _values(one, name)
