"""Versions of a pipeline on a server: uploaded once, and then referred to by runs and schedules."""

import hashlib
import os
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from components.store.identity import git_commit
from pipelines.cluster.server import Server


@dataclass(frozen=True)
class Version:
    """A version of a pipeline on a server."""

    pipeline: str
    """ID of the pipeline."""
    id: str
    """ID of the version."""
    name: str
    """What both are called in the UI: `train-and-evaluate-h200x8, version 0a1b2c3d4e5f-20261127-205021`."""


def ensure(server: Server, pipeline: str, profile: str, package: Path) -> Version:
    """Find the version that is this compiled pipeline, or upload it.

    Args:
        server: where to.
        pipeline: name of the pipeline.
        profile: name of the profile.
        package: the compiled pipeline.
    """
    # Kubernetes may have to store it under this name
    name = f"{pipeline}-{profile}".replace("_", "-")
    content = package.read_bytes()
    digest = f"sha256 {hashlib.sha256(content).hexdigest()}"
    parent = server.pipeline(name)
    for one in server.versions(parent):
        if digest in str(one.get("description")):
            called = one.get("display_name") or one.get("name")
            return Version(parent, str(one.get("pipeline_version_id")), f"{name}, version {called}")
    commit = os.environ.get("B1K_GIT_COMMIT") or git_commit() or "unknown"
    version = f"{commit[:12]}-{datetime.now(UTC):%Y%m%d-%H%M%S}"
    description = f"commit {commit}, profile {profile}, {digest}"
    made = server.upload(parent, content, version, description, commit=commit, profile=profile)
    return Version(parent, made, f"{name}, version {version}")
