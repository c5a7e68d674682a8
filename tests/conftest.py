"""Settings for all tests: strict array types, two CPU devices, no network services."""

import os

# before the first import of jax
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("XLA_FLAGS", "--xla_force_host_platform_device_count=2")
os.environ.setdefault("MUJOCO_GL", "egl")
os.environ.setdefault("WANDB_MODE", "disabled")

from hypothesis import HealthCheck, settings
from jaxtyping import install_import_hook

settings.register_profile("ci", deadline=None, max_examples=50, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("ci")
# checks every annotated shape and dtype at run time
install_import_hook(["pi_behavior.network", "pi_behavior.flow", "pi_behavior.losses"], "beartype.beartype")
