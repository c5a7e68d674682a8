"""The Kubeflow component of the stage plan."""

from kfp import dsl

from pipelines.definitions.images import image
from pipelines.definitions.loops import loops_over_items


@loops_over_items
@dsl.container_component
def plan(
    workspace: str,
    models: dsl.Input[dsl.Model],
    artifact: dsl.Output[dsl.Artifact],
    metrics: dsl.Output[dsl.Metrics],
    items: dsl.OutputPath(list),  # type: ignore[valid-type]
    tasks: str = "",
    edition: str = "2026",
    sets: str = "validation reported",
    validation_instances: int = 10,
    reported_instances: int = 10,
    rollouts: int = 1,
    workers: int = 1,
    untrained: bool = False,
    videos: int = 2,
    evaluator: str = "household",
    image_size: int = 224,
    action_chunk_size: int = 0,
    execute: int = 20,
    compress_from: int = 26,
    num_steps: int = 20,
    voting: str = "published",
    gripper: str = "data",
    task_rules: str = "off",
    inpainting: str = "soft",
    seed: int = 0,
) -> dsl.ContainerSpec:
    """Plan the evaluation of one policy. `tasks` and `sets` are names with spaces between."""
    return dsl.ContainerSpec(
        image=image("toolbox"),
        command=["python3", "-m", "components.plan"],
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


@loops_over_items
@dsl.container_component
def plan_groups(
    workspace: str,
    first_models: dsl.Input[dsl.Model],
    models: dsl.Input[list[dsl.Model]],
    groups: dsl.Input[dsl.Artifact],
    artifact: dsl.Output[dsl.Artifact],
    metrics: dsl.Output[dsl.Metrics],
    items: dsl.OutputPath(list),  # type: ignore[valid-type]
    tasks: str = "",
    edition: str = "2026",
    sets: str = "validation reported",
    validation_instances: int = 10,
    reported_instances: int = 10,
    rollouts: int = 1,
    workers: int = 1,
    untrained: bool = False,
    videos: int = 2,
    evaluator: str = "household",
    image_size: int = 224,
    action_chunk_size: int = 0,
    execute: int = 20,
    compress_from: int = 26,
    num_steps: int = 20,
    voting: str = "published",
    gripper: str = "data",
    task_rules: str = "off",
    inpainting: str = "soft",
    seed: int = 0,
) -> dsl.ContainerSpec:
    """Plan the evaluation of the common policy (`first_models`) and of those of the groups."""
    return dsl.ContainerSpec(
        image=image("toolbox"),
        command=["python3", "-m", "components.plan"],
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
