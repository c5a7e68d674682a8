"""A pipeline of one task in a container, for tests of `b1k run --containers`."""

from kfp import dsl

from pipelines.definitions.profiles.profile import Profile

# what the task sees goes to a file; what it is told to do comes from its parameters
SCRIPT = """
import json, os, sys, time
from pathlib import Path
task = json.loads(sys.argv[2])
given = task["inputs"]["parameterValues"]
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
Path(given["workspace"], "seen.json").write_text(json.dumps(seen))
time.sleep(float(given["seconds"]))
if given["code"]:
    sys.exit(int(given["code"]))
output = Path(task["outputs"]["outputFile"])
output.parent.mkdir(parents=True, exist_ok=True)
output.write_text("{}")
"""


@dsl.container_component
def look(
    workspace: str,
    artifact: dsl.Output[dsl.Artifact],
    folder: str,
    champion: str,
    word: str,
    seconds: float,
    code: int,
):
    return dsl.ContainerSpec(
        image="none",
        command=["python3", "-c", SCRIPT],
        args=["--executor-input", dsl.PIPELINE_TASK_EXECUTOR_INPUT_PLACEHOLDER],
    )


def build(profile: Profile) -> dsl.graph_component.GraphComponent:
    """A pipeline of one task in the image of the stage `plan`."""

    @dsl.pipeline(name="one")
    def one(
        folder: str,
        champion: str,
        word: str = "hello",
        seconds: float = 0.0,
        code: int = 0,
        workspace: str = "/workspace",
    ) -> None:
        task = look(
            workspace=workspace, folder=folder, champion=champion, word=word, seconds=seconds, code=code
        )
        profile.apply(task, "plan", "Look")
        task.set_env_variable("GIVEN", "by the pipeline")

    return one
