"""The pipeline `train_and_evaluate`: from demonstrations to leaderboard and champion.

0. settings: check all values together.
1. dataset: bring a version of the demonstrations and check it.
   prepare: copy it for training.
2. statistics: normalisation, noise correlation, human means.
3. train: the common policy on all tasks.
4. plan and evaluate: the common policy on validation instances.
5. group: split the tasks by validation score.
6. train: one policy per group, from the common one.
7. plan and evaluate: the groups' policies, the common and the untrained one.
8. leaderboard: choose a policy per task on validation, score the reported instances.
9. trial and evaluate: fresh rollouts of challenger and champion, until a test has an answer.
10. promote: replace the champion on evidence.

It avoids whatever kfp.local and the cluster do differently: `dag_rules.py` has the rules.
"""

from typing import Any

from kfp import dsl

from components.evaluation.plan import REPORTED, VALIDATION
from components.runtime.declaration import LOOP
from pipelines.definitions.flow import Flow
from pipelines.definitions.profiles.profile import Profile


def train_and_evaluate_pipeline(
    profile: Profile, *, pipeline: str = "train_and_evaluate", checked: bool = False
) -> dsl.graph_component.GraphComponent:
    """Build the pipeline for a profile, which gives images, resources, parallelism and values.

    As a part of another pipeline it has the inputs and values of that one, which may have `checked` them.
    """
    flow = Flow(pipeline, profile, checked=checked)
    return flow.pipeline_of(
        lambda: add_tasks(flow),
        "train-and-evaluate",
        "Train and evaluate",
        "From demonstrations to leaderboard: train, fine-tune per task group, evaluate, promote.",
    )


def add_tasks(flow: Flow, **source: Any) -> None:
    """Add all tasks from the demonstrations on; `source` is what an earlier task says of their version."""
    profile = flow.profile
    data = flow.task("dataset", "Dataset", **source).outputs["dataset"]
    prepared = flow.task("prepare", "Prepare", dataset=data).outputs["training_copy"]
    statistics = flow.task("statistics", "Statistics", dataset=data).outputs["statistics"]
    common = flow.task(
        "train",
        "Train common",
        dataset=data,
        prepared=prepared,
        statistics=statistics,
        name="common",
        keep_initial=True,
    ).outputs["policy"]
    first = flow.task("plan", "Plan validation", common=common, splits=VALIDATION)
    with dsl.ParallelFor(
        first.outputs[LOOP], name="Evaluate common", parallelism=profile.evaluations
    ) as share:
        validation = flow.task("evaluate", "Evaluate common", plan=first.outputs["plan"], worker=share.worker)
    groups = flow.task("group", "Group", rollouts=dsl.Collected(validation.outputs["rollouts"]))
    with dsl.ParallelFor(groups.outputs[LOOP], name="Train groups", parallelism=profile.trainings) as group:
        tuned = flow.task(
            "train",
            "Train group",
            sections=("train", "finetune"),
            dataset=data,
            prepared=prepared,
            statistics=statistics,
            initial=common,
            # `.name` would be the name of the SDK's own object
            name=group.__getattr__("name"),
            tasks=group.tasks,
            steps=flow.given["group_steps"],
            initial_checkpoint="",
            keep_initial=False,
        )
    second = flow.task(
        "plan",
        "Plan reported",
        common=common,
        groups=dsl.Collected(tuned.outputs["policy"]),
        splits=f"{VALIDATION} {REPORTED}",
    )
    with dsl.ParallelFor(
        second.outputs[LOOP], name="Evaluate groups", parallelism=profile.evaluations
    ) as share:
        reported = flow.task("evaluate", "Evaluate groups", plan=second.outputs["plan"], worker=share.worker)
    board = flow.task(
        "leaderboard",
        "Leaderboard",
        plan=second.outputs["plan"],
        evaluations=dsl.Collected(reported.outputs["rollouts"]),
        validation=dsl.Collected(validation.outputs["rollouts"]),
    )
    flow.promotion(board.outputs["leaderboard"], second.outputs["plan"])
