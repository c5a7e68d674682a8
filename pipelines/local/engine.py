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
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.evaluation.records import read, write
from components.runtime.executor import FLAG
from components.runtime.processes import Child
from components.runtime.progress import EVENTS_VARIABLE, TASK_VARIABLE, append_json_line
from pipelines.local.containers import Container, Setup

_POLL = 0.05
_GRACE = 5.0


@dataclass(frozen=True)
class Request:
    """What to run."""

    package: str
    """The compiled pipeline."""
    arguments: dict[str, Any]
    folder: str
    """The run's folder: gets kfp's own files, and one log per task."""
    events: str
    """File of JSON lines: task started, progress, finished."""
    environment: dict[str, str]
    """Variables for the stages."""
    containers: Setup | None = None
    """None where tasks are processes of this machine."""

    def save(self, path: Path) -> None:
        """Write the request where `main` reads it."""
        write(path, self)


class _Process(Child):
    """A task as a process of this machine."""

    def wait(self) -> int:
        """Wait for its end; returns the exit code, negative for a signal."""
        while (code := self.poll()) is None:
            time.sleep(_POLL)
        return code


class Tasks:
    """The running tasks of this process and how they ended."""

    def __init__(self, request: Request) -> None:
        self.request = request
        self.root = Path(request.folder) / "kfp"
        self.codes: list[int] = []
        self._running: dict[str, _Process | Container] = {}
        self._lock = threading.Lock()
        self._stopping = False

    def run(self, full_command: list[str], image: str, variables: Mapping[str, str]) -> int:
        """Run one task to its end; returns its exit code, negative for a signal.

        `full_command` has its placeholders resolved; `variables` are those of the pipeline, for containers.
        """
        executor_input = json.loads(full_command[full_command.index(FLAG) + 1])
        output = Path(executor_input["outputs"]["outputFile"])
        # its place in the pipeline, such as `train` or `for-loop-1-iteration-0/evaluate`
        key = "/".join(output.relative_to(self.root).parts[1:-1])
        log = Path(self.request.folder) / "logs" / f"{key.replace('/', '.')}.log"
        parameters = executor_input.get("inputs", {}).get("parameterValues", {})
        detail = f"worker {parameters['worker']}" if "worker" in parameters else parameters.get("name", "")
        environment = {**self.request.environment, TASK_VARIABLE: key, EVENTS_VARIABLE: self.request.events}
        setup = self.request.containers
        with self._lock:
            if self._stopping:
                return -signal.SIGTERM
            task: _Process | Container
            if setup is None:
                program = sys.executable if full_command[0] == "python3" else full_command[0]
                task = _Process(key, [program, *full_command[1:]], log, environment=environment)
            else:
                task = Container(setup, image, full_command, log, {**variables, **environment})
            self._running[key] = task
        self._tell(key, event="started", log=str(log), detail=detail)
        code = task.wait()
        task.stop(_GRACE)
        with self._lock:
            del self._running[key]
            self.codes.append(code)
        self._tell(
            key, event="finished", code=code, **_outcome({} if code else json.loads(output.read_text()))
        )
        return code

    def stop(self) -> None:
        """End all running tasks and start no more."""
        self._stopping = True
        for task in list(self._running.values()):
            task.stop(_GRACE)

    def _tell(self, key: str, **facts: Any) -> None:
        append_json_line(Path(self.request.events), {"time": time.time(), "task": key, **facts})


def _outcome(output: Mapping[str, Any]) -> dict[str, Any]:
    """What a task reported of its artifact."""
    written = [one for group in output.get("artifacts", {}).values() for one in group.get("artifacts", [])]
    for facts in (one.get("metadata", {}) for one in written):
        if "bulk_uri" in facts:  # metrics and pages have none
            return {"cached": bool(facts.get("cached", False)), "artifact": facts["bulk_uri"]}
    return {"cached": False, "artifact": ""}


def run_pipeline(request: Request) -> int:
    """Run a compiled pipeline with kfp.local: 0, or the code of the first task that failed (killed: 1)."""
    # kfp warns that settings of the cluster have no effect here; that is the point of a profile
    warnings.simplefilter("ignore")
    from kfp import components, local
    from kfp.local import status, subprocess_task_handler

    tasks = Tasks(request)

    class TaskHandler(subprocess_task_handler.SubprocessTaskHandler):
        """Runs a container component's command on this machine, without or with its container."""

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
    first = next((code for code in tasks.codes if code), 0)
    return 1 if first < 0 else first


if __name__ == "__main__":
    sys.exit(run_pipeline(read(Path(sys.argv[1]), Request, "it is written by `b1k run`")))
