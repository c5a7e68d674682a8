"""A small real stage for tests of the local runner: `python3 -m small_stage`, and pipelines of it.

Environment variables make it misbehave, so that its fingerprint stays the same.
"""

import os
import time
from dataclasses import dataclass

from kfp import dsl

from components.runtime.errors import UserError
from components.runtime.stage import Result, Stage, Work
from components.store.artifact import Artifact
from pipelines.definitions.loops import branches_on_answer, loops_over_items
from pipelines.definitions.profiles.profile import Profile


@dataclass(frozen=True)
class Config:
    """What to do."""

    name: str = "first"
    """Name."""
    number: int = 1
    """A number."""
    tasks: tuple[str, ...] = ()
    """Texts."""
    reply: str = ""
    """What to answer instead of items."""


@dataclass(frozen=True)
class Inputs:
    """What to read."""

    source: Artifact | None = None
    """One artifact."""
    many: tuple[Artifact, ...] = ()
    """Many artifacts."""


def run(config: Config, inputs: Inputs, work: Work) -> Result:
    """Write a file; count the calls in the workspace."""
    with (work.workspace / f"calls-{config.name}").open("a") as file:
        file.write(f"{os.getpid()}\n")
    if os.environ.get("REFUSE") == config.name:
        raise UserError(f"{config.name}: refused as the test wished")
    if os.environ.get("BREAK") == config.name:
        raise RuntimeError(f"{config.name}: broken as the test wished")
    if os.environ.get("CRASH") == config.name:
        os.abort()
    for _ in work.progress.track(range(3), "counting"):
        time.sleep(float(os.environ.get("SLEEP", "0")) if os.environ.get("SLOW") == config.name else 0)
    sources = [a for a in (inputs.source, *inputs.many) if a is not None]
    read = " ".join((a.path / "text").read_text() for a in sources)
    (work.path / "text").write_text(f"{config.name}{config.number}{''.join(config.tasks)}({read})")
    items = [{"name": "left", "tasks": "a b"}, {"name": "right", "tasks": "c"}]
    parameters = {"Output": config.reply or items, "word": "w"}
    return Result(metrics={"sources": len(sources)}, parameters=parameters)


# the name is that of an existing stage because the fingerprint looks at the source of components.<name>
STAGE = Stage("group", Config, Inputs, run, ())

ARGUMENTS = ["--executor-input", dsl.PIPELINE_TASK_EXECUTOR_INPUT_PLACEHOLDER, "--workspace"]
COMMAND = ["python3", "-m", "small_stage"]


@loops_over_items
@dsl.container_component
def first(
    workspace: str,
    artifact: dsl.Output[dsl.Artifact],
    metrics: dsl.Output[dsl.Metrics],
    items: dsl.OutputPath(list),
    name: str = "first",
    number: int = 1,
):
    return dsl.ContainerSpec(image="none", command=COMMAND, args=[*ARGUMENTS, workspace])


@dsl.container_component
def middle(
    workspace: str,
    source: dsl.Input[dsl.Artifact],
    artifact: dsl.Output[dsl.Artifact],
    name: str = "middle",
    tasks: str = "",
    number: int = 1,
):
    return dsl.ContainerSpec(image="none", command=COMMAND, args=[*ARGUMENTS, workspace])


@dsl.container_component
def last(
    workspace: str,
    many: dsl.Input[list[dsl.Artifact]],
    artifact: dsl.Output[dsl.Artifact],
    name: str = "last",
    tasks: str = "",
):
    return dsl.ContainerSpec(image="none", command=COMMAND, args=[*ARGUMENTS, workspace])


@branches_on_answer
@dsl.container_component
def ask(
    workspace: str,
    artifact: dsl.Output[dsl.Artifact],
    answer: dsl.OutputPath(str),
    word: dsl.OutputPath(str),
    name: str = "ask",
    reply: str = "",
):
    return dsl.ContainerSpec(image="none", command=COMMAND, args=[*ARGUMENTS, workspace])


def build(profile: Profile) -> dsl.graph_component.GraphComponent:
    """A pipeline: first, a loop over what it returns, last."""

    @dsl.pipeline(name="small")
    def small(number: int = 1, word: str = "", workspace: str = "/workspace") -> None:
        start = first(workspace=workspace, number=number)
        profile.apply(start, "first", "First")
        with dsl.ParallelFor(start.outputs["Output"], name="Middle", parallelism=2) as item:
            inner = middle(
                workspace=workspace,
                source=start.outputs["artifact"],
                name=item.__getattr__("name"),
                tasks=item.tasks,
                number=number,
            )
            profile.apply(inner, "middle", "Middle")
        end = last(workspace=workspace, many=dsl.Collected(inner.outputs["artifact"]), tasks=word)
        profile.apply(end, "last", "Last")

    return small


def build_branching(profile: Profile) -> dsl.graph_component.GraphComponent:
    """A pipeline: ask, and the small pipeline only if the answer is yes."""
    small = build(profile)

    @dsl.pipeline(name="branching")
    def branching(answer: str = "no", number: int = 1, workspace: str = "/workspace") -> None:
        question = ask(workspace=workspace, reply=answer)
        profile.apply(question, "ask", "Ask")
        with dsl.If(question.outputs["Output"] == "yes", name="If yes"):
            small(workspace=workspace, number=number, word=question.outputs["word"])

    return branching


if __name__ == "__main__":
    STAGE.main()
