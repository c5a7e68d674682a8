"""The Kubeflow component of the stage train."""

from kfp import dsl

from pipelines.definitions.images import image


@dsl.container_component
def train(
    workspace: str,
    dataset: dsl.Input[dsl.Dataset],
    statistics: dsl.Input[dsl.Artifact],
    artifact: dsl.Output[dsl.Model],
    metrics: dsl.Output[dsl.Metrics],
    initial: dsl.Input[dsl.Model] | None = None,
    name: str = "common",
    tasks: str = "",
    model: str = "tiny",
    network: str = "",
    initial_checkpoint: str = "",
    steps: int = 1000,
    batch_size: int = 64,
    flow_samples: int = 15,
    peak_learning_rate: float = 1e-4,
    final_learning_rate: float = 1e-5,
    warmup_steps: int = 100,
    ema_decay: float = 0.99,
    augment: bool = True,
    fsdp: int = 1,
    save_every: int = 500,
    log_every: int = 20,
    frame_cache: bool = True,
    keep_initial: bool = False,
    track: bool = True,
    seed: int = 0,
) -> dsl.ContainerSpec:
    """Train a policy, or fine-tune `initial`. `tasks` and `network` are lists with spaces between."""
    return dsl.ContainerSpec(
        image=image("trainer"),
        command=["python3", "-m", "components.train"],
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
