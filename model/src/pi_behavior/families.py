"""The families of policies: each is a folder, and one line here.

A family's folder has its configuration, a `NetworkConfig` with sizes by name that loads without JAX, and a
module `family` that does what `Family` says. Nothing else asks which family a network is of.
"""

from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Protocol, cast

from pi_behavior.config import ModelConfig, NetworkConfig
from pi_behavior.lbm.config import LbmConfig

if TYPE_CHECKING:
    import jax
    from flax import nnx

    from pi_behavior.checkpoint import SavedBeside
    from pi_behavior.observation import FastTokens, Observation
    from pi_behavior.policy.config import FloatType, PolicyConfig
    from pi_behavior.policy.interface import Predictor
    from pi_behavior.statistics import Statistics
    from pi_behavior.training.config import TrainConfig

FAMILIES: Mapping[str, tuple[type[NetworkConfig], str]] = MappingProxyType(
    {"pi-behavior": (ModelConfig, "network"), "lbm": (LbmConfig, "lbm")}
)
"""Configuration and folder by the family's name."""
SIZES: Mapping[str, NetworkConfig] = MappingProxyType(
    {name: size for config, _ in FAMILIES.values() for name, size in config.presets.items()}
)
"""Configurations of all families by the name of their size."""
NetworkConfig.presets = SIZES
MODULES = tuple(f"pi_behavior.{folder}.family" for _, folder in FAMILIES.values())
"""The modules `family` of all families."""


class Family(Protocol):
    """What the module `family` of a family's folder does."""

    def create(self, config: Any, rngs: "nnx.Rngs") -> "nnx.Module":
        """A network with random weights."""

    def prepare(self, config: Any, statistics: "Statistics", start: Path | None) -> "tuple[Any, SavedBeside]":
        """Arrays, in any tree, that the loss needs besides weights and batches; and what a checkpoint is to
        hold besides weights. `start` is the checkpoint that training starts from.
        """

    def blank_constants(self, config: Any) -> Any:
        """Constants of the right shapes, to compile a step with."""

    def loss(
        self,
        network: Any,
        config: "TrainConfig",
        constants: Any,
        keys: "jax.Array",
        observation: "Observation",
        actions: "jax.Array",
        fast: "FastTokens | None",
    ) -> "tuple[jax.Array, dict[str, jax.Array]]":
        """The loss of a batch, and metrics with `loss` among them, each a mean over the samples.

        `keys` are random ones, one per sample.
        """

    def load_predictor(
        self,
        path: Path,
        policy: "PolicyConfig",
        batch_sizes: Sequence[int],
        parameters: "FloatType" = "auto",
        compute: "FloatType" = "auto",
    ) -> "Predictor":
        """A checkpoint, compiled for serving; ValueError where the folder is none."""


def name_of(config: NetworkConfig) -> str:
    """The name of a network's family."""
    return next(name for name, (kind, _) in FAMILIES.items() if type(config) is kind)


def module_of(config: NetworkConfig) -> str:
    """The name of the module `family` of a network's family."""
    return f"pi_behavior.{FAMILIES[name_of(config)][1]}.family"


def family_of(config: NetworkConfig) -> Family:
    """A network's family; imports JAX."""
    return cast(Family, import_module(module_of(config)))
