"""The Kubeflow component of the stage statistics."""

from kfp import dsl

from pipelines.definitions.images import image


@dsl.container_component
def statistics(
    workspace: str,
    dataset: dsl.Input[dsl.Dataset],
    artifact: dsl.Output[dsl.Artifact],
    metrics: dsl.Output[dsl.Metrics],
    html: dsl.Output[dsl.HTML],
    tasks: str = "",
    normalisation: str = "report",
    absolute_actions: bool = False,
    fast_vocabulary: int = 1024,
) -> dsl.ContainerSpec:
    """Compute the statistics of the demonstrations. `tasks` are names with spaces between."""
    return dsl.ContainerSpec(
        image=image("toolbox"),
        command=["python3", "-m", "components.statistics"],
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
