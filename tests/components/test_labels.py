"""Labels of failures: files that only grow, CSV there and back, and Cohen's kappa."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from statsmodels.stats.inter_rater import cohens_kappa

from components.errors import UserError
from components.leaderboard.causes import CAUSES, IDS
from components.results.labels import Label, Labels, from_csv, kappa, to_csv

DIGEST = "ab12" * 16
_causes = st.lists(st.sampled_from(sorted(IDS)), unique=True)
_text = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=40)
_labels = st.builds(
    lambda number, who, causes, note: Label.make(f"common/task/{number}/0", who, causes, note, "2026-01-01"),
    st.integers(301, 305),
    st.sampled_from(["Ann", "Bob", "=SUM(A1)", "'quoted", "ü 🤖 \u202e"]),
    _causes,
    _text,
)


def test_the_list_is_that_of_the_report():
    assert len(CAUSES) == len(IDS) == 13
    assert CAUSES[-1].id == "unknown"


def test_the_last_one_counts_and_all_are_kept(tmp_path):
    labels = Labels(tmp_path / "labels", DIGEST)
    assert labels.current() == {}
    make = lambda causes, note="": Label.make("common/radio/301/0", "Ann", causes, note)  # noqa: E731
    labels.add([make(["fell"]), make(["order", "dexterity"], "first the hand")])
    (people,) = labels.current().values()
    assert people["Ann"].causes == ("dexterity", "order")  # in the order of the list
    with labels.path.open("a") as file:
        file.write('{"time": "torn')  # by a kill
    labels.add([make([])])
    assert labels.current() == {}  # taken back
    assert len(labels.history()) == 3
    assert len(labels.path.read_text().splitlines()) == 4


@pytest.mark.parametrize("digest", ["", "../x", "AB", "a/b"])
def test_digests_that_are_none(tmp_path, digest):
    with pytest.raises(ValueError, match="hexadecimal"):
        Labels(tmp_path, digest)


@given(st.lists(_labels, max_size=12))
def test_csv_there_and_back(tmp_path_factory, made):
    folder = tmp_path_factory.mktemp("labels")
    first, second = Labels(folder / "a", DIGEST), Labels(folder / "b", DIGEST)
    first.add(made)
    text = to_csv(first.current())
    for line in text.splitlines()[1:]:
        assert not any(cell.strip('"').startswith(("=", "+", "@")) for cell in line.split(","))
    second.add(from_csv(text))
    assert second.current() == first.current()


def test_csv_that_is_refused():
    with pytest.raises(UserError, match="the columns are"):
        from_csv("a,b\n1,2\n")
    with pytest.raises(UserError, match=r"line 2: causes is"):
        from_csv("time,rollout,who,causes,note\n,common/a/1/0,Ann,else,\n")


@given(st.lists(st.tuples(_causes, _causes), min_size=1, max_size=30))
def test_kappa_is_that_of_statsmodels(pairs):
    first, second = ({str(i): pair[side] for i, pair in enumerate(pairs)} for side in (0, 1))
    found = kappa(first, {**second, "only the second": ["fell"]})
    for cause in IDS:
        table = np.zeros((2, 2))
        for a, b in pairs:
            table[int(cause in a), int(cause in b)] += 1
        if found[cause] is None:
            assert table.max() == len(pairs)
        else:
            assert found[cause] == pytest.approx(cohens_kappa(table, return_results=False))


def test_lines_are_json(tmp_path):
    labels = Labels(tmp_path, DIGEST)
    labels.add([Label.make("p/t/1/0", "Ann", ["fell"], "a\nb \u2028", "2026-01-01")])
    (line,) = labels.path.read_text().splitlines()
    assert json.loads(line)["note"] == "a\nb"
