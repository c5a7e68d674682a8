"""The Kubeflow component of the stage dataset."""

from kfp import dsl

from pipelines.definitions.images import image


@dsl.container_component
def dataset(
    workspace: str,
    artifact: dsl.Output[dsl.Dataset],
    metrics: dsl.Output[dsl.Metrics],
    repository: str = "",
    revision: str = "HEAD",
    path: str = "data",
    remote: str = "",
    decode_all: bool = True,
    limit_tolerance: float = 0.05,
) -> dsl.ContainerSpec:
    """Fetch a version of the demonstrations with DVC, check it, and record what it is."""
    return dsl.ContainerSpec(
        image=image("toolbox"),
        command=["python3", "-m", "components.dataset"],
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
