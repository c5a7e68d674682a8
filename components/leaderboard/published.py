"""The published results of the 2025 challenge, to be shown beside ours."""

from dataclasses import dataclass


@dataclass(frozen=True)
class PublishedScore:
    """A team's result on the hidden instances."""

    team: str
    q: float
    success: float


PUBLISHED_2025 = (
    PublishedScore("Robot Learning Collective", 0.2599, 0.1240),
    PublishedScore("Comet (NVIDIA Research)", 0.2514, 0.1140),
    PublishedScore("SimpleAI Robot", 0.1591, 0.1080),
    PublishedScore("The North Star (Huawei CRI EAI)", 0.1204, 0.0760),
    PublishedScore("Embodied Intelligence", 0.0947, 0.0520),
)
"""The five best by q (report, table 1)."""
