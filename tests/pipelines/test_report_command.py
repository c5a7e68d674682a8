"""`b1k report`: a report again with labels, and labels as CSV."""

import importlib.util
import json
import re
import sys
from pathlib import Path

import pytest

from components.errors import UserError
from components.evaluation import records
from components.promote import stage as promote
from components.promote.config import Config as PromoteConfig
from components.promote.config import Inputs as PromoteInputs
from components.results.labels import Label, Labels
from components.results.listing import decision_of
from components.store import lineage
from components.store.artifact import Artifact
from components.trial.config import Config as TrialConfig
from components.trial.config import Inputs as TrialInputs
from components.trial.stage import STAGE as TRIAL
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
    output = tmp_path / "built"
    assert run(Build(board.path, output=output)) == 0
    text = (output / "index.html").read_text()
    data = json.loads(re.search(r'id="data">(.*?)</script>', text, re.DOTALL).group(1))
    assert data["labels"][rollout]["Ann"] == {"causes": ["fell"], "note": "seen"}
    assert sum(data["rollouts"]["video"]) == len(list(output.rglob("*.mp4"))) > 0
    links = re.findall(r'href="(\.\.[^"]*)"', text)
    assert any(link.endswith("summary.html") for link in links)
    assert all((output / link).exists() for link in links)
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


def test_the_report_that_is_opened_has_the_decision(board, capsys, monkeypatch):
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)

    def opened():
        assert run(Open(workspace=board.workspace)) == 0
        page = board.workspace / "report" / "index.html"
        assert capsys.readouterr().out.splitlines()[-1] == str(page)
        return page.read_text()

    assert "Decided after this page was made" in opened()
    plan = Artifact.load(
        next(place for name, place in lineage.Node.read(board.path).inputs() if name == "plan")
    )
    drawn = TRIAL.execute(TrialConfig(), TrialInputs(board, plan), board.workspace).artifact
    rollouts = challenge.shared.Factory(board.workspace).confirmation(
        drawn, lambda ours, _: 10 if ours else 0
    )
    inputs = PromoteInputs(board, plan, drawn, (rollouts,))
    made = promote.STAGE.execute(PromoteConfig(), inputs, board.workspace)
    text, decision = opened(), decision_of(board.path)
    verdict = decision.verdict
    assert decision == records.read(made.artifact.path / promote.DECISION, promote.Decision, "")
    assert f'<h2 id="promotion-title">{"Promoted" if decision.promoted else "Not promoted"}</h2>' in text
    for said in (f"{verdict.difference:+.3f}", f"[{verdict.low:+.3f}, {verdict.high:+.3f}]", verdict.pairs):
        assert str(said) in text
    assert "Decided after" not in text
    assert not list(board.workspace.glob(".report*"))
    assert lineage.verify(board.path, shallow=True)[1] == []


def test_no_leaderboard(tmp_path):
    with pytest.raises(UserError, match="has no leaderboard"):
        run(Open(workspace=tmp_path))
