"""The report's run on the 100 tasks of 2026, from the published policy of 2025; otherwise as `h200x8`.

The initial checkpoint is made with `b1k checkpoint import SOURCE OUT --edition 2026`.

Not run yet; expected to take as long as `h200x8`.
"""

import dataclasses

from pipelines.definitions.profiles.h200x8 import PROFILE as _OF_2025

PROFILE = dataclasses.replace(
    _OF_2025,
    name="h200x8_2026",
    values=dataclasses.replace(
        _OF_2025.values,
        inputs={
            **_OF_2025.values.inputs,
            "model": "full_2026",
            "edition": "2026",
            "initial_checkpoint": "/dataset/checkpoints/published_2026",
        },
    ),
)
