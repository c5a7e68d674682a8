"""`b1k report`: a report again with labels, and labels as CSV."""

import importlib.util
import json
import re
import sys
from pathlib import Path

import pytest

from components.errors import UserError
from components.results.labels import Label, Labels
from components.store import lineage
from pipelines.tools.report import Agreement, Build, Export, Import, Open, run

_spec = importlib.util.spec_from_file_location(
    "challenge", Path(__file__).parents[1] / "browser" / "challenge.py"
)
challenge = sys.modules["challenge"] = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(challenge)


@pytest.fixture(scope="module")
def board(tmp_path_factory):
    tasks = ("turning_on_radio", "picking_up_trash")
    return challenge.make(tmp_path_factory.mktemp("report") / "workspace", tasks, instances=2)


def test_labels_build_and_csv(board, tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    rollout = "common/turning_on_radio/301/0"
    labels = Labels(board.workspace / "labels", board.digest)
    labels.add(
        [Label.make(rollout, who, causes, "seen") for who, causes in (("Ann", ["fell"]), ("Bob", ["order"]))]
    )
    assert run(Open(workspace=board.workspace)) == 0
    assert capsys.readouterr().out.splitlines()[-1] == str(board.path / "report" / "index.html")
    output = tmp_path / "built"
    assert run(Build(board.path, output=output)) == 0
    text = (output / "index.html").read_text()
    data = json.loads(re.search(r'id="data">(.*?)</script>', text, re.DOTALL).group(1))
    assert data["labels"][rollout]["Ann"] == {"causes": ["fell"], "note": "seen"}
    assert sum(data["rollouts"]["video"]) == len(list(output.rglob("*.mp4"))) > 0
    assert lineage.verify(board.path, shallow=True)[1] == []
    with pytest.raises(UserError, match="lies in an artifact"):
        run(Build(board.path, output=board.path / "again"))
    assert run(Export(board.path, output=tmp_path / "labels.csv")) == 0
    capsys.readouterr()
    for expected in ("0 labels added, 2 were there", "2 labels added, 0 were there"):
        assert run(Import(board.path, file=tmp_path / "labels.csv")) == 0
        assert capsys.readouterr().out.strip() == expected
        labels.path.unlink()
    labels.add([Label.make(rollout, who, ["fell"], "") for who in ("Ann", "Bob")])
    labels.add([Label.make("common/turning_on_radio/302/0", who, ["order"], "") for who in ("Ann", "Bob")])
    assert run(Agreement(board.path)) == 0
    assert re.search(r"Robot fell\s*│\s*1\.00", capsys.readouterr().out)


def test_no_leaderboard(tmp_path):
    with pytest.raises(UserError, match="has no leaderboard"):
        run(Open(workspace=tmp_path))
