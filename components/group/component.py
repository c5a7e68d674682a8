"""The Kubeflow component of the stage group."""

from kfp import dsl

from pipelines.definitions.images import image
from pipelines.definitions.loops import loops_over_items


@loops_over_items
@dsl.container_component
def group(
    workspace: str,
    rollouts: dsl.Input[list[dsl.Artifact]],
    artifact: dsl.Output[dsl.Artifact],
    metrics: dsl.Output[dsl.Metrics],
    items: dsl.OutputPath(list),  # type: ignore[valid-type]
    best: float = 0.5,
    good: float = 0.0,
    minimum: int = 1,
) -> dsl.ContainerSpec:
    """Split the tasks by validation score."""
    return dsl.ContainerSpec(
        image=image("toolbox"),
        command=["python3", "-m", "components.group"],
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
