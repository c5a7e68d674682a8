"""The laptop's demo on any cluster: one image, no GPU, no keys; 4 CPUs and 16 GiB in all.

Submit with `b1k pipeline submit --pipeline demo --profile cluster_small --registry REGISTRY`.
The volumes may be ReadWriteOnce where all pods share one node.
"""

import dataclasses

from components.settings.checks import Arguments
from pipelines.definitions.profiles.cluster import (
    DATASET,
    PULL_SECRET,
    SIGNING,
    WANDB_SETTINGS,
    WORKSPACE,
    notify,
)
from pipelines.definitions.profiles.laptop import PROFILE as LAPTOP
from pipelines.definitions.profiles.profile import Step

# requests that fit a node of two CPUs; without limits, stages use what is free
_STEP = Step(image="household", cpu="250m", memory="3Gi", volumes=(WORKSPACE,), hours=2.0)
_WITH_DATA = dataclasses.replace(_STEP, volumes=(WORKSPACE, DATASET))
_TRAIN = dataclasses.replace(
    _STEP, cpu="1500m", memory="10Gi", shared_memory="1Gi", settings=(WANDB_SETTINGS,), hours=12.0
)

PROFILE = dataclasses.replace(
    LAPTOP,
    name="cluster_small",
    values=Arguments(
        {**LAPTOP.values.inputs, "repository": "/dataset/demonstrations"}, LAPTOP.values.settings
    ),
    steps={
        "settings": _WITH_DATA,
        "news": _WITH_DATA,
        "collect": dataclasses.replace(_WITH_DATA, cpu="1500m", hours=6.0),
        "dataset": dataclasses.replace(_WITH_DATA, cpu="1500m"),
        "prepare": dataclasses.replace(_STEP, cpu="1500m"),
        "statistics": dataclasses.replace(_STEP, cpu="1500m"),
        "train": _TRAIN,
        "plan": _STEP,
        # two at once
        "evaluate": dataclasses.replace(_STEP, cpu="750m", memory="5Gi", shared_memory="1Gi", hours=12.0),
        "group": _STEP,
        "leaderboard": _STEP,
        "trial": _STEP,
        "promote": _STEP,
        "notify": notify("household"),
    },
    pull_secret=PULL_SECRET,
    secrets=(SIGNING,),
    workspace=WORKSPACE.path,
)
