"""Runs a compiled pipeline with kfp.local, each task as a pod: `python engine.py REQUEST PLAN`.

PLAN is JSON: the namespace, the service account, and the stages of which one task is to crash once, or to
lose its pod, while it works. A lost pod is replaced, as Kubeflow does.
"""

import importlib.util
import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from pipelines.local import engine

_spec = importlib.util.spec_from_file_location("pods", Path(__file__).with_name("pods.py"))
pods = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(pods)

PLACE = "/workspace/kfp"
"""Where the pods see the pipeline root."""
_KILL = """
import os
for pid in filter(str.isdigit, os.listdir("/proc")):
    try:
        words, variables = (open(f"/proc/{pid}/{one}").read() for one in ("cmdline", "environ"))
    except OSError:
        continue
    if "B1K_ATTEMPT=1" in variables.split(chr(0)) and "components.STAGE" in words.split(chr(0)):
        print("killing", pid)
        os.kill(int(pid), 9)
"""
WORKS = {"train": "training common", "evaluate": "rollouts, as"}
"""What a stage writes when its work has begun."""


class PodTasks(engine.Tasks):
    """The running tasks, as pods."""

    def __init__(self, request: engine.Request) -> None:
        super().__init__(request)
        self.plan = json.loads(Path(sys.argv[2]).read_text())
        self.cluster = pods.Cluster(self.plan["namespace"])
        self.package = pods.Package(Path(request.package))

    def run(self, full_command: list[str], image: str, variables: Mapping[str, str]) -> int:
        """Run one task to its end, as a pod; returns its exit code."""
        stage = full_command[2].removeprefix("components.")
        given = json.loads(full_command[full_command.index(engine.FLAG) + 1])
        folder = Path(given["outputs"]["outputFile"]).parent
        container, settings = self.package.executor(full_command[:3])
        assert image == container["image"]
        seen = str(folder).replace(str(self.root), PLACE)
        words = [word.replace(str(self.root), PLACE) for word in full_command]
        key = "-".join(folder.relative_to(self.root).parts[1:])
        for number in range(1, 4):
            name = f"{key}-{number}-{time.time_ns() % 10**6}"
            pod = pods.manifest(name, container, settings, pods.launched(words, seen), self.plan["account"])
            self.cluster.create(pod)
            self._disturb(stage, name)
            code = self.cluster.wait(name)
            log = self.cluster.log(name)
            (Path(self.request.folder) / "logs").mkdir(exist_ok=True)
            printed = pods.unpack(log, folder)
            (Path(self.request.folder) / "logs" / f"{name}.log").write_text(printed)
            self._say(f"{name}: {'lost' if code is None else f'exit code {code}'}")
            if code is not None:
                break
        for file in folder.glob("*"):
            if file.is_file():
                file.write_text(file.read_text().replace(PLACE, str(self.root)))
        self.codes.append(1 if code is None else code)
        return self.codes[-1]

    def _disturb(self, stage: str, name: str) -> None:
        for kind in ("crash", "lose"):
            if self.plan.get(kind) != stage:
                continue
            while WORKS[stage] not in self.cluster.log(name):
                pod = self.cluster.read(name)
                assert pod is not None
                assert pod.status.phase in ("Pending", "Running"), self.cluster.log(name)
                time.sleep(1)
            del self.plan[kind]
            if kind == "lose":
                self._say(f"{name}: its pod is deleted")
                self.cluster.delete(name)
            else:
                said = self.cluster.execute(name, "python3", "-c", _KILL.replace("STAGE", stage))
                assert "killing" in said, said
                self._say(f"{name}: its program is killed")

    def _say(self, text: str) -> None:
        engine.append_json_line(Path(self.request.events), {"time": time.time(), "said": text})


if __name__ == "__main__":
    engine.Tasks = PodTasks
    sys.exit(engine.run_pipeline(engine.read(Path(sys.argv[1]), engine.Request, "written by the test")))
