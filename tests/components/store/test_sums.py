"""Digests of folders, in the format of sha256sum."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.errors import UserError
from components.store.sums import SUMS, format_sums, hash_files, parse_sums, tree_digest

NAMES = st.text(min_size=1).filter(lambda name: not set(name) & set("\n\r\\"))
DIGESTS = st.text("0123456789abcdef", min_size=64, max_size=64)


@given(st.dictionaries(NAMES, DIGESTS))
def test_sums_round_trip(sums: dict[str, str]) -> None:
    assert parse_sums(format_sums(sums)) == sums


@pytest.mark.parametrize("text", ["\n", "0" * 64 + " a\n", "0" * 63 + "  a\n", f"{'0' * 64}  a\n" * 2])
def test_other_texts_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"line [12]"):
        parse_sums(text)


@pytest.mark.skipif(shutil.which("sha256sum") is None, reason="needs sha256sum")
def test_sha256sum_agrees(tmp_path: Path) -> None:
    for name in ("abc", "with blank", "é\u2028", "sub/x"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    sums = hash_files(tmp_path)
    assert sums["abc"] == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    (tmp_path / SUMS).write_text(format_sums(sums))
    subprocess.run(["sha256sum", "--check", "--strict", SUMS], cwd=tmp_path, check=True)
    assert hash_files(tmp_path) == sums == parse_sums((tmp_path / SUMS).read_text())


@pytest.mark.parametrize("name", [b"line\nbreak", b"re\rturn", b"back\\slash", b"latin\xe9"])
def test_names_without_a_line_are_refused(name: bytes, tmp_path: Path) -> None:
    with open(os.path.join(os.fsencode(tmp_path), name), "wb"):
        pass
    with pytest.raises(UserError, match="rename it"):
        hash_files(tmp_path)


def test_leftovers_and_lineage_do_not_count(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("a")
    before = tree_digest(hash_files(tmp_path))
    for name in (".a.1.partial", "lineage.json", SUMS):
        (tmp_path / name).write_text("other")
    assert tree_digest(hash_files(tmp_path)) == before
