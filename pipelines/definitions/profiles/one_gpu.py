"""The small model, trained and evaluated on one RTX GPU: checks a cluster end to end in hours.

Submit with `b1k pipeline submit --profile one_gpu --registry registry.example.org/robots`.
"""

import dataclasses

from components.settings.checks import Arguments
from pipelines.definitions.profiles.cluster import RTX_PRODUCTS
from pipelines.definitions.profiles.h200x8 import PROFILE as H200X8

PROFILE = dataclasses.replace(
    H200X8,
    name="one_gpu",
    values=Arguments(
        {
            **H200X8.values.inputs,
            "tasks": "turning_on_radio picking_up_trash",
            "model": "small",
            "steps": 5000,
            "group_steps": 1000,
            "batch_size": 64,
            "validation_instances": 2,
            "reported_instances": 5,
            "workers": 1,
        },
        {
            "prepare": {"image_size": 112},
            "train": {"learning_rate": {"peak": 1e-3}, "log_every": 50, "input_workers": 4},
            "finetune": {"learning_rate": {"peak": 3e-4}, "warmup_steps": 200},
            "plan": {"image_size": 112},
        },
    ),
    by_pipeline={
        "retrain": Arguments(
            {"steps": 1000}, {"train": {"learning_rate": {"peak": 3e-4}, "warmup_steps": 20}}
        )
    },
    steps={
        **H200X8.steps,
        "train": dataclasses.replace(
            H200X8.steps["train"],
            gpus=1,
            node_labels={},
            gpu_products=RTX_PRODUCTS,
            cpu="8",
            memory="48Gi",
            shared_memory="8Gi",
            hours=24.0,
        ),
    },
    evaluations=1,
)
