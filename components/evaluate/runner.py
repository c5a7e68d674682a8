"""A worker's processes: the policy server, one at a time, and the evaluators beside it."""

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from components.evaluate.config import Limits
from components.evaluate.process import Look, run_process
from components.evaluate.server import HOST, PolicyServer, ServerCommand, log_file
from components.evaluate.watch import Failure, Watch
from components.evaluation.evaluator import Evaluator, Order
from components.evaluation.plan import Plan
from components.evaluation.rollouts import Rollout, RolloutKey
from components.runtime.processes import Child


class Runner:
    """Starts evaluators for rollouts. Use it as a context manager: leaving stops the policy server."""

    def __init__(
        self,
        plan: Plan,
        evaluator: Evaluator,
        server: ServerCommand,
        *,
        name: str,
        workspace: Path,
        files: Path,
        logs: Path,
        limits: Limits,
        cgroup: Path,
        beat: Callable[[], None],
    ) -> None:
        """Prepare.

        `name` is the worker's, `files` the plan's artifact; `beat` is called often while something starts.
        """
        self.plan = plan
        self.evaluator = evaluator
        self.name = name
        self.logs = logs
        self.processes = 0
        """Evaluators that were started."""
        self._server_command = server
        self._workspace = workspace
        self._own = plan.files(files)
        self._limits = limits
        self._cgroup = cgroup
        self._beat = beat
        self._server: PolicyServer | None = None
        self.policy: str | None = None
        """The policy whose server runs."""

    def __enter__(self) -> "Runner":
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Stop the policy server."""
        if self._server is not None:
            self._server.__exit__(None, None, None)
            self._server = self.policy = None

    def serve(self, policy: str) -> PolicyServer:
        """The server of a policy, running; another policy's is stopped."""
        if self._server is None or self.policy != policy:
            self.stop()
            server = PolicyServer(
                policy,
                self._workspace / self.plan.policies[policy].checkpoint,
                sorted({job.task for job in self.plan.jobs if job.policy == policy}),
                self.plan.execution(policy).policy,
                self._server_command,
                log_file(self.logs, policy),
                self._limits.loading,
            )
            self._server, self.policy = server.__enter__(), policy
        self._server.ensure(self._beat)
        return self._server

    def run(self, wanted: Sequence[Rollout], output: Path, look: Callable[[Watch], Look]) -> Failure | None:
        """Run one process of the evaluator; None if it did what was wanted.

        Args:
            wanted: rollouts of one policy and task, in the order in which it is to do them.
            output: the folder for its results.
            look: called often; says what came of it.

        Raises:
            UserError: it does not accept its command line, or from `look`.
            ChildError: the policy server does not start.
        """
        key = wanted[0].key
        server = self.serve(key.policy)
        log = self.log(key)
        watch = Watch(server, log, self._limits)
        self.processes += 1
        command, environment = self._command(wanted, server, output), self._environment()
        with Child(f"the evaluator of {key.task}", command, log, environment=environment) as child:
            return run_process(
                child,
                watch,
                server,
                lambda: look(watch),
                limits=self._limits,
                cgroup=self._cgroup,
                say=self.say,
            )

    def log(self, key: RolloutKey) -> Path:
        """The log of the evaluators of a rollout's policy, split and task."""
        return self.logs / f"{key.policy.replace(':', '-')}-{key.split}-{key.task}.log"

    def say(self, text: str) -> None:
        """Tell people what happens."""
        print(f"{self.name}: {text}", file=sys.stderr, flush=True)

    def _environment(self) -> dict[str, str]:
        """Variables by which the evaluator finds the module of our wrapper."""
        if "wrapper" not in self._own:
            return {}
        places = (str(self._own["wrapper"].parent), os.environ.get("PYTHONPATH", ""))
        return {"PYTHONPATH": os.pathsep.join(filter(None, places))}

    def _command(self, wanted: Sequence[Rollout], server: PolicyServer, output: Path) -> list[str]:
        indices = tuple(dict.fromkeys(one.key.index for one in wanted))
        return self.evaluator.command(
            Order(
                task=wanted[0].key.task,
                split=wanted[0].key.split,
                indices=indices,
                rollouts=max(one.key.rollout for one in wanted) + 1,
                videos=tuple(dict.fromkeys(one.key.index for one in wanted if one.video is not None)),
                host=HOST,
                port=server.port,
                output=output,
                image_size=self.plan.image_size,
                action_chunk_size=self.plan.execution(wanted[0].key.policy).action_chunk_size,
                oracle_stage=self.plan.oracle_stage,
                environments=len(indices) if self.plan.environments else 0,
                wrapper=self.plan.wrapper,
                robot_config=str(self._own.get("robot_config", "")),
            )
        )
