"""The Kubeflow component of the stage news."""

from kfp import dsl

from pipelines.definitions.images import image
from pipelines.definitions.loops import branches_on_answer


@branches_on_answer
@dsl.container_component
def news(
    workspace: str,
    artifact: dsl.Output[dsl.Artifact],
    metrics: dsl.Output[dsl.Metrics],
    answer: dsl.OutputPath(str),  # type: ignore[valid-type]
    commit: dsl.OutputPath(str),  # type: ignore[valid-type]
    checkpoint: dsl.OutputPath(str),  # type: ignore[valid-type]
    repository: str = "",
    revision: str = "HEAD",
    path: str = "data",
    remote: str = "",
    since: str = "",
    champion: str = "",
    initial_checkpoint: str = "",
) -> dsl.ContainerSpec:
    """Say yes or no to new demonstrations, which commit they are, and what to train from."""
    return dsl.ContainerSpec(
        image=image("toolbox"),
        command=["python3", "-m", "components.news"],
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
