"""The pipeline `evaluate`: score a trained policy, build its leaderboard, and promote it on evidence.

0. settings: check all values together.
1. plan and evaluate: validation and reported instances.
2. leaderboard: score the reported instances, package the submission.
3. trial and evaluate: fresh rollouts of challenger and champion, until a test has an answer.
4. promote: replace the champion on evidence.
"""

from kfp import dsl

from components.evaluation.plan import REPORTED, VALIDATION
from components.runtime.declaration import LOOP
from pipelines.definitions.flow import Flow
from pipelines.definitions.profiles.profile import Profile


def evaluate_pipeline(profile: Profile) -> dsl.graph_component.GraphComponent:
    """Build the pipeline for a profile, which gives images, resources, parallelism and values."""
    flow = Flow("evaluate", profile)

    def body() -> None:
        plan = flow.task("plan", "Plan", splits=f"{VALIDATION} {REPORTED}", trained=flow.given["policy"])
        with dsl.ParallelFor(plan.outputs[LOOP], name="Evaluate", parallelism=profile.evaluations) as share:
            scored = flow.task("evaluate", "Evaluate", plan=plan.outputs["plan"], worker=share.worker)
        board = flow.task(
            "leaderboard",
            "Leaderboard",
            plan=plan.outputs["plan"],
            evaluations=dsl.Collected(scored.outputs["rollouts"]),
        )
        flow.promotion(board.outputs["leaderboard"], plan.outputs["plan"])

    return flow.pipeline_of(
        body,
        "evaluate-policy",
        "Evaluate",
        "Score a trained policy, build its leaderboard, and promote it on evidence.",
    )
