"""The pipeline `demo`: collect demonstrations in the household simulator, then all of `train_and_evaluate`.

It needs nothing but the household image, so it is a first run on any cluster; `b1k demo` runs it on a laptop.
"""

from kfp import dsl

from pipelines.definitions.flow import Flow
from pipelines.definitions.profiles.profile import Profile
from pipelines.definitions.train_and_evaluate import add_tasks


def demo_pipeline(profile: Profile) -> dsl.graph_component.GraphComponent:
    """Build the pipeline for a profile, which gives images, resources, parallelism and values."""
    flow = Flow("demo", profile)

    def body() -> None:
        collected = flow.task("collect", "Collect")
        add_tasks(flow, revision=collected.outputs["commit"])

    return flow.pipeline_of(
        body,
        "household-demo",
        "Demo",
        "Collect demonstrations in the household simulator, train, evaluate, promote.",
    )
