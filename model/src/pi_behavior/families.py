"""The families of policies: each has a folder, a configuration with sizes by name, and one line here.

Loads without JAX.
"""

from collections.abc import Mapping
from types import MappingProxyType

from pi_behavior.config import ModelConfig
from pi_behavior.lbm.config import LbmConfig

PolicyModel = ModelConfig | LbmConfig
"""The configuration of a network of any family."""
FAMILIES: Mapping[str, type[PolicyModel]] = MappingProxyType({"pi-behavior": ModelConfig, "lbm": LbmConfig})
"""Configurations by the family's name."""
SIZES: Mapping[str, PolicyModel] = MappingProxyType(
    {name: config for family in FAMILIES.values() for name, config in family.presets.items()}
)
"""Configurations of all families by the name of their size."""


def family_of(model: PolicyModel) -> str:
    """The name of a network's family."""
    return next(name for name, kind in FAMILIES.items() if type(model) is kind)
