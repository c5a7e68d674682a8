"""The demo: tiny model, household simulator (reduced tasks), no GPU, no network; minutes on two cores.

`b1k demo` collects demonstrations first; `b1k run --profile laptop --set repository=DIR` uses yours.
"""

from pipelines.definitions.profiles.profile import Profile, Step

_CPU_STAGES = ("news", "dataset", "statistics", "plan", "group", "leaderboard", "promote")

PROFILE = Profile(
    name="laptop",
    summary="tiny model and the household simulator on this machine, minutes",
    arguments={
        "tasks": "turning_on_radio picking_up_trash",
        "model": "tiny",
        "steps": 1100,
        "batch_size": 32,
        "flow_samples": 4,
        "peak_learning_rate": 1e-3,
        "warmup_steps": 50,
        "group_steps": 250,
        "group_peak_learning_rate": 3e-4,
        "group_warmup_steps": 20,
        "augment": False,
        "save_every": 100,
        "log_every": 10,
        "validation_instances": 20,
        "reported_instances": 40,
        "workers": 2,
        "image_size": 56,
        # shorter chunks than the report's score higher on short tasks
        "execute": 10,
        "compress_from": 10,
        "action_chunk_size": 10,
        "num_steps": 8,
        # stages of these tasks are shorter than one vote
        "voting": "off",
        "videos": 2,
        # two tasks make two groups, whatever their scores
        "minimum_groups": 2,
    },
    retraining={"steps": 300, "peak_learning_rate": 3e-4, "warmup_steps": 20},
    # images count with --containers; household trains, serves and simulates without CUDA
    steps={
        **dict.fromkeys(_CPU_STAGES, Step(image="toolbox")),
        **dict.fromkeys(("train", "evaluate"), Step(image="household")),
    },
)
