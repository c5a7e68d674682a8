"""The demo: tiny model, household simulator (reduced tasks), no GPU, no network; minutes on two cores.

`b1k demo` collects demonstrations first; `b1k run --profile laptop --set repository=DIR` uses yours.
"""

from components.settings.checks import Arguments
from pipelines.definitions.profiles.profile import Profile, Step

_NO_UNTRAINED = {"plan": {"untrained": False}}
"""A policy that is given, or that training starts from, has its scores already."""
_CPU_STAGES = (
    "settings",
    "news",
    "dataset",
    "prepare",
    "statistics",
    "plan",
    "group",
    "leaderboard",
    "trial",
    "promote",
)

PROFILE = Profile(
    name="laptop",
    values=Arguments(
        inputs={
            "tasks": "turning_on_radio picking_up_trash",
            "model": "tiny",
            "steps": 1100,
            "group_steps": 250,
            "batch_size": 32,
            "validation_instances": 20,
            "reported_instances": 40,
            "workers": 2,
        },
        settings={
            # raw, a few hundred megabytes: training has two cores for itself
            "prepare": {"image_size": 56, "compress": False},
            "train": {
                "flow_samples": 4,
                "learning_rate": {"peak": 1e-3},
                "warmup_steps": 50,
                "augment": False,
                "save_every": 100,
                "log_every": 10,
            },
            "finetune": {"learning_rate": {"peak": 3e-4}, "warmup_steps": 20},
            "plan": {
                "untrained": True,
                "image_size": 56,
                "action_chunk_size": 10,
                # shorter chunks than the report's, and hard inpainting, score higher on short tasks
                # (docs/ablations.md), whose stages are also shorter than one vote
                "policy": {
                    "execute": 10,
                    "compress_from": 10,
                    "num_steps": 8,
                    "voting": "off",
                    "inpainting": "hard",
                },
            },
            # two tasks make two groups, whatever their scores
            "group": {"minimum": 2},
            # a scene is loaded in seconds here, but a policy server is not
            "trial": {"rounds": 40, "block": 10},
        },
    ),
    by_pipeline={
        "evaluate": Arguments(settings=_NO_UNTRAINED),
        "retrain": Arguments(
            {"steps": 300},
            {"train": {"learning_rate": {"peak": 3e-4}, "warmup_steps": 20}, **_NO_UNTRAINED},
        ),
    },
    # images count with --containers; household trains, serves and simulates without CUDA
    steps={
        **dict.fromkeys(_CPU_STAGES, Step(image="toolbox")),
        **dict.fromkeys(("collect", "train", "evaluate"), Step(image="household")),
    },
)
