"""What the cluster's profiles share: the objects of the chart `charts/b1k` under the release name b1k."""

from pipelines.definitions.profiles.profile import Secret, Settings, Step, Toleration, Volume

WORKSPACE = Volume("b1k-workspace", "/workspace")
DATASET = Volume("b1k-dataset", "/dataset")
S3 = Secret("b1k-s3", ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"), optional=True)
WANDB = Secret("b1k-wandb", ("WANDB_API_KEY",), optional=True)
WEBHOOK = Secret("b1k-webhook", ("B1K_WEBHOOK_URL",), True, "nobody is told how runs end")
MLFLOW = Secret(
    "b1k-mlflow",
    ("MLFLOW_TRACKING_TOKEN", "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"),
    True,
    "MLflow is asked without a login",
)
SIGNING = Secret("b1k-signing", ("B1K_SIGNING_KEY",), True, "lineage is not signed")
UI_SETTINGS = Settings("b1k-settings", ("B1K_UI_URL",))
S3_SETTINGS = Settings("b1k-settings", ("AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL"))
WANDB_SETTINGS = Settings("b1k-settings", ("WANDB_MODE", "WANDB_ENTITY", "WANDB_BASE_URL"))
PULL_SECRET = "b1k-registry"  # noqa: S105 - the name of a secret, not a secret
EVALUATOR = {"b1k/role": "evaluator"}
"""Pods with this label reach the chart's policy server (`policyServer.clientLabels`)."""
GPU_TAINT = Toleration("nvidia.com/gpu")

RTX_PRODUCTS = (
    "NVIDIA-L40S",
    "NVIDIA-L40",
    "NVIDIA-RTX-6000-Ada-Generation",
    "NVIDIA-RTX-PRO-6000-Blackwell-Server-Edition",
    "NVIDIA-GeForce-RTX-4090",
    "NVIDIA-GeForce-RTX-5090",
)
"""GPUs with ray-tracing cores and at least 24 GB, which OmniGibson needs; an H200 has none of the former."""


def notify(image: str = "toolbox") -> Step:
    """The last stage of every run, which tells how it ended."""
    return Step(
        image=image,
        cpu="250m",
        memory="1Gi",
        volumes=(WORKSPACE,),
        secrets=(WEBHOOK,),
        settings=(UI_SETTINGS,),
        hours=0.5,
    )


def toolbox(cpu: str = "2", memory: str = "8Gi", hours: float = 2.0) -> Step:
    """A stage on CPUs."""
    return Step(image="toolbox", cpu=cpu, memory=memory, volumes=(WORKSPACE,), hours=hours)
