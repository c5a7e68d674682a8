"""The report's run: the full model on one node of 8 H200 GPUs, OmniGibson on RTX nodes.

Submit with `b1k pipeline submit --profile h200x8 --registry registry.example.org/robots`.

Hardware: one node with 8 H200, 16 GPUs of the RTX kind (`RTX_PRODUCTS`), shared volumes as in `charts/b1k`.
Not run yet. Expected for the common policy: 51 hours by `b1k train --plan`, 127 by `b1k estimate`, which
assumes the pace of the report's (15 days, with more samples). Evaluation: 75 hours by `b1k estimate`,
and up to 41 for the confirmation round.
"""

import dataclasses

from components.settings.checks import Arguments
from pipelines.definitions.profiles.cluster import (
    DATASET,
    EVALUATOR,
    GPU_TAINT,
    MLFLOW,
    PULL_SECRET,
    RTX_PRODUCTS,
    S3,
    S3_SETTINGS,
    SIGNING,
    WANDB,
    WANDB_SETTINGS,
    WORKSPACE,
    notify,
    toolbox,
)
from pipelines.definitions.profiles.profile import Profile, Step

_WITH_DATA = dataclasses.replace(
    toolbox(hours=0.5), volumes=(WORKSPACE, DATASET), secrets=(S3,), settings=(S3_SETTINGS,)
)
_TRAIN = Step(
    image="trainer",
    cpu="96",
    memory="1200Gi",
    gpus=8,
    shared_memory="256Gi",
    node_labels={"nvidia.com/gpu.product": "NVIDIA-H200"},
    tolerations=(GPU_TAINT,),
    volumes=(WORKSPACE,),
    secrets=(WANDB,),
    settings=(WANDB_SETTINGS,),
    # JAX takes three quarters by default; `b1k train --plan` counts with this
    environment={"XLA_PYTHON_CLIENT_MEM_FRACTION": "0.92"},
    # a preempted training continues from its last saved state
    attempts=9,
    pods=9,
    hours=24 * 20,
)
_EVALUATE = Step(
    image="evaluator",
    cpu="8",
    memory="64Gi",
    gpus=1,
    shared_memory="8Gi",
    gpu_products=RTX_PRODUCTS,
    tolerations=(GPU_TAINT,),
    volumes=(WORKSPACE, DATASET),
    environment={"OMNIGIBSON_DATA_PATH": "/dataset/omnigibson"},
    pod_labels=EVALUATOR,
    attempts=5,
    pods=5,
    hours=24 * 4,
)

PROFILE = Profile(
    name="h200x8",
    values=Arguments(
        inputs={
            "repository": "/dataset/repository",
            "model": "full",
            "steps": 20_000,
            "group_steps": 5_000,
            "batch_size": 2048,
            "evaluator": "omnigibson",
            "workers": 16,
        },
        settings={
            "train": {
                "fsdp": 8,
                # what `b1k train --plan --find-batch` says: 128 samples at a time on each device
                "accumulate": 2,
                "input_workers": 16,
                "log_every": 50,
            },
            "finetune": {"learning_rate": {"peak": 2.5e-5}, "warmup_steps": 200},
        },
    ),
    # less of everything: the policy has seen most of the demonstrations
    by_pipeline={
        "retrain": Arguments(
            {"steps": 5_000}, {"train": {"learning_rate": {"peak": 2.5e-5}, "warmup_steps": 200}}
        )
    },
    steps={
        "settings": _WITH_DATA,
        "news": _WITH_DATA,
        "dataset": dataclasses.replace(_WITH_DATA, cpu="16", memory="64Gi", hours=24 * 3),
        "prepare": toolbox(cpu="16", memory="64Gi", hours=24 * 2),
        "statistics": toolbox(cpu="16", memory="128Gi", hours=24),
        "train": _TRAIN,
        "plan": toolbox(),
        "evaluate": _EVALUATE,
        "group": toolbox(),
        "leaderboard": toolbox(cpu="8", memory="32Gi"),
        "trial": toolbox(),
        "promote": dataclasses.replace(toolbox(), secrets=(MLFLOW,)),
        "notify": notify(),
    },
    pull_secret=PULL_SECRET,
    secrets=(SIGNING,),
    evaluations=16,
    workspace=WORKSPACE.path,
)
