"""The images: pinned, small, without root, and laid out as the Kubeflow components expect."""

from __future__ import annotations

import fnmatch
import re
import subprocess
import sys
import tomllib
from pathlib import Path

from components.evaluation.evaluators import EVALUATORS
from pipelines.definitions.profiles import load_profile
from pipelines.definitions.profiles.profile import USER

ROOT = Path(__file__).parents[2]
HADOLINT = Path(sys.executable).with_name("hadolint")
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]


def test_hadolint_finds_nothing(dockerfile):
    done = subprocess.run(
        [HADOLINT, "--no-color", "--config", ROOT / "images" / "hadolint.yaml", dockerfile.path],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_bases_are_pinned_by_digest_and_shared(dockerfiles):
    python = set()
    for dockerfile in dockerfiles:
        for stage in dockerfile.stages:
            assert re.search(r":[^:@]+@sha256:[0-9a-f]{64}$", dockerfile.resolve(stage.base)), stage
        python.add(dockerfile.arguments["PYTHON_IMAGE"])
    assert len(python) == 1


def test_final_stage_runs_as_a_numeric_user_with_a_name_and_a_home(dockerfile):
    final = dockerfile.final
    # a number, since Kubernetes checks runAsNonRoot only against one
    assert final.all("USER")[-1].words == (f"{USER}:{USER}",)
    commands = {command[0]: command[1:] for run in final.all("RUN") for command in run.commands()}
    assert commands["groupadd"] == ["--gid", f"{USER}", "b1k"]
    options = commands["useradd"]
    given = {option: options[options.index(option) + 1] for option in ("--uid", "--gid", "--home-dir")}
    assert given == {"--uid": f"{USER}", "--gid": "b1k", "--home-dir": final.merged("ENV")["HOME"]}


def test_final_stage_has_no_build_tools(dockerfile):
    final = dockerfile.final
    commands = [command for run in final.all("RUN") for command in run.commands()]
    packages = {
        word
        for command in commands
        if command[:2] == ["apt-get", "install"]
        for word in command[2:]
        if not word.startswith("-")
    }
    mesa = {"libegl1", "libgl1", "libgl1-mesa-dri"} if final.name == "household" else set()
    assert packages <= {"ca-certificates", "git"} | mesa
    wheels = ["--no-cache-dir", "--no-deps", "--no-index", "/wheels/*.whl"]
    assert [*final.pip_installs()] == ([] if final.name == "evaluator" else [wheels]), (
        "the last stage installs our wheels and nothing that must be built or fetched; "
        "the evaluator's Python has no pip, so our packages are copied"
    )


def test_labels_and_environment(dockerfile):
    final = dockerfile.final
    labels, environment = final.merged("LABEL"), final.merged("ENV")
    image = "org.opencontainers.image"
    assert labels[f"{image}.version"] == environment["B1K_VERSION"] == "${B1K_VERSION}"
    assert labels[f"{image}.revision"] == environment["B1K_GIT_COMMIT"] == "${B1K_GIT_COMMIT}"
    assert labels[f"{image}.title"] == f"b1k-{final.name}"
    assert labels[f"{image}.licenses"] == "Apache-2.0"
    declared = {key for argument in final.all("ARG") for key in argument.pairs()}
    assert {"B1K_VERSION", "B1K_GIT_COMMIT"} <= declared, "an undeclared argument is empty, silently"
    made = [
        run for run in dockerfile.stage("dependencies").all("RUN") if "cyclonedx-py" in str(run.commands())
    ]
    assert environment["B1K_SBOM"] in str(made[0].commands())
    used = re.findall(r"\$\{(\w+)\}", " ".join([*labels.values(), *environment.values()]))
    assert set(used) <= declared
    assert environment["HOME"] == "/tmp"


def test_python3_is_the_environment_that_was_installed(dockerfile):
    """The launcher runs ``python3 -m components.STAGE`` and ignores the entry point."""
    final = dockerfile.final
    (environment,) = {copy.words[1] for copy in final.all("COPY") if copy.flags.get("from") == "dependencies"}
    assert final.merged("ENV")["PATH"].split(":")[0] == f"{environment}/bin"
    module = final.all("CMD")[-1].words[0]
    assert module.startswith("[")
    for stage in dockerfile.stages:
        for run in stage.all("RUN"):
            for command in run.commands():
                if "--python" in command:
                    assert command[command.index("--python") + 1] == f"{environment}/bin/python3"
    base_entry_point = "BEHAVIOR_IMAGE" in dockerfile.arguments
    assert bool(final.all("ENTRYPOINT")) == base_entry_point
    assert all(entry.words == ("[]",) for entry in final.all("ENTRYPOINT"))


def test_copied_files_exist_and_reach_the_build_context(dockerfile):
    rules = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and line[0] != "#"]
    assert rules[0] == "*", "the context is a list of what may enter"
    allowed = [rule.removeprefix("!") for rule in rules if rule.startswith("!")]
    for stage in dockerfile.stages:
        for copy in stage.all("COPY"):
            if "from" in copy.flags:
                continue
            for source in copy.words[:-1]:
                assert (ROOT / source).exists(), f"{dockerfile.path.name}: COPY {source}"
                assert any(source == entry or source.startswith(f"{entry}/") for entry in allowed), (
                    f".dockerignore keeps {source} out of the build context"
                )


def test_everything_allowed_into_the_context_is_used(dockerfiles):
    rules = (ROOT / ".dockerignore").read_text().splitlines()
    sources = {
        source
        for dockerfile in dockerfiles
        for stage in dockerfile.stages
        for copy in stage.all("COPY")
        if "from" not in copy.flags
        for source in copy.words[:-1]
    }
    for rule in rules:
        if rule.startswith("!"):
            assert fnmatch.filter(sources, f"{rule[1:]}*"), f".dockerignore lets in {rule[1:]} for nobody"


def test_bake_file_builds_every_dockerfile(dockerfiles):
    text = (ROOT / "images" / "docker-bake.hcl").read_text()
    targets = dict(
        re.findall(r'target "(\w+)" \{[^}]*?dockerfile = "([^"]+)"\n\s*target\s+= "\1"', text, re.DOTALL)
    )
    assert targets == {
        dockerfile.final.name: str(dockerfile.path.relative_to(ROOT)) for dockerfile in dockerfiles
    }
    groups = dict(re.findall(r'group "(\w+)" \{\s*targets = \[([^\]]*)\]', text))
    assert {name for group in groups.values() for name in re.findall(r'"(\w+)"', group)} == set(targets)
    laptop = {step.image for step in load_profile("laptop").steps.values()}
    assert set(re.findall(r'"(\w+)"', groups["laptop"])) == laptop
    for name in targets:
        assert f'tags       = ["${{REGISTRY}}/{name}:${{B1K_VERSION}}"]' in text
    arguments = set(re.findall(r"^    (\w+)\s+= ", text, re.MULTILINE))
    declared = {
        key
        for dockerfile in dockerfiles
        for key in (
            *dockerfile.arguments,
            *(key for one in dockerfile.final.all("ARG") for key in one.pairs()),
        )
    }
    assert arguments - {"condition", "error_message"} <= declared


def test_official_evaluator_is_started_by_a_command_of_the_image(dockerfiles):
    """The plan names the command; the image has it on PATH, and it hands on every argument unchanged."""
    (program,) = {evaluator.program[0] for evaluator in EVALUATORS["omnigibson"].values()}
    (image,) = [one for one in dockerfiles if "evaluate" in one.final.merged("LABEL")["b1k.stages"].split()]
    (copy,) = [one for one in image.final.all("COPY") if one.words[-1] == f"/usr/local/bin/{program}"]
    assert copy.flags["chmod"] == "755"
    script = (ROOT / copy.words[0]).read_text()
    assert script.startswith("#!/bin/bash\n")
    assert script.splitlines()[-1] == 'exec /entrypoint.sh python "$@"'
