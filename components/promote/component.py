"""The Kubeflow component of the stage promote."""

from kfp import dsl

from pipelines.definitions.images import image


@dsl.container_component
def promote(
    workspace: str,
    leaderboard: dsl.Input[dsl.Artifact],
    models: dsl.Input[dsl.Model],
    artifact: dsl.Output[dsl.Artifact],
    metrics: dsl.Output[dsl.Metrics],
    champion: str = "",
    seed: int = 0,
) -> dsl.ContainerSpec:
    """Make one policy the champion if it beats the present one."""
    return dsl.ContainerSpec(
        image=image("toolbox"),
        command=["python3", "-m", "components.promote"],
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
def promote_groups(
    workspace: str,
    leaderboard: dsl.Input[dsl.Artifact],
    first_models: dsl.Input[dsl.Model],
    models: dsl.Input[list[dsl.Model]],
    artifact: dsl.Output[dsl.Artifact],
    metrics: dsl.Output[dsl.Metrics],
    champion: str = "",
    seed: int = 0,
) -> dsl.ContainerSpec:
    """Make the policies of a run the champion if they beat the present one."""
    return dsl.ContainerSpec(
        image=image("toolbox"),
        command=["python3", "-m", "components.promote"],
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
