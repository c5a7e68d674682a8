"""The command `b1k`.

Subcommands import what they need when they run: an image without kfp can still do `b1k train`.
"""

import importlib
import os
import sys
from typing import Any

import tyro

from components.errors import UserError

COMMANDS = {
    "demo": ("run the whole pipeline on this machine, from demonstrations to leaderboard", "tools.demo"),
    "run": ("run a pipeline on this machine, or continue one (--resume)", "local.run"),
    "pipeline": ("compile, submit, schedule and watch pipelines on a cluster", "cluster.commands"),
    "doctor": ("check a cluster, or this machine, before a run", "tools.doctor"),
    "estimate": ("GPU hours, storage and costs of a run", "tools.estimate"),
    "lineage": ("show, verify, sign or draw what an artifact was made from", "tools.lineage"),
    "compare": ("compare two leaderboards, as promotion does", "tools.compare"),
    "champion": (
        "list the champions, or go back to one: `champion list`, `champion rollback`",
        "tools.champion",
    ),
    "report": ("open a report, build it with labels; export, import and compare labels", "tools.report"),
    "results": ("serve all results of a workspace in the browser: `results serve`", "tools.results"),
    "gc": ("remove artifacts that nothing needs any more", "tools.garbage"),
    "checkpoint": ("import, export or inspect a checkpoint, ours or a published one", "tools.exchange"),
    "serve": ("serve trained policies to an evaluator", ""),
    "rehearse": ("play the official evaluators' clients against a policy server", "tools.rehearse"),
}
"""What each command does, and its module in `pipelines`."""
STAGES = {
    "news": "ask whether there are demonstrations that no policy was judged on yet",
    "collect": "collect demonstrations in the household simulator",
    "dataset": "fetch and check demonstrations; also `dataset import`, `dataset new`, `dataset show`",
    "prepare": "copy the demonstrations for training: small pictures that decode quickly",
    "statistics": "compute the statistics of the demonstrations",
    "train": "train or fine-tune a policy; `train --plan`: does it fit, and how fast is it",
    "plan": "plan an evaluation",
    "evaluate": "run one worker's share of a plan",
    "group": "split tasks into groups by validation score",
    "leaderboard": "score, package the submission, write the report; `leaderboard check`: check a submission",
    "trial": "draw fresh rollouts of a challenger and the champion",
    "promote": "replace the champion on evidence",
    "notify": "tell by a webhook how a run on a cluster ended",
}


def _command(module: str, name: str, words: list[str]) -> int:
    """Run a command whose module has `run` and its `Options`, or as `Command` those of its subcommands."""
    found: Any = importlib.import_module(module)
    if hasattr(found, "Command"):
        chosen = tyro.cli(found.Command, args=words, prog=f"b1k {name}", description=found.__doc__)
    else:
        config = (tyro.conf.CascadeSubcommandArgs,)
        chosen = tyro.cli(found.Options, args=words, prog=f"b1k {name}", config=config)
    return int(found.run(chosen))


def _run(name: str, words: list[str]) -> int:
    if name == "serve":
        sys.argv = ["b1k serve", *words]
        importlib.import_module("pi_behavior.policy.server").main()
        return 0
    if name == "dataset" and words[:1] == ["new"]:
        return _command("components.demonstrations.news", "dataset new", words[1:])
    if name == "dataset" and words[:1] == ["show"]:
        return _command("pipelines.tools.show", "dataset show", words[1:])
    if name == "dataset" and words[:1] == ["import"]:
        return _command("components.demonstrations.importing", "dataset import", words[1:])
    if name == "leaderboard" and words[:1] == ["check"]:
        return _command("components.leaderboard.check", "leaderboard check", words[1:])
    if name == "train" and "--plan" in words:
        rest = [word for word in words if word != "--plan"]
        return _command("pipelines.tools.plan", "train --plan", rest)
    if name in STAGES:
        importlib.import_module(f"components.{name}.stage").STAGE.main(words)
    return _command(f"pipelines.{COMMANDS[name][1]}", name, words)


def usage() -> str:
    """The text of `b1k --help`."""
    texts = {name: text for name, (text, _) in COMMANDS.items()}
    width = max(map(len, (*texts, *STAGES)))

    def lines(commands: dict[str, str]) -> str:
        return "\n".join(f"  {name:<{width}}  {text}" for name, text in commands.items())

    return (
        "usage: b1k COMMAND [OPTIONS]; `b1k COMMAND --help` explains each\n\n"
        f"commands:\n{lines(texts)}\n\n"
        "stages of the pipeline, also run one by one (in the order of the pipeline):\n"
        f"{lines(STAGES)}\n\n"
        "exit codes: 0 done, 1 a defect or failed task, 2 a mistake in the input, 75 an error that "
        "passes (a pipeline tries the stage again), 130 interrupted"
    )


def main() -> None:
    """Run the command line."""
    words = sys.argv[1:]
    if not words or words[0] in ("-h", "--help", "help"):
        print(usage())
        sys.exit(0 if words else 2)
    name, *rest = words
    if name not in COMMANDS and name not in STAGES:
        print(f"b1k: there is no command {name!r}\n\n{usage()}", file=sys.stderr)
        sys.exit(2)
    try:
        sys.exit(_run(name, rest))
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
