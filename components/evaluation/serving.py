"""The policy server in evaluations: its command line, and which policy serves which task."""

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path

from components.errors import UserError
from components.evaluation.plan import COMMON, Plan
from components.evaluation.records import ServedPolicy
from pi_behavior.policy.config import PolicyConfig

SERVER = "pi_behavior.policy.server"


def server_options(
    mapping: Path | str, host: str, port: int, policy: PolicyConfig | None = None, batch: int = 1
) -> list[str]:
    """Module and options of the policy server.

    Without a `policy` its settings are those of the mapping. The network is compiled for one size of `batch`:
    an answer is then the same whatever else is answered with it.
    """
    words = [SERVER, "--mapping", str(mapping), "--host", host, "--port", str(port)]
    words += ["--batch-sizes", str(batch)]
    default = PolicyConfig()
    for field in dataclasses.fields(default):
        name, value = field.name.replace("_", "-"), getattr(policy or default, field.name)
        if value == getattr(default, field.name):
            continue
        if isinstance(value, bool):
            words.append(f"--policy.{name}" if value else f"--policy.no-{name}")
        else:
            words += [f"--policy.{name}", str(value)]
    return words


def served_policies(plan: Plan, chosen: Mapping[str, str], workspace: str) -> dict[str, ServedPolicy]:
    """The common policy, and those that were `chosen` by task, as entries of the server's mapping.

    `workspace` is absolute or relative to the mapping's folder. UserError if the plan lacks a chosen policy.
    """
    unknown = set(chosen.values()) - plan.policies.keys()
    if unknown:
        raise UserError(
            f"the plan has no policy {', '.join(sorted(unknown))}, which was chosen; expected the plan of "
            "these rollouts"
        )
    served = {}
    for name, policy in plan.policies.items():
        tasks = tuple(sorted(task for task, best in chosen.items() if best == name))
        if tasks or name == COMMON:
            path = os.path.join(workspace, policy.checkpoint)
            served[name] = ServedPolicy(path, tasks, policy.artifact, policy.digest)
    return served
