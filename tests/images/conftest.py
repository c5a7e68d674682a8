"""Reads the Dockerfiles as they are: stages, instructions, and what pip installs from where."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass, field
from pathlib import Path
from string import Template

import pytest

ROOT = Path(__file__).parents[2]
DOCKERFILES = sorted((ROOT / "images").glob("*.Dockerfile"))


@dataclass(frozen=True)
class Instruction:
    """One instruction with its flags (``--from=wheels``) taken off."""

    name: str
    flags: dict[str, str]
    words: tuple[str, ...]

    def pairs(self) -> dict[str, str]:
        """The ``key=value`` words of ENV, LABEL or ARG."""
        return {key: value for key, _, value in (word.partition("=") for word in self.words)}

    def commands(self) -> list[list[str]]:
        """The commands of RUN, split at ``&&``."""
        found: list[list[str]] = [[]]
        for word in self.words:
            if word == "&&":
                found.append([])
            else:
                found[-1].append(word)
        return found


@dataclass(frozen=True)
class BuildStage:
    name: str
    base: str
    instructions: list[Instruction] = field(default_factory=list)

    def all(self, name: str) -> list[Instruction]:
        return [instruction for instruction in self.instructions if instruction.name == name]

    def merged(self, name: str) -> dict[str, str]:
        return {key: value for one in self.all(name) for key, value in one.pairs().items()}

    def pip_installs(self) -> list[list[str]]:
        """The arguments of every ``pip install``."""
        commands = [command for run in self.all("RUN") for command in run.commands()]
        return [
            command[command.index("install") + 1 :]
            for command in commands
            if "install" in command and "pip" in command[: command.index("install")]
        ]

    def libraries(self) -> list[str]:
        """The arguments of the ``pip install`` into the environment that the image gets."""
        commands = [command for run in self.all("RUN") for command in run.commands()]
        defaults = self.merged("ARG")
        (found,) = [
            command[command.index("install") + 1 :]
            for command in commands
            if command[0] == "pip" and "--python" in command and "install" in command
        ]
        return [Template(word).safe_substitute(defaults) for word in found]


@dataclass(frozen=True)
class Dockerfile:
    path: Path
    arguments: dict[str, str]
    stages: list[BuildStage]

    @property
    def final(self) -> BuildStage:
        return self.stages[-1]

    def stage(self, name: str) -> BuildStage:
        return next(stage for stage in self.stages if stage.name == name)

    def resolve(self, text: str) -> str:
        """Replaces the global build arguments by their defaults, as FROM does."""
        while "$" in text:
            text = Template(text).substitute(self.arguments)
        return text


def parse(path: Path) -> Dockerfile:
    """Parses a Dockerfile (no here-documents; we use none)."""
    lines = [line for line in path.read_text().splitlines() if not line.lstrip().startswith("#")]
    logical = re.sub(r"\\\n", " ", "\n".join(lines)).splitlines()
    arguments: dict[str, str] = {}
    stages: list[BuildStage] = []
    for line in filter(None, map(str.strip, logical)):
        name, _, rest = line.partition(" ")
        words = shlex.split(rest)
        flags: dict[str, str] = {}
        while words and words[0].startswith("--"):
            key, _, value = words.pop(0).removeprefix("--").partition("=")
            flags[key] = value
        if name == "FROM":
            assert words[1] == "AS", f"{path.name}: name the stage: {line}"
            stages.append(BuildStage(words[2], words[0]))
        elif not stages:
            assert name == "ARG"
            arguments.update(Instruction(name, flags, tuple(words)).pairs())
        else:
            stages[-1].instructions.append(Instruction(name, flags, tuple(words)))
    return Dockerfile(path, arguments, stages)


@pytest.fixture(params=DOCKERFILES, ids=lambda path: path.name.removesuffix(".Dockerfile"))
def dockerfile(request: pytest.FixtureRequest) -> Dockerfile:
    return parse(request.param)


@pytest.fixture
def dockerfiles() -> list[Dockerfile]:
    return [parse(path) for path in DOCKERFILES]
