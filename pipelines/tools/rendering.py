"""Checks whether MuJoCo can render on this machine."""

import os
import subprocess
import sys

from components.runtime.processes import describe_exit


def rendering_problem() -> str:
    """Why MuJoCo cannot render without a screen, in a line; empty if it can. Sets MUJOCO_GL if it is not."""
    os.environ.setdefault("MUJOCO_GL", "egl")
    # in a process of its own: a library that is missing or broken may end the process
    probe = [sys.executable, "-c", "import mujoco; mujoco.GLContext(16, 16).make_current()"]
    try:
        answer = subprocess.run(probe, capture_output=True, text=True, check=False, timeout=120)
    except subprocess.TimeoutExpired:
        return "no rendering context after 120 s; the graphics driver may be broken"
    if answer.returncode == 0:
        return ""
    return (answer.stderr.strip().splitlines() or [describe_exit(answer.returncode)])[-1]
