"""What the stage leaderboard takes and makes."""

from dataclasses import dataclass
from typing import Literal

from components.runtime.declaration import Declaration
from components.store.artifact import Artifact
from pi_behavior.config import require


@dataclass(frozen=True)
class Config:
    """A leaderboard and its submission."""

    team: str = "team"
    """Name of the team in the submission."""
    affiliation: str = "independent"
    """Affiliation of the team in the submission."""
    track: Literal["standard", "privileged"] = "standard"
    """Track of the submission."""
    testset: Literal["public", "hidden"] = "public"
    """Test set of the submission."""
    seed: int = 0
    """Seed of the bootstrap."""
    videos: str = ""
    """Address where the videos of the submission are published; the challenge asks for one."""
    gpu_hour_price: float = 0.0
    """Price of a GPU for an hour, in any currency, for the costs in the report; 0: no costs are shown."""

    def __post_init__(self) -> None:
        require(
            *(
                (
                    bool(getattr(self, name)) and not set(getattr(self, name)) & set("./\\"),
                    f"{name} is {getattr(self, name)!r}; expected a name without dots and slashes",
                )
                for name in ("team", "affiliation")
            ),
            (
                not self.videos or self.videos.startswith(("https://", "http://")),
                f"videos is {self.videos!r}; expected an address that begins with https://",
            ),
            (
                0 <= self.gpu_hour_price < float("inf"),
                f"gpu_hour_price is {self.gpu_hour_price}; expected 0 or more",
            ),
            (self.seed >= 0, f"seed is {self.seed}; expected 0 or more"),
        )

    def submission(self, date: str) -> str:
        """Name of the submission's folder for a date (YYYY-MM-DD), spaces as underscores."""
        parts = (self.track, self.testset, self.team, self.affiliation, date)
        return ".".join(parts).replace(" ", "_")


@dataclass(frozen=True)
class Inputs:
    """What the leaderboard reads."""

    plan: Artifact
    """The plan of the reported evaluation; its policies' training curves are shown."""
    evaluations: tuple[Artifact, ...]
    """Its evaluations; all workers of one give the same artifact."""
    validation: tuple[Artifact, ...] = ()
    """Earlier evaluations with the common policy's validation."""


DECLARATION = Declaration("leaderboard", Config, Inputs, output="leaderboard", page="report")
