"""The Kubeflow component of the stage evaluate."""

from kfp import dsl

from pipelines.definitions.images import image


@dsl.container_component
def evaluate(
    workspace: str,
    plan: dsl.Input[dsl.Artifact],
    artifact: dsl.Output[dsl.Artifact],
    metrics: dsl.Output[dsl.Metrics],
    worker: str = "0",
) -> dsl.ContainerSpec:
    """Do one worker's share of a plan."""
    return dsl.ContainerSpec(
        image=image("evaluator"),
        command=["python3", "-m", "components.evaluate"],
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
