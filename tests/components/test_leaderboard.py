"""Scores, submission and report from artifacts of real stages."""

import dataclasses
import json
import re
import zipfile
from html.parser import HTMLParser
from pathlib import Path

import pytest

from components.leaderboard import stage as leaderboard
from components.leaderboard.curves import draw
from components.leaderboard.submission import Identity
from components.plan import stage as plan_stage
from components.runtime.errors import UserError
from components.store import lineage

RADIO, TRASH = TASKS = ("turning_on_radio", "picking_up_trash")


def score(key):
    """The group is better at the radio, and worse at the trash."""
    if key.policy == "untrained":
        return 0.0
    if key.task == TRASH and key.policy == "common" and key.index == 3:
        return None
    even = key.index % 2 == 1
    if key.task == RADIO:
        return 1.0 if even or key.policy == "group:best" else 0.0
    return (2 / 3 if even else 0.0) if key.policy == "common" else 0.0


@dataclasses.dataclass
class Run:
    common: object
    models: tuple
    validation: tuple
    plan: object
    reported: tuple
    config: leaderboard.Config

    @property
    def inputs(self):
        return leaderboard.Inputs(self.plan, self.reported, self.models, self.validation)


@pytest.fixture
def run(factory):
    return evaluations(factory)


def evaluations(factory, **changes):
    """Two evaluations, as the pipeline runs them."""
    common = factory.model("common", TASKS)
    sizes = {"validation_instances": 6, "reported_instances": 10, "workers": 2, "videos": 1, **changes}
    first, _, _ = plan_stage.STAGE.execute(
        plan_stage.Config(sets=("validation",), **sizes), plan_stage.Inputs((common,)), factory.workspace
    )
    validation = factory.evaluations(first, score)
    models = (common, factory.model("best", (RADIO,)), factory.model("bad", (TRASH,)))
    second, _, _ = plan_stage.STAGE.execute(
        plan_stage.Config(untrained=True, **sizes), plan_stage.Inputs(models), factory.workspace
    )
    reported = factory.evaluations(second, score, videos=True)
    config = leaderboard.Config(
        team="Robot lab", affiliation="A university", edition=changes.get("edition", "2026")
    )
    return Run(common, models, validation, second, reported, config)


def make(run, workspace, **changes):
    inputs = dataclasses.replace(run.inputs, **changes)
    return leaderboard.STAGE.execute(run.config, inputs, workspace)


def test_scores(run, factory):
    artifact, result, _ = make(run, factory.workspace)
    scores = json.loads((artifact.path / "scores.json").read_text())
    radio, trash = scores["tasks"][RADIO], scores["tasks"][TRASH]
    # chosen on validation; the common policy is the better one at the trash
    assert (radio["chosen"], trash["chosen"]) == ("group:best", "common")
    best = radio["policies"]["group:best"]["reported"]
    assert (best["q"], best["n"], best["success"], best["high"]) == (1.0, 10, 1.0, 1.0)
    assert best["low"] == pytest.approx(0.6915, abs=1e-4)  # Clopper-Pearson for 10 of 10
    # instances 302, 306, 308, 310 score 2/3; 304 never finished and counts as 0
    common = trash["policies"]["common"]["reported"]
    assert common["q"] == pytest.approx(4 * 2 / 3 / 10)
    assert (common["unfinished"], common["success"]) == (1, 0.0)
    assert common["success_high"] == pytest.approx(0.3085, abs=1e-4)
    assert common["bootstrap_low"] < common["q"] < common["bootstrap_high"]
    overall = scores["overall"]
    assert overall["q"] == pytest.approx((1.0 + 8 / 30) / 2)
    assert overall["low"] < overall["q"] < overall["high"]
    assert (overall["tasks"], overall["n"]) == (2, 20)
    assert set(overall["policies"]) == {"common", "untrained"}
    untrained = overall["policies"]["untrained"]
    assert untrained["q"] == 0.0
    assert untrained["high"] > 0.1  # 20 failures do not prove that it never works
    assert result.metrics["q"] == overall["q"]
    episodes = json.loads((artifact.path / "episodes.json").read_text())
    assert len(episodes) == 2 * (6 + 6 + 10 + 10 + 10)
    assert sum(not row["finished"] for row in episodes) == 1
    assert lineage.verify(artifact.path)[1] == []


def test_the_evaluator_of_2025_gives_the_same_scores(run, factory, tmp_path, monkeypatch):
    metadata = tmp_path / "2025-challenge-task-instances" / "metadata"
    metadata.mkdir(parents=True)
    ids = '"45,201,7,12,13,14,15,16,17,18"'
    (metadata / "test_instances.csv").write_text(f"id,name,ids\n0,{RADIO},{ids}\n1,{TRASH},{ids}\n")
    demos = [task * 10_000 + instance * 10 for task in (0, 1) for instance in (3, 1, 20, 21, 22, 23)]
    (metadata / "episodes.jsonl").write_text("\n".join(f'{{"episode_index": {e}}}' for e in demos))
    monkeypatch.setenv("OMNIGIBSON_DATA_PATH", str(tmp_path))
    of_2025, _, _ = make(evaluations(factory, evaluator="omnigibson", edition="2025"), factory.workspace)
    of_2026, _, _ = make(run, factory.workspace)
    monkeypatch.delenv("OMNIGIBSON_DATA_PATH")  # only workers need the simulator's data
    scores = [json.loads((a.path / "scores.json").read_text())["tasks"] for a in (of_2025, of_2026)]
    for task in (RADIO, TRASH):
        one, other = (table[task] for table in scores)
        assert one["chosen"] == other["chosen"]
        for policy in one["policies"]:
            assert one["policies"][policy]["reported"] == other["policies"][policy]["reported"]
    (folder,) = (p for p in (of_2025.path / "submission").iterdir() if p.is_dir())
    names = {f"{RADIO}_{i}_0.json" for i in (45, 201, 7, 12, 13, 14, 15, 16, 17, 18)}
    assert {p.name for p in (folder / "json").glob(f"{RADIO}_*")} == names
    assert "policy=websocket task.name=TASK" in (folder / "README.md").read_text()
    assert "instance 45" in (of_2025.path / "report" / "index.html").read_text()


def test_a_worker_that_is_missing_counts_as_0(run, factory):
    artifact, _, _ = make(run, factory.workspace, reported=run.reported[:1])
    scores = json.loads((artifact.path / "scores.json").read_text())
    policies = [p for task in scores["tasks"].values() for p in task["policies"].values()]
    assert {policy["reported"]["n"] for policy in policies} == {10}
    assert sum(policy["reported"]["unfinished"] for policy in policies) > 10


def test_no_reported_rollouts(factory):
    config = plan_stage.Config(sets=("validation",), validation_instances=2)
    inputs = plan_stage.Inputs((factory.model("common", TASKS),))
    plan, _, _ = plan_stage.STAGE.execute(config, inputs, factory.workspace)
    evaluations = factory.evaluations(plan, lambda key: 1.0)
    with pytest.raises(UserError, match=r"plan with --config\.sets reported"):
        leaderboard.STAGE.execute(
            leaderboard.Config(), leaderboard.Inputs(plan, evaluations), factory.workspace
        )


def test_another_edition(run, factory):
    with pytest.raises(UserError, match="the plan was made for 2026"):
        leaderboard.STAGE.execute(leaderboard.Config(edition="2025"), run.inputs, factory.workspace)


def test_submission(run, factory, tmp_path):
    wrapper = tmp_path / "wrapper.py"
    wrapper.write_text("# a wrapper\n")
    run.config = dataclasses.replace(run.config, wrapper=str(wrapper))
    artifact, _, _ = make(run, factory.workspace)
    (folder,) = [path for path in (artifact.path / "submission").iterdir() if path.is_dir()]
    assert re.fullmatch(r"standard\.public\.Robot_lab\.A_university\.\d{4}-\d\d-\d\d", folder.name)
    names = {path.name for path in (folder / "json").iterdir()}
    wanted = {f"{task}_{i}_0.json" for task in TASKS for i in range(301, 311)}
    assert names == wanted - {f"{TRASH}_304_0.json"}
    # the evaluator's files of the chosen policy, byte by byte
    for name in names:
        policy = "group-best" if name.startswith(RADIO) else "common"
        sources = [a.path / "rollouts" / policy / "reported" / "json" / name for a in run.reported]
        (source,) = [path for path in sources if path.exists()]
        assert (folder / "json" / name).read_bytes() == source.read_bytes()
    readme = (folder / "README.md").read_text()
    assert "Not BEHAVIOR scores; not for submission" in readme
    assert f"{TRASH}_304_0" in readme
    assert "wrapper.py" in readme
    assert "--task-name TASK" in readme
    assert str(Path.home()) not in readme
    with zipfile.ZipFile(folder.with_name(folder.name + ".zip")) as archive:
        inside = set(archive.namelist())
        assert archive.testzip() is None
    assert inside == {f"{folder.name}/{path}" for path in ("README.md", "wrapper.py")} | {
        f"{folder.name}/json/{name}" for name in names
    }


@pytest.mark.parametrize(
    "change", [{"team": "a.b"}, {"affiliation": ""}, {"track": "open"}, {"testset": "secret"}]
)
def test_names_that_the_folder_cannot_hold(change):
    with pytest.raises(ValueError, match="expected"):
        leaderboard.Config(**change)
    assert (
        Identity("standard", "hidden", "T U", "A", "2026-01-02").folder == "standard.hidden.T_U.A.2026-01-02"
    )


class Page(HTMLParser):
    """Collects what a page refers to."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.ids: set[str] = set()
        self.labels: list[str] = []
        self.open: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        self.tags.append(tag)
        if tag not in ("meta", "link", "br", "hr", "source", "path"):
            self.open.append(tag)
        self.links += [values[name] for name in ("href", "src", "poster") if values.get(name)]
        if "id" in values:
            self.ids.add(values["id"])
        if tag in ("video", "figure") and "aria-label" in values:
            self.labels.append(values["aria-label"])

    def handle_endtag(self, tag):
        if tag != "path":
            assert self.open.pop() == tag


def test_report(run, factory):
    artifact, _, _ = make(run, factory.workspace)
    text = (artifact.path / "report" / "index.html").read_text()
    page = Page(text)
    assert page.open == []
    assert "not a BEHAVIOR score" in text
    for task in TASKS:
        assert task in text
    for words in ("group:best", "untrained", "0.633", "chosen", "b1k lineage verify", "never finished"):
        assert words in text
    # self-contained: no script, nothing from elsewhere
    assert "script" not in page.tags
    assert not re.search(r"(?:https?:)?//[a-z]", text)
    assert "url(" not in text
    assert "@import" not in text
    for link in page.links:
        if link.startswith("#"):
            assert link[1:] in page.ids
        elif not link.startswith("data:"):
            assert (artifact.path / "report" / link).exists(), link
    # first reported instance of each task with group, common and untrained policy
    assert page.tags.count("video") == 6
    assert text.count('preload="none"') == 6
    assert sum("success" in label for label in page.labels) >= 6
    for name in ("common", "group:best", "group:bad"):
        assert any(label.startswith(f"loss of {name}") for label in page.labels)
    for model in run.models:
        assert model.uri in text
        assert model.digest[:16] in text
    # the one-file version for the Kubeflow UI
    summary = (artifact.path / "summary.html").read_text()
    assert "<video" not in summary
    assert "0.633" in summary


def test_broken_video_is_left_out(run, factory):
    for artifact in run.reported:
        for video in artifact.path.rglob("*.mp4"):
            video.write_bytes(b"not a video")
    artifact, _, _ = make(run, factory.workspace)
    assert "<video" not in (artifact.path / "report" / "index.html").read_text()


def test_curves():
    rows = [{"step": s, "loss": 10.0 ** (-s / 500), "accuracy": s / 1000} for s in range(1001)]
    curve = draw("common", "loss", rows)
    assert [tick.label for tick in curve.x_ticks] == ["0", "500", "1,000"]
    assert {"0.01", "0.1", "1"} <= {tick.label for tick in curve.y_ticks}
    assert all(-1e-6 <= tick.place <= 100 + 1e-6 for tick in [*curve.x_ticks, *curve.y_ticks])
    numbers = [float(x) for x in re.findall(r"[\d.]+", curve.path)]
    assert all(0 <= x <= 100 for x in numbers)
    assert len(numbers) <= 500
    assert [t.label for t in draw("c", "accuracy", rows).y_ticks] == ["0", "0.5", "1"]
    assert draw("c", "loss", rows[:1]) is None
    assert draw("c", "other", rows) is None
    flat = draw("c", "loss", [{"step": 1, "loss": 0.0}, {"step": 2, "loss": 0.0}])
    assert flat is not None
