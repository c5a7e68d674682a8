"""Settings for all tests: strict array types, two CPU devices, no network services."""

import os
from pathlib import Path

# before the first import of jax
os.environ.setdefault("JAX_PLATFORMS", "cpu")
# tests compile much and compute little: three times faster without optimisation
_FLAGS = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
os.environ.setdefault("XLA_FLAGS", f"--xla_force_host_platform_device_count=2 {_FLAGS}")
# XLA's thread pool, one thread per core by default: two devices that wait for each other in two collectives
# at once take all threads of two cores, and nobody is left to bring them together
os.environ.setdefault("NPROC", "16")
os.environ.setdefault("MUJOCO_GL", "egl")
os.environ.setdefault("WANDB_MODE", "disabled")
# most of the time of these tests is compilation, of the same programs again and again
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(Path(__file__).parents[1] / ".pytest_cache" / "jax"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")

from hypothesis import HealthCheck, settings  # noqa: E402
from jaxtyping import install_import_hook  # noqa: E402

settings.register_profile("ci", deadline=None, max_examples=50, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("ci")
# checks every annotated shape and dtype at run time
_TYPED = """
    accumulators correlation data fast flops flow losses network observation policy reproducible statistics
    statistics_files
"""
install_import_hook([f"pi_behavior.{module}" for module in _TYPED.split()], "beartype.beartype")
