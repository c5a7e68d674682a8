"""Placement of arrays on devices: a mesh (data, fsdp); a single device is the mesh (1, 1)."""

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

DATA, FSDP = "data", "fsdp"
SMALLEST_SHARDED = 2**20
"""Arrays with fewer elements are replicated: gathering them would cost more than it saves."""


def make_mesh(fsdp: int, devices: list[jax.Device] | None = None) -> Mesh:
    """Arrange devices as (data, fsdp).

    Raises:
        ValueError: the number of devices is not a multiple of fsdp.
    """
    found = jax.devices() if devices is None else devices
    if len(found) % fsdp:
        raise ValueError(
            f"fsdp is {fsdp}, which does not divide the {len(found)} devices here; choose a divisor"
        )
    return Mesh(np.array(found).reshape(-1, fsdp), (DATA, FSDP))


def parameter_sharding(mesh: Mesh, array: jax.ShapeDtypeStruct | jax.Array) -> NamedSharding:
    """Shard the largest axis that the fsdp devices divide; replicate small arrays."""
    parts: list[str | None] = [None] * array.ndim
    if array.size >= SMALLEST_SHARDED and mesh.shape[FSDP] > 1:
        for axis in sorted(range(array.ndim), key=lambda i: -array.shape[i]):
            if array.shape[axis] % mesh.shape[FSDP] == 0:
                parts[axis] = FSDP
                break
    return NamedSharding(mesh, PartitionSpec(*parts))


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Shard the batch over all devices: fsdp devices share parameters, not samples."""
    return NamedSharding(mesh, PartitionSpec((DATA, FSDP)))


def replicated(mesh: Mesh) -> NamedSharding:
    """The same value on all devices."""
    return NamedSharding(mesh, PartitionSpec())
