"""The demo's DAG at its smallest, for tests: a policy that learned nothing, a handful of rollouts."""

import dataclasses

from components.settings.checks import Arguments, merge_sections
from pipelines.definitions.profiles.laptop import PROFILE as LAPTOP

PROFILE = dataclasses.replace(
    LAPTOP,
    name="smoke",
    values=Arguments(
        {
            **LAPTOP.values.inputs,
            "steps": 4,
            "batch_size": 4,
            "group_steps": 2,
            "validation_instances": 1,
            "reported_instances": 2,
        },
        merge_sections(
            "train_and_evaluate",
            LAPTOP.values.settings,
            {
                "train": {
                    "flow_samples": 2,
                    "warmup_steps": 1,
                    "save_every": 2,
                    "log_every": 1,
                    "track": False,
                },
                "finetune": {"warmup_steps": 1},
                "plan": {"policy": {"num_steps": 2}, "videos": 1},
                "trial": {"rounds": 1},
            },
        ),
    ),
    by_pipeline=dict.fromkeys(("evaluate", "retrain"), LAPTOP.by_pipeline["evaluate"]),
)
