"""`b1k rehearse`: play the official evaluators' clients against a policy server, before the organisers do."""

import sys
from dataclasses import dataclass
from typing import Literal
from urllib.parse import urlsplit

import tyro

from components.errors import UserError
from pi_behavior.challenge import DEFAULT_EDITION, edition, task
from pi_behavior.policy.rehearsal import Finding, Rehearsal, rehearse

_FPS = 30
_SIDES = {"default": (224, 224), "full": (720, 480)}
_LAST_PORT = 65535


@dataclass(frozen=True)
class Options:
    """Play the official evaluators' clients against a policy server, and say what would fail there.

    Health checks, connections, batches, replayed chunks, a lost connection, an environment at each port, and
    whether answers come within a rollout's budget. Exit code 1 where something would fail.
    """

    url: tyro.conf.Positional[str]
    """Address of the server's first port, such as ws://127.0.0.1:8000."""
    ports: int = 64
    """Ports to try, one after the other from that one on; 1 for a server with a single one."""
    environments: int = 10
    """Environments of the largest batch."""
    task_name: str = "turning_on_radio"
    """Task of the observations: one that the policy serves."""
    edition: str = DEFAULT_EDITION
    """Edition of the challenge: layout of the proprioception, and the time limit."""
    pictures: Literal["default", "full"] = "default"
    """default: 224 x 224; full: 720 x 720 of the head, 480 x 480 of the wrists."""
    depth: bool = False
    """Send depth pictures too."""
    queries: int = 4
    """Observations of every episode."""
    query_seconds: float = 600.0
    """The client's patience for an answer."""


def run(options: Options) -> int:
    """Print every check and its outcome; returns 1 if one failed."""
    plan = _plan(options)
    failed: list[Finding] = []
    for finding in rehearse(plan, on_check=lambda name: print(f"{name} ... ", end="", flush=True)):
        print(f"{finding.problem or 'good'} ({finding.seconds:.1f} s)", flush=True)
        failed += [finding] if finding.problem else []
    if failed:
        print(f"{len(failed)} checks failed: an evaluation would lose rollouts", file=sys.stderr)
    return 1 if failed else 0


def _plan(options: Options) -> Rehearsal:
    url = options.url if "//" in options.url else f"ws://{options.url}"
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
        chosen, played = edition(options.edition), task(options.task_name)
    except ValueError as error:
        raise UserError(str(error)) from error
    if not host or not port or parts.scheme not in ("ws", "http"):
        raise UserError(f"the address is {options.url!r}; expected ws://HOST:PORT")
    for name in ("ports", "environments", "queries"):
        if getattr(options, name) < 1:
            raise UserError(f"--{name} is {getattr(options, name)}; expected at least 1")
    if port + options.ports - 1 > _LAST_PORT:
        raise UserError(f"--ports {options.ports} from {port} on end above {_LAST_PORT}")
    return Rehearsal(
        host=host,
        port=port,
        ports=options.ports,
        environments=options.environments,
        edition=chosen,
        task=played.index,
        max_steps=int(chosen.time_limit * played.duration * _FPS),
        sides=_SIDES[options.pictures],
        depth=options.depth,
        queries=options.queries,
        query_seconds=options.query_seconds,
    )
