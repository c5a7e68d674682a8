"""What makes an output another one: configuration, inputs, and the code that runs; and what does not."""

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from components.store.identity import code_digest, fingerprint, relevant
from components.store.lineage import Dependency
from components.train.config import Config as TrainConfig
from components.train.stage import STAGE as TRAIN
from pi_behavior.config import OPERATIONAL

ROOT = Path(__file__).parents[3]


@dataclass(frozen=True)
class Inner:
    rate: float = 1.0
    log_every: int = field(default=20, metadata=OPERATIONAL)


@dataclass(frozen=True)
class Config:
    steps: int = 1
    inner: Inner = Inner()
    several: tuple[Inner, ...] = (Inner(2.0),)
    by_name: dict[str, Inner] = field(default_factory=lambda: {"a": Inner(3.0)})
    workers: int = field(default=1, metadata=OPERATIONAL)


def test_operational_fields_are_left_out_also_nested_ones() -> None:
    assert relevant(Config()) == {
        "steps": 1,
        "inner": {"rate": 1.0},
        "several": [{"rate": 2.0}],
        "by_name": {"a": {"rate": 3.0}},
    }


def _key(config: Config = Config(), inputs=(), external=(), code: str = "", stage: str = "s") -> str:
    return fingerprint(stage, config, {"sources": inputs}, external, code)


def test_key_changes_with_all_that_decides_the_result(make, tmp_path: Path) -> None:
    one, other = make(tmp_path, "one"), make(tmp_path, "two", content="one")
    inside = tuple(
        Dependency.of_folder("initial", one.path / name, tmp_path) for name in ("meta", "meta/deeper")
    )
    elsewhere = Dependency.of_folder("initial", other.path / "meta", tmp_path)
    assert one.digest == other.digest
    keys = [
        _key(),
        _key(Config(steps=2)),
        _key(Config(inner=Inner(0.5))),
        _key(inputs=(one,)),
        _key(inputs=(other,)),
        _key(inputs=(one, other)),
        _key(external=(inside[0],)),
        _key(external=(inside[1],)),
        _key(external=(elsewhere,)),
        _key(external=(Dependency("revision", "dvc", {"md5": "0"}),)),
        _key(external=(Dependency("revision", "dvc", {"md5": "1"}),)),
        _key(code="0"),
        _key(stage="t"),
    ]
    assert len(set(keys)) == len(keys)
    assert all(len(key) == 16 and int(key, 16) >= 0 for key in keys)


def test_key_stays_with_log_intervals_and_with_inputs_made_again(make, tmp_path: Path) -> None:
    changed = Config(inner=Inner(log_every=1), workers=8)
    assert _key(changed) == _key()
    one, again = make(tmp_path / "a", "one"), make(tmp_path / "b", "one", days_old=1)
    assert _key(inputs=(one,)) == _key(inputs=(again,))
    initial = [Dependency.of_folder("initial", a.path / "meta", tmp_path / "a") for a in (one, again)]
    assert initial[0].uri != initial[1].uri
    assert _key(external=initial[:1]) == _key(external=initial[1:])
    assert _key(inputs=(replace(one, fingerprint="0"),)) != _key(inputs=(one,))


def _digest(*roots: str, path: Path) -> str:
    program = (
        "import sys\nfrom components.store.identity import code_digest\nbefore = set(sys.modules)\n"
        f"print(code_digest({roots}))\nassert not {{m for m in set(sys.modules) - before if 'robot' in m}}"
    )
    environment = {**os.environ, "PYTHONPATH": str(path), "PYTHONDONTWRITEBYTECODE": "1"}
    answer = subprocess.run(
        [sys.executable, "-c", program], env=environment, cwd=path, capture_output=True, text=True, check=True
    )
    return answer.stdout.strip()


FILES = {
    "__init__.py": '"""Robots."""\n',
    "stage.py": '"""Stage."""\nfrom typing import TYPE_CHECKING\nfrom robot import arm\n'
    "if TYPE_CHECKING:\n    from robot import typed\n\n\n"
    "def run(x: int) -> int:\n    '''Run.'''\n    from robot.hands.finger import bend\n"
    "    return bend(arm.LENGTH)\n",
    "arm.py": "LENGTH = 1\n'''Of the arm.'''\n",
    "typed.py": "Length = int\n",
    "unused.py": "X = 1\n",
    "hands/__init__.py": "",
    "hands/finger.py": "from ..names import *\n\n\ndef bend(x):\n    return x + 1\n",
    "hands/finger.json": "{}",
    "hands/finger.txt": "text",
    "names.py": "NAME = 'robot'\n",
}


@pytest.fixture
def robot(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        path = tmp_path / "robot" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path / "robot"


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("stage.py", '"""Stage."""', '"""The stage."""  # it runs'),
        ("stage.py", "'''Run.'''", "'''Runs!'''"),
        ("stage.py", "    '''Run.'''\n", ""),
        ("stage.py", "return bend(arm.LENGTH)", "return bend(\n        arm.LENGTH  # metres\n    )"),
        ("stage.py", "import typed", "import typed, unused"),
        ("arm.py", "Of the arm.", "In metres."),
        ("typed.py", "int", "float"),
        ("unused.py", "1", "2"),
        ("hands/finger.txt", "text", "other"),
    ],
)
def test_texts_and_code_that_does_not_run_do_not_count(robot: Path, name: str, old: str, new: str) -> None:
    before = _digest("robot.stage", path=robot.parent)
    (robot / name).write_text(FILES[name].replace(old, new))
    assert (robot / name).read_text() != FILES[name]
    assert _digest("robot.stage", path=robot.parent) == before


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("stage.py", "arm.LENGTH", "-arm.LENGTH"),
        ("arm.py", "1", "2"),
        ("__init__.py", "\n", "\nSPEED = 1\n"),
        ("hands/__init__.py", "", "SPEED = 1\n"),
        ("hands/finger.py", "x + 1", "x + 2"),
        ("hands/finger.json", "{}", "[]"),
        ("names.py", "robot", "arm"),
    ],
)
def test_code_that_runs_counts_wherever_it_is_imported(robot: Path, name: str, old: str, new: str) -> None:
    before = _digest("robot.stage", path=robot.parent)
    (robot / name).write_text(FILES[name].replace(old, new) if old else new)
    assert _digest("robot.stage", path=robot.parent) != before


def test_place_of_the_code_does_not_count(robot: Path, tmp_path: Path) -> None:
    shutil.copytree(robot, tmp_path / "copy" / "robot")
    assert _digest("robot.stage", path=tmp_path / "copy") == _digest("robot.stage", path=tmp_path)


def test_unknown_module_is_named() -> None:
    with pytest.raises(ValueError, match=r"no module 'components.nothing'"):
        code_digest(("components.nothing",))


def test_closures_of_this_project(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "components", tmp_path / "components")
    shutil.copytree(ROOT / "model" / "src" / "pi_behavior", tmp_path / "pi_behavior")
    roots = ((*TRAIN.code, *TRAIN.imports(TrainConfig())), ("components.group.stage",))

    def after(name: str) -> list[bool]:
        """Which digests a new line of code changes."""
        before = [_digest(*root, path=tmp_path) for root in roots]
        with (tmp_path / name).open("a") as file:
            file.write("\nNEW = 1\n")
        return [_digest(*root, path=tmp_path) != digest for root, digest in zip(roots, before, strict=True)]

    assert after("components/runtime/stage.py") == [False, False]
    assert after("components/store/making.py") == [False, False]
    assert after("components/news/stage.py") == [False, False]
    assert after("components/group/stage.py") == [False, True]
    assert after("pi_behavior/flow.py") == [True, False]
    assert after("pi_behavior/losses.py") == [True, False]
    assert after("pi_behavior/lbm/objectives.py") == [False, False], "of the other family"


def test_a_script_and_a_module_of_tests_have_a_digest(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "from components.store.identity import code_digest\nprint(code_digest(('__main__',)))\n"
    )
    run = [sys.executable, str(script)]
    assert len(subprocess.run(run, capture_output=True, text=True, check=True).stdout.strip()) == 64
    assert code_digest((__name__,)) != code_digest(("components.store.identity",))
