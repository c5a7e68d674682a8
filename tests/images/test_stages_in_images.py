"""Every stage's command finds its code and its libraries in the image that runs it, and no more is there.

The imports of a stage are followed through our own packages, and what they import is compared with what pip
installs according to the Dockerfile.
"""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from functools import cache
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from components.settings.sections import DECLARATIONS
from pipelines.definitions.profiles import load_profile

ROOT = Path(__file__).parents[2]
STAGES = {*DECLARATIONS, "settings", "notify"}
OURS = {"b1k": ROOT, "pi-behavior": ROOT / "model", "household": ROOT / "simulator"}
SOURCES = {"components": ROOT, "model": ROOT / "model" / "src"}
BUILT = sorted(path.parent.name for path in (ROOT / "components").glob("*/__main__.py"))


def stages_of(dockerfile, label: str = "b1k.stages") -> set[str]:
    return set(dockerfile.final.merged("LABEL").get(label, "").split())


def services_of(dockerfile) -> set[str]:
    return stages_of(dockerfile, "b1k.services")


def images_of(dockerfiles, stage):
    """The image that runs a stage or service on a cluster, and those that run it without a GPU."""
    (found,) = [one for one in dockerfiles if stage in stages_of(one) | services_of(one)]
    laptop = [one for one in dockerfiles if stage in stages_of(one, "b1k.laptop-stages")]
    return [found, *laptop]


@cache
def requirements(name: str, extras: frozenset[str]) -> tuple[Requirement, ...]:
    """What a distribution requires here: ours by its pyproject.toml, others by their metadata."""
    if name in OURS:
        project = tomllib.loads((OURS[name] / "pyproject.toml").read_text())["project"]
        lines = [*project["dependencies"]]
        for extra in extras:
            lines += project["optional-dependencies"][extra]
        return tuple(map(Requirement, lines))
    try:
        lines = metadata.requires(name) or []
    except metadata.PackageNotFoundError:  # CUDA libraries are not installed on the machine that tests
        return ()
    parsed = map(Requirement, lines)
    return tuple(
        one
        for one in parsed
        if one.marker is None or any(one.marker.evaluate({"extra": extra}) for extra in ("", *extras))
    )


def closure(roots: list[Requirement]) -> set[str]:
    """The names of all distributions that come with the given ones."""
    seen: set[tuple[str, frozenset[str]]] = set()
    todo = [(canonicalize_name(one.name), frozenset(one.extras)) for one in roots]
    while todo:
        key = todo.pop()
        if key in seen:
            continue
        seen.add(key)
        todo += [(canonicalize_name(one.name), frozenset(one.extras)) for one in requirements(*key)]
    return {name for name, _ in seen}


def installed(dockerfile) -> set[str]:
    """The distributions in the image, from the ``pip install`` lines of its stage `dependencies`."""
    roots: list[Requirement] = []
    words = iter(dockerfile.stage("dependencies").libraries())
    for word in words:
        if word == "--constraint":
            next(words)
        elif word.startswith("."):
            folder, extras = re.fullmatch(r"([^\[]+)(\[.*\])?", word).groups()
            path = (ROOT / folder).resolve()
            (name,) = [name for name, root in OURS.items() if root == path]
            roots.append(Requirement(f"{name}{extras or ''}"))
        else:
            roots.append(Requirement(word))
    return closure(roots)


def packaged(dockerfile) -> list[Path]:
    """The source folders whose packages are in the image."""
    (wheels,) = [stage for stage in dockerfile.stages if stage.name in ("wheels", "packages")]
    copied = {copy.words[0]: copy.words[1] for copy in wheels.all("COPY") if len(copy.words) == 2}
    ours = ["./model", "."]
    build = [c for run in wheels.all("RUN") for c in run.commands() if c[0] == "pip" and c[-2:] == ours]
    assert ("./simulator" in build[0]) == ("simulator" in copied)
    return [SOURCES[name] for name in SOURCES if copied.get(name) == name]


def resolve(module: str, roots: list[Path]) -> Path | None:
    """The file of one of our modules, as far as the image has it."""
    for root in roots:
        base = root.joinpath(*module.split("."))
        if root == ROOT and not module.startswith("components"):
            continue
        for path in (base.with_suffix(".py"), base / "__init__.py"):
            if path.exists():
                return path
    return None


class Imports(ast.NodeVisitor):
    """The modules that a file imports anywhere, without those for the type checker only."""

    def __init__(self, module: str, package: bool) -> None:
        self.parts = module.split(".") if package else module.split(".")[:-1]
        self.found: set[str] = set()
        self.perhaps: set[str] = set()  # `from a import b`: b may be a module or a name in a

    def visit_If(self, node: ast.If) -> None:
        if ast.unparse(node.test) not in {"TYPE_CHECKING", "typing.TYPE_CHECKING"}:
            self.generic_visit(node)

    def visit_Import(self, node: ast.Import) -> None:
        self.found.update(alias.name for alias in node.names)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        prefix = self.parts[: len(self.parts) - node.level + 1] if node.level else []
        base = ".".join([*prefix, *([node.module] if node.module else [])])
        self.found.add(base)
        self.perhaps.update(f"{base}.{alias.name}" for alias in node.names)


def follow(module: str, roots: list[Path]) -> tuple[set[str], set[str]]:
    """Our modules and the foreign top-level modules that importing `module` may need; fails on a lost one."""
    ours: set[str] = set()
    foreign: set[str] = set()
    todo = [module]
    while todo:
        name = todo.pop()
        top = name.split(".")[0]
        if top not in {"components", "pi_behavior"}:
            foreign.add(top)
            continue
        path = resolve(name, roots)
        assert path, f"{module} needs {name}, which is not in the image"
        if name in ours:
            continue
        ours.add(name)
        parents = name.split(".")
        todo += [".".join(parents[:count]) for count in range(1, len(parents))]
        visitor = Imports(name, path.name == "__init__.py")
        visitor.visit(ast.parse(path.read_text()))
        todo += visitor.found
        todo += [one for one in visitor.perhaps if resolve(one, roots)]
    return ours, foreign


def test_every_stage_runs_in_exactly_one_image(dockerfiles):
    found = [stage for dockerfile in dockerfiles for stage in sorted(stages_of(dockerfile))]
    assert sorted(found) == sorted(STAGES)
    services = {name for dockerfile in dockerfiles for name in services_of(dockerfile)}
    assert set(BUILT) <= STAGES | services, "a new stage needs an image: name it in a Dockerfile's b1k.stages"


@pytest.mark.parametrize("stage", BUILT)
def test_stage_finds_its_code_and_libraries(stage, dockerfiles):
    for dockerfile in images_of(dockerfiles, stage):
        ours, foreign = follow(f"components.{stage}.__main__", packaged(dockerfile))
        assert f"components.{stage}.__main__" in ours
        assert not foreign & {"household", "pipelines", "benchmarks", "kfp"}
        providers = metadata.packages_distributions()
        present = installed(dockerfile)
        for module in sorted(foreign - sys.stdlib_module_names):
            names = {canonicalize_name(name) for name in providers.get(module, [module])}
            assert names & present, f"components.{stage} imports {module}, which its image does not install"


@pytest.mark.parametrize("profile", ["laptop", "cluster_small"])
def test_profiles_run_stages_in_images_that_have_them(dockerfiles, profile):
    by_name = {dockerfile.final.name: dockerfile for dockerfile in dockerfiles}
    steps = load_profile(profile).steps
    # at home nobody is told how a run ended
    assert steps.keys() == (STAGES - {"notify"} if profile == "laptop" else STAGES)
    for stage, step in steps.items():
        assert by_name[step.image] in images_of(dockerfiles, stage)


def test_images_hold_no_orchestrator_simulator_or_developer_tools(dockerfile):
    unwanted = {"kfp", "kfp-kubernetes", "kubernetes", "docker", "mypy", "ruff"}
    # bddl, which reads the tasks' definitions, requires pytest
    simulator = {"household", "mujoco", "pytest"}
    allowed = simulator if dockerfile.final.name == "household" else set()
    assert installed(dockerfile) & (unwanted | simulator) == allowed


def test_images_hold_only_the_extras_of_their_role(dockerfiles):
    """DVC is for demonstrations, W&B and CUDA for those that train or serve."""
    holds = {dockerfile.final.name: installed(dockerfile) for dockerfile in dockerfiles}
    marks = {
        "dvc": {"toolbox", "household"},
        "wandb": {"trainer", "household"},
        "jax-cuda12-plugin": {"trainer", "evaluator", "policy"},
    }
    for name, roles in marks.items():
        assert {role for role, names in holds.items() if name in names} == roles, name


def test_every_library_is_pinned(dockerfile):
    stage = dockerfile.stage("dependencies")
    copied = {Path(word).name: ROOT / word for copy in stage.all("COPY") for word in copy.words[:-1]}
    arguments = stage.libraries()
    files = [arguments[i + 1] for i, word in enumerate(arguments) if word == "--constraint"]
    assert files[0] == "constraints.txt"
    pinned = {
        canonicalize_name(line.partition("==")[0])
        for name in files
        for line in copied[name].read_text().splitlines()
        if "==" in line and not line.startswith("#")
    }
    assert installed(dockerfile) - set(OURS) <= pinned


def test_packages_are_whole():
    """setuptools finds packages by ``__init__.py`` and takes other files only by pattern."""
    for root in (ROOT / "components", ROOT / "model" / "src" / "pi_behavior"):
        folder = root.parent if root.name == "components" else ROOT / "model"
        settings = tomllib.loads((folder / "pyproject.toml").read_text())["tool"]["setuptools"]
        patterns = settings["package-data"]["*"]
        for path in root.rglob("*"):
            if not path.is_file() or "__pycache__" in path.parts:
                continue
            assert (path.parent / "__init__.py").exists(), f"{path.parent} needs __init__.py to be installed"
            assert path.suffix == ".py" or any(path.match(one) for one in patterns), f"{path} stays behind"
