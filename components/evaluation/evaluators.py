"""The evaluators that there are, by name and edition of the challenge."""

import sys
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from components.evaluation.evaluator import Evaluator, Evaluator2025, Instances
from pi_behavior.challenge import EDITIONS

if TYPE_CHECKING:
    Edition = str
else:
    Edition = Literal[tuple(EDITIONS)]
Name = Literal["household", "omnigibson"]
"""The small house of this project, or the challenge's own simulator."""
HOUSEHOLD: Name = "household"

_HOUSEHOLD = Evaluator(
    (sys.executable, "-m", "household.eval"),
    {
        # the demonstrations use the first 100 training instances; those after them are unseen
        "validation": Instances("train", 50, first=100, id_of_0=1),
        "confirmation": Instances("train", 50, first=150, id_of_0=1),
        # no instances are hidden from us here, and 40 give tighter intervals than 20
        "reported": Instances("all_test", 40, id_of_0=301),
    },
    startup_seconds=5.0,
    steps_per_second=100.0,
    reduced=True,
    film=("--video-every", "4", "--video-size", "224"),
    own_options=True,
    takes=(),
)
_HOUSEHOLD_2025 = replace(_HOUSEHOLD, program=(*_HOUSEHOLD.program, "--edition", "2025"))
EVALUATORS: Mapping[Name, Mapping[str, Evaluator]] = {
    HOUSEHOLD: {"2025": _HOUSEHOLD_2025, "2026": _HOUSEHOLD},
    "omnigibson": {
        "2025": Evaluator2025(
            ("omnigibson-python", "-m", "omnigibson.learning.eval"),
            # the ten public instances are all reported; those with demonstrations do for choosing
            {
                "validation": Instances("train", 100),
                "confirmation": Instances("train", 100, first=100),
                "reported": Instances("public_test", 10),
            },
            startup_seconds=240.0,
            steps_per_second=15.0,
            results="metrics",
            repeats=False,
            takes=("wrapper",),
            batches=False,
        ),
        "2026": Evaluator(
            ("omnigibson-python", "-m", "omnigibson.eval.eval"),
            # all training instances have demonstrations; of the 20 public ones only 0 to 9 are reported
            {
                "validation": Instances("public_test", 10, first=10, id_of_0=301),
                # no others are unseen and open: these once more, with other noise of the policy
                "confirmation": Instances("public_test", 10, first=10, id_of_0=301),
                "reported": Instances("public_test", 10, id_of_0=301),
            },
            startup_seconds=240.0,
            steps_per_second=15.0,
        ),
    },
}


def find_evaluator(name: Name, edition: Edition) -> Evaluator:
    """The evaluator of a name as it was in an edition of the challenge."""
    return EVALUATORS[name][EDITIONS[edition].evaluator]
