"""Lineage chains: a flipped byte anywhere is found and named."""

from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.runtime.stage import Result, Stage, Work
from components.store.artifact import Artifact, format_sums, hash_files, parse_sums
from components.store.lineage import chain, verify


@dataclass(frozen=True)
class Config:
    """Text to write."""

    text: str = ""
    """Text."""


@dataclass(frozen=True)
class Inputs:
    """Any artifacts."""

    sources: tuple[Artifact, ...] = ()
    """Sources."""


def run(config: Config, inputs: Inputs, work: Work) -> Result:
    """Write two files."""
    (work.path / "episode.bin").write_bytes(config.text.encode() * 3)
    (work.path / "meta").mkdir(exist_ok=True)
    (work.path / "meta" / "info.json").write_text('{"a": 1}')
    return Result()


STAGE = Stage("shared", Config, Inputs, run, ())


@pytest.fixture
def top(tmp_path: Path) -> Artifact:
    raw, _, _ = STAGE.execute(Config("raw"), Inputs(), tmp_path)
    left, _, _ = STAGE.execute(Config("left"), Inputs((raw,)), tmp_path)
    right, _, _ = STAGE.execute(Config("right"), Inputs((raw, left)), tmp_path)
    return STAGE.execute(Config("top"), Inputs((left, right)), tmp_path)[0]


def _files(top: Artifact) -> list[Path]:
    return sorted(p for p in (top.workspace / "artifacts").rglob("*") if p.is_file() and p.suffix != ".lock")


def test_untouched_chain_verifies_and_reaches_the_raw_data(top: Artifact) -> None:
    folders, problems = verify(top.path)
    assert problems == []
    assert len(folders) == 4
    assert [n.depth for n in chain(top)] == [0, 1, 1, 2]


@pytest.mark.parametrize("place", [0, -2])
def test_every_flipped_byte_is_found_and_its_file_named(top: Artifact, place: int) -> None:
    files = _files(top)
    assert len(files) == 4 * 5
    for file in files:
        content = file.read_bytes()
        changed = bytearray(content)
        changed[place] ^= 1
        file.write_bytes(bytes(changed))
        _, problems = verify(top.path)
        named = {p.path for p in problems} | {p.path.parent / w for p in problems for w in p.message.split()}
        assert file in named, (file, problems)
        file.write_bytes(content)
    assert verify(top.path)[1] == []


def test_missing_and_added_files_are_named(top: Artifact) -> None:
    (top.path / "episode.bin").unlink()
    (top.path / "meta" / "extra").write_text("x")
    found = {p.path.relative_to(top.path).as_posix(): p.message for p in verify(top.path)[1]}
    assert found.keys() == {"episode.bin", "meta/extra"}
    assert found["episode.bin"].startswith("missing")
    assert found["meta/extra"].startswith("not recorded")


def test_missing_input_folder_is_named(top: Artifact) -> None:
    raw = list(chain(top))[-1].path
    raw.rename(raw.with_name("elsewhere"))
    assert [p.path for p in verify(top.path)[1]] == [raw]


def test_replaced_input_is_found_although_it_is_consistent_in_itself(top: Artifact, tmp_path: Path) -> None:
    raw = list(chain(top))[-1].path
    other, _, _ = STAGE.execute(Config("other"), Inputs(), tmp_path / "elsewhere")
    raw.rename(raw.with_name("old"))
    other.path.rename(raw)
    assert any(p.path.parent == raw or p.path == raw for p in verify(top.path)[1])


@given(
    st.dictionaries(
        st.text("abcXYZ 0.-_/é", min_size=1).filter(lambda s: s.splitlines() == [s]),
        st.text("0123456789abcdef", min_size=64, max_size=64),
    )
)
def test_sums_round_trip(sums: dict[str, str]) -> None:
    assert parse_sums(format_sums(sums)) == sums


def test_sums_are_those_of_sha256sum(tmp_path: Path) -> None:
    (tmp_path / "abc").write_text("abc")
    assert hash_files(tmp_path) == {"abc": "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"}
