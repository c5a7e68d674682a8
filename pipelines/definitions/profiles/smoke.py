"""The demo's DAG at its smallest, for tests: a policy that learned nothing, a handful of rollouts."""

import dataclasses

from pipelines.definitions.profiles.laptop import PROFILE as LAPTOP

PROFILE = dataclasses.replace(
    LAPTOP,
    name="smoke",
    summary="the laptop's pipeline at its smallest, for tests",
    arguments={
        **LAPTOP.arguments,
        "steps": 4,
        "batch_size": 4,
        "flow_samples": 2,
        "group_steps": 2,
        "warmup_steps": 1,
        "group_warmup_steps": 1,
        "save_every": 2,
        "log_every": 1,
        "validation_instances": 1,
        "reported_instances": 2,
        "num_steps": 2,
        "videos": 1,
        "track_training": False,
    },
    retraining={},
)
