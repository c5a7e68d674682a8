"""The pipeline `retrain`: on new demonstrations, from the champion to a challenger, and through promotion.

0. settings: check all values together.
1. news: is there a version of the demonstrations that no policy was judged on?
2. If so, all of `train_and_evaluate` on that version, its common policy starting from the champion's.

Without news it ends after step 1, which needs no GPU. It is meant to be scheduled.
"""

from kfp import dsl

from components.runtime.declaration import LOOP
from pipelines.definitions.flow import Flow
from pipelines.definitions.profiles.profile import Profile
from pipelines.definitions.train_and_evaluate import train_and_evaluate_pipeline


def retrain_pipeline(profile: Profile) -> dsl.graph_component.GraphComponent:
    """Build the pipeline for a profile, which gives images, resources, parallelism and values."""
    whole = train_and_evaluate_pipeline(profile, pipeline="retrain", checked=True)
    flow = Flow("retrain", profile)

    def body() -> None:
        news = flow.task("news", "News")
        new = {"revision": news.outputs["commit"], "initial_checkpoint": news.outputs["checkpoint"]}
        with dsl.If(news.outputs[LOOP] == "yes", name="If there is news"):
            inner = whole(**{**flow.given, **new})
            inner.set_display_name("Train and evaluate").set_caching_options(False)

    return flow.pipeline_of(
        body,
        "retrain",
        "Retrain",
        "Look for new demonstrations; if there are any, train from the champion, evaluate, promote.",
    )
