"""Profiles: how large a run is and what it runs on. One module per profile, each with a `PROFILE`."""

from importlib import import_module

from components.errors import UserError
from pipelines.definitions.profiles.profile import Profile

PROFILES = ("laptop", "smoke", "cluster_small", "one_gpu", "h200x8", "h200x8_2026")


def load_profile(name: str) -> Profile:
    """The profile of a name.

    Raises:
        UserError: there is none of that name.
    """
    if name not in PROFILES:
        raise UserError(f"there is no profile {name!r}; expected one of {', '.join(PROFILES)}")
    profile: Profile = import_module(f"pipelines.definitions.profiles.{name}").PROFILE
    return profile


def load_local_profile(name: str) -> Profile:
    """The profile of a name, for a run on this machine.

    Raises:
        UserError: there is none of that name, or it is for a cluster.
    """
    profile = load_profile(name)
    if not profile.is_local:
        local = ", ".join(name for name in PROFILES if load_profile(name).is_local)
        raise UserError(f"the profile {name} is for a cluster (b1k pipeline submit); expected one of {local}")
    return profile
