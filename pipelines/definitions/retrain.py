"""The pipeline `retrain`: on new demonstrations, from the champion to a challenger, and through promotion.

1. news: is there a version of the demonstrations that no policy was judged on?
2. If so, all of `train_and_evaluate` on that version, its common policy starting from the champion's.

Without news it ends after the first step, which needs no GPU. Made to be scheduled.
"""

import inspect
from typing import Any

from kfp import dsl

from components.news.component import news
from pipelines.definitions.profiles.profile import Profile
from pipelines.definitions.train_and_evaluate import train_and_evaluate_pipeline

NAME = "retrain"
_SUMMARY = "Look for new demonstrations; if there are any, train from the champion, evaluate, promote."
_SINCE = "Version of the demonstrations to compare with; empty for what the champion and its challengers saw."
_CHECKPOINT = "Folder of a checkpoint to start from where there is no champion; empty for random values."


def retrain_pipeline(profile: Profile) -> dsl.graph_component.GraphComponent:
    """Build the pipeline for a profile, which gives images, resources and parallelism of its steps.

    Its inputs are those of `train_and_evaluate`, and `since`.
    """
    whole = train_and_evaluate_pipeline(profile)
    inputs = dict(inspect.signature(whole.pipeline_func).parameters)
    # step 0 of a warm start is the champion, which has its scores already
    inputs["untrained"] = inputs["untrained"].replace(default=False)
    inputs["since"] = inspect.Parameter(
        "since", inspect.Parameter.POSITIONAL_OR_KEYWORD, default="", annotation=str
    )

    def retrain(*values: Any) -> None:
        given = dict(zip(inputs, values, strict=True))
        look = news(**{name: given[name] for name in (*_NEWS, "initial_checkpoint")})
        profile.apply(look, "news", "News")
        del given["since"]
        given["revision"] = look.outputs["commit"]
        given["initial_checkpoint"] = look.outputs["checkpoint"]
        with dsl.If(look.outputs["Output"] == "yes", name="If there is news"):
            whole(**given).set_display_name("Train and evaluate").set_caching_options(False)

    retrain.__signature__ = inspect.Signature(list(inputs.values()))  # type: ignore[attr-defined]
    retrain.__doc__ = _documentation(whole.pipeline_func.__doc__ or "")
    decorate = dsl.pipeline(name=NAME, display_name="Retrain", description=_SUMMARY)
    return decorate(retrain)


_NEWS = ("workspace", "repository", "revision", "path", "remote", "since", "champion")


def _documentation(whole: str) -> str:
    """The docstring of `train_and_evaluate`, with what is different here."""
    arguments = inspect.cleandoc(whole).partition("Args:\n")[2]
    before, mark, rest = arguments.partition("    initial_checkpoint: ")
    after = rest[rest.index("\n    steps: ") :]
    return f"{_SUMMARY}\n\nArgs:\n    since: {_SINCE}\n{before}{mark}{_CHECKPOINT}{after}"
