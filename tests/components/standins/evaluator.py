"""Stands in for a simulator: takes the 2026 evaluator's command line, writes its files, and fails on demand.

Beside a copy of this program lie `faults.json`, which says how the starts of an instance fail one after the
other, `outcome.json` and `video.mp4`. A fault is marked by a file before it happens, so it happens once.
"""

import argparse
import importlib
import json
import os
import signal
import sys
import time
import urllib.request
from pathlib import Path

HERE = Path(__file__).parent
STEPS = 3


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    for name in ("task-name", "host", "port", "mode", "output-dir", "image-size"):
        parser.add_argument("--" + name)
    for name in ("env-wrapper", "robot-config"):
        parser.add_argument("--" + name, default="")
    parser.add_argument("--instance-indices", nargs="+", type=int)
    parser.add_argument("--num-rollouts", type=int)
    parser.add_argument("--num-envs", type=int, default=0)
    parser.add_argument("--replay-action-chunk-size", type=int, default=0)
    for name in ("video-every", "video-size"):
        parser.add_argument("--" + name, type=int)
    parser.add_argument("--video-indices", nargs="+", type=int)
    for name in ("headless", "write-video", "oracle-stage"):
        parser.add_argument("--" + name, action="store_true")
    return parser.parse_args()


class Evaluator:
    def __init__(self, args: argparse.Namespace) -> None:
        self.args, self.output = args, Path(args.output_dir)
        self.faults = json.loads((HERE / "faults.json").read_text())
        self.finished = 0

    def ask(self, path: str) -> str:
        with urllib.request.urlopen(f"http://{self.args.host}:{self.args.port}{path}") as answer:
            return answer.read().decode()

    def due(self, name: str, instance: int) -> str:
        """The fault that happens now, or nothing; a finished rollout that is done once more has its own."""
        again = self.output.name == "control"
        todo = self.faults.get("control" if again else str(instance), [])
        name = "control" if again else name
        marks = list(HERE.glob(f"fault-{name}-*"))
        if len(marks) >= len(todo):
            return ""
        (HERE / f"fault-{name}-{len(marks)}").touch()
        print("fault", todo[len(marks)], flush=True)
        return todo[len(marks)]

    def fail(self, fault: str) -> None:
        """Faults of this process or of the server, in the middle of a rollout."""
        if fault in ("SIGSEGV", "SIGKILL", "SIGSTOP"):
            os.kill(os.getpid(), getattr(signal, fault))
        if fault == "usage":
            sys.exit(2)
        if fault == "exit":
            sys.exit(0)
        while fault == "hang":
            print("Current step: 1000, and I have much to say", flush=True)
            time.sleep(0.05)
        if fault.startswith("server-SIG"):
            os.kill(int(self.ask("/pid")), getattr(signal, fault.removeprefix("server-")))
        elif fault.startswith("server-"):
            self.ask("/" + fault.removeprefix("server-"))

    def write(self, name: str, instance: int, rollout: int, fault: str) -> None:
        path, video = self.output / "json" / f"{name}.json", self.output / "videos" / f"{name}.mp4"
        text = (HERE / "outcome.json").read_text().replace("666", str(instance)).replace("777", str(rollout))
        content = (HERE / "video.mp4").read_bytes()
        if fault == "torn json":
            path.write_text(text[: len(text) // 2])
            return
        if fault == "unknown json":
            text = text.replace("q_score", "quality")
        if fault == "policy failed":
            text = text[:-1] + ', "failure_reason": "policy_connection_lost"}'
        chosen = self.args.video_indices
        if self.args.write_video and (chosen is None or instance - 301 in chosen) and fault != "no mp4":
            video.write_bytes(content[: len(content) // 2] if fault == "torn mp4" else content)
        aside = path.with_suffix(".aside")
        aside.write_text(text)
        aside.rename(path)
        self.finished += 1
        if (HERE / "memory.stat").exists():  # as if it leaked
            (HERE / "memory.current").write_text(str(40 * self.finished))

    def run(self) -> None:
        for folder in ("json", "videos"):
            (self.output / folder).mkdir(parents=True, exist_ok=True)
        if (HERE / "memory.stat").exists():
            (HERE / "memory.current").write_text("0")
        first = 0 if self.args.mode == "train" else 301
        for instance in (first + index for index in self.args.instance_indices):
            for rollout in range(self.args.num_rollouts):
                name = f"{self.args.task_name}_{instance}_{rollout}"
                if (self.output / "json" / f"{name}.json").exists():
                    continue
                fault = self.due(name, instance)
                for _ in range(STEPS):
                    assert self.ask("/act") == "OK"
                    self.fail(fault)
                time.sleep(self.faults.get("seconds", 0))
                self.write(name, instance, rollout, fault)
                print("rollout", name, flush=True)


if __name__ == "__main__":
    args = parse()
    with (HERE / "starts").open("a") as file:
        file.write(
            json.dumps({"indices": args.instance_indices, "oracle": args.oracle_stage, "envs": args.num_envs})
            + "\n"
        )
    if args.env_wrapper:  # the official one imports it too
        module, _, name = args.env_wrapper.rpartition(".")
        getattr(importlib.import_module(module), name)(Path(args.robot_config).read_text())
    evaluator = Evaluator(args)
    evaluator.run()
    if evaluator.faults.get("linger"):
        time.sleep(100)
