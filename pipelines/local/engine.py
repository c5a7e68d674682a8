"""The child process in which kfp.local runs a compiled pipeline: `python -m pipelines.local.engine REQUEST`.

kfp.local replaces logging handlers and `print` of its process and writes its log to stdout, so it gets a
process of its own whose output goes to a file. Its subprocess runner refuses container components; our task
handler runs their commands with this interpreter. Events are written to a file of JSON lines, to which the
stages add their progress (`components/runtime/progress.py`).
"""

import json
import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

from components.runtime.declaration import ARTIFACT
from components.runtime.executor import FLAG, local_path
from components.runtime.processes import Child
from components.runtime.progress import EVENTS_VARIABLE, TASK_VARIABLE, append_json_line

_POLL = 0.05
_GRACE = 5.0


@dataclass(frozen=True)
class Request:
    """What to run."""

    package: str
    """The compiled pipeline."""
    arguments: Mapping[str, Any]
    folder: str
    """The run's folder: gets kfp's own files, and one log per task."""
    events: str
    """File of JSON lines: task started, progress, finished."""
    environment: Mapping[str, str]
    """Variables for the stages."""
    containers: Mapping[str, Any] | None = None
    """Fields of `containers.Setup`; without them tasks are processes of this machine."""

    def save(self, path: Path) -> None:
        """Write the request where `main` reads it."""
        path.write_text(json.dumps(asdict(self)))


class _Task(Protocol):
    """A task that was begun."""

    def wait(self) -> int:
        """Wait for its end; returns the exit code, negative for a signal."""

    def stop(self, grace: float) -> None:
        """End it, and what it left behind."""


class _Process(Child):
    """A task as a process of this machine."""

    def wait(self) -> int:
        """Wait for its end; returns the exit code, negative for a signal."""
        code = self.poll()
        while code is None:
            time.sleep(_POLL)
            code = self.poll()
        return code


class Tasks:
    """The running tasks of this process and how they ended."""

    def __init__(self, request: Request) -> None:
        self.request = request
        self.root = Path(request.folder) / "kfp"
        self.codes: list[int] = []
        self._running: dict[str, _Task] = {}
        self._lock = threading.Lock()
        self._stopping = False

    def run(self, full_command: list[str], image: str, variables: Mapping[str, str]) -> int:
        """Run one task's command to its end.

        Args:
            full_command: command and arguments of the container component, placeholders resolved.
            image: the component's image.
            variables: the task's environment variables in the pipeline; for containers.

        Returns:
            The exit code; negative for a signal.
        """
        executor_input = json.loads(full_command[full_command.index(FLAG) + 1])
        key = self._key(executor_input)
        log = Path(self.request.folder) / "logs" / f"{key.replace('/', '.')}.log"
        parameters = executor_input.get("inputs", {}).get("parameterValues", {})
        detail = f"worker {parameters['worker']}" if "worker" in parameters else parameters.get("name", "")
        environment = {**self.request.environment, TASK_VARIABLE: key, EVENTS_VARIABLE: self.request.events}
        with self._lock:
            if self._stopping:
                return -signal.SIGTERM
            if self.request.containers is None:
                task: _Task = _host_process(key, full_command, log, environment)
            else:
                task = self._container(full_command, image, log, {**variables, **environment})
            self._running[key] = task
        self._tell(key, event="started", log=str(log), detail=detail)
        code = task.wait()
        task.stop(_GRACE)
        with self._lock:
            del self._running[key]
            self.codes.append(code)
        self._tell(key, event="finished", code=code, **_outcome(executor_input, code))
        return code

    def stop(self) -> None:
        """End all running tasks and start no more."""
        self._stopping = True
        for task in list(self._running.values()):
            task.stop(_GRACE)

    def _key(self, executor_input: Mapping[str, Any]) -> str:
        """A task's place in the pipeline, such as `train` or `for-loop-1-iteration-0/evaluate`."""
        place = Path(executor_input["outputs"]["outputFile"]).relative_to(self.root)
        return "/".join(place.parts[1:-1])

    def _container(self, command: list[str], image: str, log: Path, environment: Mapping[str, str]) -> _Task:
        # a library that only these runs need
        from pipelines.local.containers import Container, Setup

        setup = Setup(**(self.request.containers or {}))
        return Container(setup, image, command, log, environment)

    def _tell(self, key: str, **facts: Any) -> None:
        append_json_line(Path(self.request.events), {"time": time.time(), "task": key, **facts})


def _host_process(
    key: str, full_command: Sequence[str], log: Path, environment: Mapping[str, str]
) -> _Process:
    program = sys.executable if full_command[0] == "python3" else full_command[0]
    return _Process(key, [program, *full_command[1:]], log, environment=environment)


def _outcome(executor_input: Mapping[str, Any], code: int) -> dict[str, Any]:
    """What the task reported of its artifact."""
    if code:
        return {"cached": False, "artifact": ""}
    output = json.loads(Path(executor_input["outputs"]["outputFile"]).read_text())
    written = output.get("artifacts", {}).get(ARTIFACT, {}).get("artifacts", [])
    if not written:
        return {"cached": False, "artifact": ""}
    facts = written[0].get("metadata", {})
    return {
        "cached": bool(facts.get("cached", False)),
        "artifact": facts.get("bulk_uri", str(local_path(written[0]["uri"]))),
    }


def run_pipeline(request: Request) -> int:
    """Run a compiled pipeline with kfp.local: 0, or the code of the first task that failed (killed: 1)."""
    # kfp warns that settings of the cluster have no effect here; that is the point of a profile
    warnings.simplefilter("ignore")
    from kfp import components, local
    from kfp.local import status, subprocess_task_handler

    tasks = Tasks(request)

    class TaskHandler(subprocess_task_handler.SubprocessTaskHandler):
        """Runs a container component's command on this machine, without or with its container."""

        tasks: ClassVar[Tasks]

        def validate_image(self, image: str) -> None:
            """Accept any image: those that are used were checked before the start."""

        def validate_not_container_component(self, full_command: list[str]) -> None:
            """Accept container components."""

        def run(self) -> status.Status:
            """Run the task."""
            code = tasks.run(self.full_command, self.image, self.env_vars)
            return status.Status.FAILURE if code else status.Status.SUCCESS

    def stop(number: int, frame: object) -> None:
        tasks.stop()
        os._exit(128 + number)

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    # looked up when a task starts
    subprocess_task_handler.SubprocessTaskHandler = TaskHandler
    local.init(
        local.SubprocessRunner(use_venv=False),
        pipeline_root=str(tasks.root),
        # kfp deletes this folder after the run: one of its own, never ours
        workspace_root=str(Path(request.folder) / "kfp-workspace"),
        raise_on_error=False,
    )
    components.load_component_from_file(request.package)(**request.arguments)
    failed = [code for code in tasks.codes if code]
    return (failed[0] if failed[0] > 0 else 1) if failed else 0


def main() -> None:
    """Run the request in the file that the command line names."""
    request = Request(**json.loads(Path(sys.argv[1]).read_text()))
    sys.exit(run_pipeline(request))


if __name__ == "__main__":
    main()
