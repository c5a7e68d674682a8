"""The Kubeflow component of the stage leaderboard."""

from kfp import dsl

from pipelines.definitions.images import image


@dsl.container_component
def leaderboard(
    workspace: str,
    plan: dsl.Input[dsl.Artifact],
    reported: dsl.Input[list[dsl.Artifact]],
    models: dsl.Input[dsl.Model],
    artifact: dsl.Output[dsl.Artifact],
    metrics: dsl.Output[dsl.Metrics],
    html: dsl.Output[dsl.HTML],
    team: str = "team",
    affiliation: str = "independent",
    track: str = "standard",
    testset: str = "public",
    edition: str = "2026",
    seed: int = 0,
    wrapper: str = "",
    robot_config: str = "",
) -> dsl.ContainerSpec:
    """Score one policy, package the submission and write the report."""
    return dsl.ContainerSpec(
        image=image("toolbox"),
        command=["python3", "-m", "components.leaderboard"],
        args=[
            "--executor-input",
            dsl.PIPELINE_TASK_EXECUTOR_INPUT_PLACEHOLDER,
            "--workspace",
            workspace,
            "--run-id",
            dsl.PIPELINE_JOB_ID_PLACEHOLDER,
            "--task-id",
            dsl.PIPELINE_TASK_ID_PLACEHOLDER,
        ],
    )


@dsl.container_component
def leaderboard_groups(
    workspace: str,
    plan: dsl.Input[dsl.Artifact],
    reported: dsl.Input[list[dsl.Artifact]],
    rollouts: dsl.Input[list[dsl.Artifact]],
    first_models: dsl.Input[dsl.Model],
    models: dsl.Input[list[dsl.Model]],
    artifact: dsl.Output[dsl.Artifact],
    metrics: dsl.Output[dsl.Metrics],
    html: dsl.Output[dsl.HTML],
    team: str = "team",
    affiliation: str = "independent",
    track: str = "standard",
    testset: str = "public",
    edition: str = "2026",
    seed: int = 0,
    wrapper: str = "",
    robot_config: str = "",
) -> dsl.ContainerSpec:
    """Choose a policy per task (the common one is `first_models`), score, package, report."""
    return dsl.ContainerSpec(
        image=image("toolbox"),
        command=["python3", "-m", "components.leaderboard"],
        args=[
            "--executor-input",
            dsl.PIPELINE_TASK_EXECUTOR_INPUT_PLACEHOLDER,
            "--workspace",
            workspace,
            "--run-id",
            dsl.PIPELINE_JOB_ID_PLACEHOLDER,
            "--task-id",
            dsl.PIPELINE_TASK_ID_PLACEHOLDER,
        ],
    )
