"""Reads parquet columns as arrays, whichever list types their writer chose."""

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pi_behavior.data.meta import DatasetError
from pi_behavior.layout import (
    ACTION_DIM,
    DATASET_ACTION_KEY,
    DATASET_STATE_KEY,
    PROPRIOCEPTION_BY_LENGTH,
)

REQUIRED_VECTORS = (DATASET_ACTION_KEY, DATASET_STATE_KEY)
VECTOR_WIDTHS: Mapping[str, tuple[int, ...]] = {
    DATASET_ACTION_KEY: (ACTION_DIM,),
    DATASET_STATE_KEY: tuple(PROPRIOCEPTION_BY_LENGTH),
    "observation.cam_rel_poses": (21,),
    **{
        f"observation.robot2cam_pose.{link}_camera_0": (7,)
        for link in ("zed_link", "left_realsense_link", "right_realsense_link")
    },
}
"""Possible widths of vector columns; `observation.task_info` is privileged, never read."""


def read_table(path: Path, wanted: Callable[[str], bool] = lambda name: True) -> pa.Table:
    """Read the columns whose names are wanted.

    Raises:
        DatasetError: the file cannot be read as parquet.
    """
    try:
        # ParquetFile: read_table opens a whole dataset, which costs more than the read for short episodes
        with pq.ParquetFile(path) as file:
            columns = [name for name in file.schema_arrow.names if wanted(name)]
            return file.read(columns=columns, use_threads=False)
    except (OSError, pa.ArrowException) as error:
        raise DatasetError(f"{path}: cannot be read as parquet: {error}") from error


def to_numpy(path: Path, name: str, column: pa.ChunkedArray) -> np.ndarray:
    """A column of numbers: [rows], or [rows, width] for lists.

    A list of one number per row, as some libraries write a scalar, becomes [rows] too.

    Raises:
        DatasetError: empty values, lists that differ in length or have another than the known one, or no
            numbers.
    """
    if column.null_count:
        raise DatasetError(f"{path}: column {name} has {column.null_count} empty values; expected none")
    rows, kind, width = len(column), column.type, 1
    if is_list := (
        pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    ):
        lengths = pc.unique(pc.list_value_length(column)).to_pylist()
        expected = VECTOR_WIDTHS.get(name, tuple(lengths[:1]))
        if rows and (len(lengths) != 1 or lengths[0] not in expected):
            shown = ", ".join(map(str, lengths[:3]))
            wanted = " or ".join(map(str, expected))
            raise DatasetError(
                f"{path}: column {name} holds lists of {shown} values; expected {wanted} in every row"
            )
        width = lengths[0] if rows else expected[0]
        column = column.combine_chunks().flatten()
        kind = column.type
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)):
        raise DatasetError(f"{path}: column {name} is of type {kind}; expected numbers")
    values = np.asarray(column.to_numpy(zero_copy_only=False) if is_list else column.to_numpy())
    return values.reshape(rows) if width == 1 else values.reshape(rows, width)
