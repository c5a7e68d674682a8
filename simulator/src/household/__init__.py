"""A small MuJoCo house that stands in for OmniGibson on machines without an RTX GPU.

It speaks the BEHAVIOR challenge's formats (robot of 23 actions, proprioception and datasets of 2025 and 2026,
evaluator of 2026), but its tasks are reduced: one room, few objects. A score from here is never a
BEHAVIOR score.
"""

import os

# MuJoCo reads this when it is first imported; EGL needs no display.
os.environ.setdefault("MUJOCO_GL", "egl")
