"""Copy the demonstrations for training: small pictures that decode quickly, columns that map into memory.

A killed copy continues after its last whole episode. Episodes that an earlier copy of the workspace holds
are linked, so that a new revision costs what is new.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import fields
from pathlib import Path

from components.errors import UserError
from components.prepare.config import DECLARATION, Config, Inputs
from components.runtime.stage import Result, Stage, Work
from components.store.sums import SUMS, parse_sums
from pi_behavior.data.lerobot import LeRobotDataset
from pi_behavior.data.packing import DatasetError, NoSpaceError, VideoError, make_copy
from pi_behavior.data.training_copy import MANIFEST, PACKS, CopyOptions
from pi_behavior.layout import CAMERAS


def run(config: Config, inputs: Inputs, work: Work) -> Result:
    """Write `copy.json` and `packs/`."""
    source = inputs.dataset.path
    sums = parse_sums((source / SUMS).read_text())

    def digest(path: Path) -> str:
        name = path.relative_to(source).as_posix()
        if name not in sums:
            raise DatasetError(f"{path} is no file of the dataset; expected what its meta files name")
        return sums[name]

    options = CopyOptions(**{one.name: getattr(config, one.name) for one in fields(CopyOptions)})
    artifacts = work.workspace / "artifacts" / DECLARATION.name
    newest = sorted(artifacts.glob(f"*/{MANIFEST}"), key=lambda path: -path.stat().st_mtime)
    earlier = [path.parent for path in newest if path.parent != work.path]
    try:
        with work.progress.task("copying frames") as bar:
            manifest = make_copy(
                LeRobotDataset(source / "data"),
                work.path,
                options,
                cameras=CAMERAS,
                digest=digest,
                earlier=earlier,
                processes=config.processes or os.cpu_count() or 1,
                on_frames=lambda done, total: bar.update(done, total=total),
            )
    except (DatasetError, NoSpaceError, VideoError) as error:
        raise UserError(str(error)) from error
    files = [path.stat() for path in (work.path / PACKS).rglob("*") if path.is_file()]
    size, new = (sum(one.st_size for one in files if one.st_nlink <= most) for most in (10**9, 1))
    print(f"prepare: {new:,} bytes are new, {size - new:,} are linked to earlier copies", flush=True)
    frames = sum(one.episode.length for one in manifest.episodes)
    counts = {"episodes": len(manifest.episodes), "frames": frames, "bytes": size}
    return Result(
        metrics={name: float(value) for name, value in counts.items()},
        metadata={**counts},
        summary=", ".join(f"{count:,} {name}" for name, count in counts.items()),
        sums=dict(_linked(work.path, earlier)),
    )


def _linked(copy: Path, earlier: Sequence[Path]) -> Iterator[tuple[str, str]]:
    """Files that are links to those of earlier copies, and their SHA-256."""
    for other in earlier:
        with suppress(OSError):  # removed now, or not finished
            for name, digest in parse_sums((other / SUMS).read_text()).items():
                here = copy / name
                if name.startswith(f"{PACKS}/") and here.exists() and here.samefile(other / name):
                    yield name, digest


STAGE = Stage(DECLARATION, run)
