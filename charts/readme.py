"""Writes charts/b1k/README.md from the chart: every value with its default and its comment.

Run after a change of values.yaml::

    python charts/readme.py            # --check exits with 1 where the file is not up to date
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

CHART = Path(__file__).parent / "b1k"
README = CHART / "README.md"
ARGO = """\
## Settings of Argo Workflows

The chart does not touch Argo's config map `workflow-controller-configmap`, which counts for all workflows of
the cluster and belongs to its administrators. No setting there is needed. Of use are:

- `workflowDefaults.spec.podPriorityClassName`: `<release>-runs` gives the pods of runs the priority class of
  `priorityClasses.create`.
- `namespaceParallelism`: most runs of a namespace at the same time; others wait.
- `retryPolicy`: leave `OnError`, or unset. Stages start again by themselves after a crash; with `Always` Argo
  repeats each failure as well, up to three times each for pod, task, the DAG around it and the workflow.
"""
_KEY = re.compile(r"^( *)([\w.-]+):")
_COMMENT = re.compile(r"^ *# (-- )?(.*)$")


def documented(text: str) -> Iterator[tuple[str, str]]:
    """The values with a `# --` comment: dotted name and comment, in the order of the file."""
    path: list[tuple[int, str]] = []
    comment: list[str] = []
    for line in text.splitlines():
        said, key = _COMMENT.match(line), _KEY.match(line)
        if said and (said[1] or comment):
            comment = [said[2]] if said[1] else [*comment, said[2]]
            continue
        if key:
            indent = len(key[1])
            path = [one for one in path if one[0] < indent] + [(indent, key[2])]
            if comment:
                yield ".".join(name for _, name in path), " ".join(comment)
        comment = []


def value(values: dict[str, Any], name: str) -> Any:
    """The default of a dotted name."""
    found: Any = values
    for part in name.split("."):
        found = found[part]
    return found


def render() -> str:
    """The text of the README."""
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    text = (CHART / "values.yaml").read_text()
    values = yaml.safe_load(text)
    lines = [
        f"# Chart {chart['name']} {chart['version']}",
        "",
        f"{chart['description']}. [docs/cluster.md](../../docs/cluster.md) says how to install and use it.",
        "",
        "Made by `python charts/readme.py` from `values.yaml`; change the comments there.",
        "",
        f"Kubernetes: {chart['kubeVersion'].removesuffix('-0')}",
        "",
        "| value | default | what |",
        "| --- | --- | --- |",
    ]
    for name, comment in documented(text):
        default = json.dumps(value(values, name)).replace("|", "\\|")
        lines.append(f"| `{name}` | `{default}` | {comment.replace('|', chr(92) + '|')} |")
    return "\n".join([*lines, "", ARGO])


def main() -> int:
    """Writes the file, or says whether it is up to date."""
    summary = (__doc__ or "").partition("\n")[0]
    parser = argparse.ArgumentParser(description=summary)
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 where it differs")
    check = parser.parse_args().check
    text = render()
    if check:
        if README.exists() and README.read_text() == text:
            return 0
        print(f"{README} is not up to date: python charts/readme.py", file=sys.stderr)
        return 1
    README.write_text(text)
    print(README)
    return 0


if __name__ == "__main__":
    sys.exit(main())
