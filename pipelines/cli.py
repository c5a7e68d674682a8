"""The command `b1k`.

Subcommands import what they need when they run: an image without kfp can still do `b1k train`.
"""

import importlib
import os
import sys
from collections.abc import Callable
from typing import Any, TypeVar

import tyro

from components.runtime.errors import UserError

T = TypeVar("T")
STAGES = ("news", "dataset", "statistics", "train", "plan", "evaluate", "group", "leaderboard", "promote")


def _options(kind: type[T], command: str, words: list[str]) -> T:
    return tyro.cli(kind, args=words, prog=f"b1k {command}", config=(tyro.conf.CascadeSubcommandArgs,))


def _demo(words: list[str]) -> int:
    from pipelines.tools import demo

    return demo.run(_options(demo.Options, "demo", words))


def _run(words: list[str]) -> int:
    from pipelines.local import run as local

    return local.run(_options(local.Options, "run", words))


def _pipeline(words: list[str]) -> int:
    from pipelines.cluster import commands as remote

    command: Any = remote.Command
    return remote.run(tyro.cli(command, args=words, prog="b1k pipeline", description=remote.__doc__))


def _doctor(words: list[str]) -> int:
    from pipelines.tools import doctor

    return doctor.run(_options(doctor.Options, "doctor", words))


def _estimate(words: list[str]) -> int:
    from pipelines.tools import estimate

    return estimate.run(_options(estimate.Options, "estimate", words))


def _checkpoint(words: list[str]) -> int:
    from pipelines.tools import exchange as checkpoints

    command: Any = checkpoints.Command
    chosen = tyro.cli(command, args=words, prog="b1k checkpoint", description=checkpoints.__doc__)
    return checkpoints.run(chosen)


def _serve(words: list[str]) -> int:
    sys.argv = ["b1k serve", *words]
    importlib.import_module("pi_behavior.policy.server").main()
    return 0


def _lineage(words: list[str]) -> int:
    from pipelines.tools import lineage as provenance

    command: Any = provenance.Command
    return provenance.run(tyro.cli(command, args=words, prog="b1k lineage", description=provenance.__doc__))


def _dataset(words: list[str]) -> int:
    if words[:1] != ["new"]:
        return _stage("dataset")(words)
    from components.demonstrations import news as new

    return new.run(_options(new.Options, "dataset new", words[1:]))


def _stage(name: str) -> Callable[[list[str]], int]:
    def run(words: list[str]) -> int:
        stage: Any = importlib.import_module(f"components.{name}.stage").STAGE
        stage.main(words)
        return 0

    return run


COMMANDS: dict[str, tuple[str, Callable[[list[str]], int]]] = {
    "demo": ("run the whole pipeline on this machine, from demonstrations to leaderboard", _demo),
    "run": ("run a pipeline on this machine, or continue one (--resume)", _run),
    "pipeline": ("compile, submit, schedule and watch pipelines on a cluster", _pipeline),
    "doctor": ("check a cluster, or this machine, before a run", _doctor),
    "estimate": ("GPU hours, storage and costs of a run", _estimate),
    "lineage": ("show, verify or draw what an artifact was made from", _lineage),
    "checkpoint": ("import, export or inspect a checkpoint, ours or a published one", _checkpoint),
    "serve": ("serve trained policies to an evaluator", _serve),
    "news": ("ask whether there are demonstrations that no policy was judged on", _stage("news")),
    "dataset": (
        "fetch and check a version of the demonstrations; `dataset new`: is there a newer one",
        _dataset,
    ),
    "statistics": ("compute the statistics of the demonstrations", _stage("statistics")),
    "train": ("train or fine-tune a policy", _stage("train")),
    "plan": ("plan an evaluation", _stage("plan")),
    "evaluate": ("do one worker's share of a plan", _stage("evaluate")),
    "group": ("split tasks into groups by validation score", _stage("group")),
    "leaderboard": ("score, package the submission, write the report", _stage("leaderboard")),
    "promote": ("replace the champion on evidence", _stage("promote")),
}


def usage() -> str:
    """The text of `b1k --help`."""
    width = max(map(len, COMMANDS))

    def lines(names: tuple[str, ...]) -> str:
        return "\n".join(f"  {name:<{width}}  {COMMANDS[name][0]}" for name in names)

    others = tuple(name for name in COMMANDS if name not in STAGES)
    return (
        "usage: b1k COMMAND [OPTIONS]; `b1k COMMAND --help` explains each\n\n"
        f"commands:\n{lines(others)}\n\n"
        "stages of the pipeline, also run one by one (in the order of the pipeline):\n"
        f"{lines(STAGES)}\n\n"
        "exit codes: 0 done, 1 a defect or failed task, 2 a mistake in the input, 130 interrupted"
    )


def main() -> None:
    """Run the command line."""
    words = sys.argv[1:]
    if not words or words[0] in ("-h", "--help", "help"):
        print(usage())
        sys.exit(0 if words else 2)
    name, *rest = words
    if name not in COMMANDS:
        print(f"b1k: there is no command {name!r}\n\n{usage()}", file=sys.stderr)
        sys.exit(2)
    try:
        sys.exit(COMMANDS[name][1](rest))
    except UserError as error:
        print(f"b1k {name}: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print(f"b1k {name}: interrupted", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:  # the reader, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)


if __name__ == "__main__":
    main()
