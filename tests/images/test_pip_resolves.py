"""What pip would install into the images that CI does not build: their bases or libraries are too large."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
# glibc of the release's Ubuntu 22.04; the Python images' Debian 12 has 2.36
PLATFORMS = ["manylinux2014_x86_64", *(f"manylinux_2_{minor}_x86_64" for minor in range(17, 36))]
PYTHON = "3.11"


def lay_out(dockerfile, folder: Path) -> None:
    """Copy what the stage `dependencies` copies, to where it runs pip."""
    stage = dockerfile.stage("dependencies")
    for copy in stage.all("COPY"):
        if "from" in copy.flags:
            continue
        *sources, target = copy.words
        (folder / target).mkdir(exist_ok=True)
        for source in sources:
            shutil.copy(ROOT / source, folder / target)
    (made,) = [c for run in stage.all("RUN") for c in run.commands() if c[:2] == ["mkdir", "-p"]]
    for name in made[2:]:
        (folder / name).mkdir(parents=True)
    (folder / "README.md").touch()


@pytest.mark.images
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", ["trainer", "evaluator"])
def test_every_wheel_exists_for_the_images_platform(name, dockerfiles, tmp_path):
    (dockerfile,) = [one for one in dockerfiles if one.final.name == name]
    arguments = dockerfile.stage("dependencies").libraries()
    context = tmp_path / "build"
    context.mkdir()
    lay_out(dockerfile, context)
    restrict = ["--only-binary=:all:", f"--python-version={PYTHON}", f"--target={tmp_path / 'target'}"]
    done = subprocess.run(
        [
            *(
                sys.executable,
                "-m",
                "pip",
                "install",
                "--dry-run",
                "--quiet",
                f"--report={tmp_path / 'report'}",
            ),
            *(*restrict, *(f"--platform={platform}" for platform in PLATFORMS)),
            *arguments,
        ],
        cwd=context,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "report").read_text())
    found = {
        canonicalize_name(one["metadata"]["name"]): one["download_info"]["url"] for one in report["install"]
    }
    assert {"b1k", "pi-behavior", "jax", "jax-cuda12-plugin", "nvidia-cudnn-cu12"} <= found.keys()
    wheels = {url.rpartition("/")[2] for name, url in found.items() if name not in ("b1k", "pi-behavior")}
    assert all(wheel.endswith(".whl") for wheel in wheels)
    assert [
        wheel for wheel in wheels if wheel.startswith("jaxlib-") and "-cp311-" in wheel and "x86_64" in wheel
    ]
