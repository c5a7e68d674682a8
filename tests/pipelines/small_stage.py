"""A small real stage for tests of the local runner: `python3 -m small_stage`, and pipelines of it.

Environment variables make it misbehave, so that its fingerprint stays the same.
"""

import os
import time
from dataclasses import dataclass, field

from kfp import dsl

from components.errors import UserError
from components.runtime.declaration import LOOP, Declaration
from components.runtime.stage import Result, Stage, Work
from components.runtime.values import PER_TASK
from components.settings.sections import DECLARATIONS, PIPELINES, Section
from components.store.artifact import Artifact
from pipelines.definitions.compiling import BUILDERS
from pipelines.definitions.flow import Flow
from pipelines.definitions.profiles.profile import Profile


@dataclass(frozen=True)
class Config:
    """What to do."""

    name: str = field(default="first", metadata=PER_TASK)
    """Name."""
    number: int = 1
    """A number."""
    words: tuple[str, ...] = field(default=(), metadata=PER_TASK)
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
    (work.path / "text").write_text(f"{config.name}{config.number}{''.join(config.words)}({read})")
    items = [{"name": "left", "words": "a b"}, {"name": "right", "words": "c"}]
    parameters = {LOOP: config.reply if config.name == "ask" else items, "word": "w"}
    return Result(metrics={"sources": len(sources)}, parameters=parameters)


DECLARATION = Declaration("small", Config, Inputs)
STAGE = Stage(DECLARATION, run)


def register() -> None:
    """Make the pipelines known; for a test's process."""
    for name, outputs in (
        ("first", {LOOP: list}),
        ("middle", {}),
        ("last", {}),
        ("ask", {LOOP: str, "word": str}),
    ):
        DECLARATIONS[name] = Declaration(name, Config, Inputs, outputs=outputs)  # type: ignore[index]
    for name, builder in (("small", build), ("branching", build_branching)):
        PIPELINES[name] = (Section("small", DECLARATION),)  # type: ignore[index]
        BUILDERS[name] = builder  # type: ignore[index]


def build(profile: Profile, word: object = "", pipeline: str = "small") -> dsl.graph_component.GraphComponent:
    """A pipeline: first, a loop over what it returns, last."""
    flow = Flow(pipeline, profile, checked=True)

    def body() -> None:
        section = {"sections": ("small",)}
        start = flow.task("first", "First", name="first", **section)
        with dsl.ParallelFor(start.outputs[LOOP], name="Middle", parallelism=2) as item:
            inner = flow.task(
                "middle",
                "Middle",
                source=start.outputs["artifact"],
                name=item.__getattr__("name"),
                words=item.words,
                **section,
            )
        flow.task("last", "Last", name="last", many=dsl.Collected(inner.outputs["artifact"]), **section)

    return flow.pipeline_of(body, "small-pipeline", "Small", "A small pipeline.")


def build_branching(profile: Profile) -> dsl.graph_component.GraphComponent:
    """A pipeline: ask, and the small pipeline only if the answer is yes."""
    small = build(profile, pipeline="branching")
    flow = Flow("branching", profile, checked=True)

    def body() -> None:
        question = flow.task("ask", "Ask", name="ask", sections=("small",))
        with dsl.If(question.outputs[LOOP] == "yes", name="If yes"):
            small(**flow.given)

    return flow.pipeline_of(body, "branching-pipeline", "Branching", "A pipeline inside a condition.")


if __name__ == "__main__":
    STAGE.main()
