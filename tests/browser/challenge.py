"""A synthetic challenge: leaderboards of any size from the real stages, with made-up rollouts.

`python tests/browser/challenge.py FOLDER` makes that of 100 tasks x 10 instances x 3 policies, to look at.
"""

import importlib.util
import os
import sys
from pathlib import Path

import numpy as np

from components.evaluation.traces import Trace
from components.leaderboard.config import Config, Inputs
from components.leaderboard.stage import STAGE
from components.plan import config as plan_config
from components.plan.stage import STAGE as PLAN
from components.store.artifact import Artifact
from pi_behavior.challenge import TASKS

_spec = importlib.util.spec_from_file_location(
    "components_conftest", Path(__file__).parents[1] / "components" / "conftest.py"
)
shared = sys.modules["components_conftest"] = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(shared)
_RULES = ("gripper", "uncompressed", "stage_forward", "stage_back", "radio")
SECONDS = 4


def draw(key) -> np.random.Generator:
    return np.random.default_rng([*map(ord, key.policy + key.task), key.index, key.rollout])


def q(key) -> float | None:
    """Mostly 0, a quarter partial, a tenth whole; the untrained policy never; some never finish."""
    random = draw(key)
    if random.random() < 0.01:
        return None
    if key.policy == "untrained":
        return 0.0
    skill = random.random() + (0.15 if key.policy.startswith("group:") else 0.0)
    return 1.0 if skill > 0.9 else float(random.choice([0.25, 0.333, 0.5, 0.75])) if skill > 0.65 else 0.0


def trace(key) -> Trace:
    """The course of a rollout with noisy predictions, some rules and a goal of two predicates."""
    random = draw(key)
    steps, stages = int(random.integers(2000, 8000)), TASKS[key.task].stages or 8
    calls, stage = [], 0
    for step in range(0, steps, 100):
        stage = min(stage + int(random.random() < 0.15), stages - 1)
        calls.append((step, min(stage + int(random.integers(0, 3)), stages - 1), stage))
    rules = [
        (int(random.integers(0, steps)), str(random.choice(_RULES))) for _ in range(random.integers(0, 6))
    ]
    reached = int(random.integers(0, steps))
    goals = {"inside can_1 bin_1": [(0, False), (reached, True)], "open bin_1": [(0, False)]}
    if random.random() < 0.2:
        goals["open bin_1"] += [(reached // 2, True), (reached, False)]
    return Trace(steps, calls, sorted(rules), goals)


def log(key) -> str:
    """What an evaluator may say, as different from rollout to rollout as its numbers are."""
    random, lines = draw(key), []
    for step in sorted(random.integers(0, 8000, 12)):
        where = ", ".join(f"{value:.3f}" for value in random.normal(0, 2, 3))
        lines.append(f"[{step / 30:.3f}s] [INFO] Current step: {step}, base at ({where}), goals {step % 2}/2")
    return "\n".join(lines)


def film(once: dict[int, Path], path: Path, shade: int) -> None:
    """One of five videos, by link: thousands of files take no time."""
    shade %= 5
    path.parent.mkdir(parents=True, exist_ok=True)
    if shade not in once:
        shared.write_video(path, shade, SECONDS * 30, (168, 112))
        once[shade] = path
    else:
        os.link(once[shade], path)


def make(workspace: Path, tasks: tuple[str, ...], *, instances: int, seed: int = 0, **plan) -> Artifact:
    """The leaderboard of a common policy, two groups of which one is small, and the untrained policy."""
    factory = shared.Factory(workspace)
    once: dict[int, Path] = {}
    factory.film = lambda path, shade: film(once, path, shade)
    common, half = factory.model("common", tasks), len(tasks) // 2
    groups = (factory.model("good", tasks[:half]), factory.model("bad", tasks[half:]))
    values = {"reported_instances": instances, "validation_instances": 2, "videos": instances, **plan}
    planned = PLAN.execute(
        plan_config.Config(untrained=True, **values), plan_config.Inputs(common, groups), workspace
    ).artifact
    evaluations = factory.evaluations(planned, q, seed=str(seed), videos=True, trace=trace, log=log)
    return STAGE.execute(Config(seed=seed), Inputs(planned, evaluations), workspace).artifact


if __name__ == "__main__":
    print(make(Path(sys.argv[1]).resolve(), tuple(TASKS)[:100], instances=10).path / "report" / "index.html")
