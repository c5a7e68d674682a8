"""Prints lineage: `b1k lineage show|verify ARTIFACT`."""

import sys
from pathlib import Path

from components.shared import lineage
from components.shared.artifacts import LINEAGE, RECORD, SUMS, Artifact
from components.shared.errors import UserError


def show(artifact: Artifact) -> int:
    """Print what an artifact was made from, up to the raw demonstrations.

    Returns:
        Exit code 0.
    """
    for node in lineage.chain(artifact):
        indent = "  " * node.depth
        digest = node.lineage["subject"][0]["digest"]["sha256"]
        finished = node.lineage["predicate"]["runDetails"]["metadata"]["finishedOn"]
        place = node.path.relative_to(artifact.workspace)
        print(f"{indent}{node.name}: {place}  sha256:{digest[:16]}  {finished}")
        for dependency in node.dependencies:
            if not dependency["uri"].startswith("artifacts/"):
                kind, value = next(iter(dependency["digest"].items()))
                print(f"{indent}  - {dependency['name']}: {dependency['uri']}  {kind}:{value[:16]}")
    return 0


def verify(path: Path) -> int:
    """Recompute the digests of an artifact and of all that it came from, and name what does not match.

    Returns:
        Exit code: 0 whole, 1 not.

    Raises:
        UserError: there is no artifact at the path.
    """
    if (path / RECORD).is_file():
        path = Artifact.load(path).path
    if not (path / LINEAGE).exists() and not (path / SUMS).exists():
        raise UserError(
            f"{path} is not an artifact; give the folder of one, <workspace>/artifacts/<stage>/<fingerprint>"
        )
    checked, problems = lineage.verify(path)
    for problem in problems:
        print(f"{problem.path}: {problem.message}", file=sys.stderr)
    if problems:
        print(f"{len(problems)} problems in a chain of {len(checked)} artifacts", file=sys.stderr)
        return 1
    print(f"{len(checked)} artifacts are as their lineage says, up to the raw demonstrations")
    return 0
