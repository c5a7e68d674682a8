"""A pipeline of one task in a container, for tests of `b1k run --containers`."""

from dataclasses import dataclass

from kfp import dsl

from components.runtime.declaration import Declaration
from components.settings.sections import PIPELINES, Section
from pipelines.definitions.applying import apply_profile
from pipelines.definitions.compiling import BUILDERS
from pipelines.definitions.profiles.profile import Profile

# what the task sees goes to a file; what it is told to do comes from its parameters
SCRIPT = """
import json, os, sys, time
from pathlib import Path
task = json.loads(sys.argv[2])
given = {"word": "hello", "seconds": 0, "code": 0}
given |= task["inputs"]["parameterValues"]["settings"]["look"]
print("line\\n" * 20_000, end="")
print("the task says", given["word"], flush=True)
def writable(folder):
    try:
        Path(folder, "written").write_text("")
    except OSError:
        return False
    return True
seen = {
    "user": os.getuid(),
    "network": sorted(os.listdir("/sys/class/net")),
    "environment": dict(os.environ),
    "read": Path(given["folder"], "file").read_text(),
    "writable": [writable(place) for place in ("/", "/tmp", given["folder"], given["champion"])],
}
Path(sys.argv[4], "seen.json").write_text(json.dumps(seen))
time.sleep(float(given["seconds"]))
if given["code"]:
    sys.exit(int(given["code"]))
output = Path(task["outputs"]["outputFile"])
output.parent.mkdir(parents=True, exist_ok=True)
output.write_text("{}")
"""


@dataclass(frozen=True)
class Config:
    """What the task is told."""

    folder: str = ""
    """A folder to read."""
    champion: str = ""
    """A folder to write."""
    word: str = "hello"
    """What to say."""
    seconds: float = 0.0
    """How long to stay."""
    code: int = 0
    """How to end."""


@dataclass(frozen=True)
class Inputs:
    """Nothing."""


def register() -> None:
    """Make the pipeline known; for a test's process."""
    PIPELINES["one"] = (Section("look", Declaration("look", Config, Inputs)),)  # type: ignore[index]
    BUILDERS["one"] = build  # type: ignore[index]


def build(profile: Profile) -> dsl.graph_component.GraphComponent:
    """A pipeline of one task in the image of the stage `plan`."""

    @dsl.container_component
    def look(artifact: dsl.Output[dsl.Artifact], settings: dict):
        return dsl.ContainerSpec(
            image="none",
            command=["python3", "-c", SCRIPT],
            args=[
                "--executor-input",
                dsl.PIPELINE_TASK_EXECUTOR_INPUT_PLACEHOLDER,
                "--workspace",
                profile.workspace,
            ],
        )

    @dsl.pipeline(name="one")
    def one(settings: dict = {}) -> None:  # noqa: B006 - the default goes into the IR
        task = look(settings=settings).set_env_variable("GIVEN", "by the pipeline")
        apply_profile(profile, task, "plan", "Look")

    return one
