"""Scores, submission and report from artifacts of real stages."""

import dataclasses
import json
import re
import shlex
import shutil
import textwrap
import zipfile
from html.parser import HTMLParser
from pathlib import Path

import pytest

from components.errors import UserError
from components.evaluate import config as evaluate_config
from components.evaluate.stage import STAGE as EVALUATE
from components.evaluation.rollouts import EPISODES, ROLLOUTS, load, save
from components.leaderboard.config import Config, Inputs
from components.leaderboard.stage import STAGE
from components.plan import config as plan_config
from components.plan.stage import STAGE as PLAN
from components.runtime.curves import draw, draw_all
from components.store import lineage
from components.store.artifact import Artifact
from pi_behavior.challenge import TASKS as ALL_TASKS
from pi_behavior.policy.mapping import read_mapping

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
    policies: tuple
    validation: tuple
    plan: Artifact
    reported: tuple
    config: Config = Config(team="Robot lab", affiliation="A university")  # noqa: RUF009

    @property
    def inputs(self):
        return Inputs(self.plan, self.reported, self.validation)


@pytest.fixture
def run(factory):
    return evaluations(factory)


def evaluations(factory, **changes):
    """Two evaluations, as the pipeline runs them."""
    common = factory.model("common", TASKS)
    groups = (factory.model("best", (RADIO,)), factory.model("bad", (TRASH,)))
    sizes = {"validation_instances": 6, "reported_instances": 10, "workers": 2, "videos": 1, **changes}
    first = plan(factory, plan_config.Inputs(common), splits=("validation",), **sizes)
    second = plan(factory, plan_config.Inputs(common, groups), untrained=True, **sizes)
    reported = factory.evaluations(second, score, videos=True)
    return Run((common, *groups), factory.evaluations(first, score), second, reported)


def plan(factory, inputs, **config):
    return PLAN.execute(plan_config.Config(**config), inputs, factory.workspace).artifact


def make(run, workspace, **changes):
    made = STAGE.execute(run.config, dataclasses.replace(run.inputs, **changes), workspace)
    return made.artifact, made.result


def test_scores(run, factory):
    artifact, result = make(run, factory.workspace)
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
    assert set(scores["policies"]) == {"common", "untrained"}
    untrained = scores["policies"]["untrained"]
    assert untrained["q"] == 0.0
    assert untrained["high"] > 0.1  # 20 failures do not prove that it never works
    assert result.metrics["q"] == overall["q"]
    low, high = f"{overall['low']:.2f}", f"{overall['high']:.2f}"
    assert result.summary == f"q 0.63 (95 % {low} to {high}) over 2 tasks, 20 rollouts"
    episodes = load(artifact.path / EPISODES)
    assert len(episodes) == 2 * (6 + 6 + 10 + 10 + 10)
    assert sum(one.outcome is None for one in episodes) == 1
    assert lineage.verify(artifact.path)[1] == []


def test_the_evaluator_of_2025_gives_the_same_scores(run, factory, tmp_path, monkeypatch):
    metadata = tmp_path / "2025-challenge-task-instances" / "metadata"
    metadata.mkdir(parents=True)
    ids = '"45,201,7,12,13,14,15,16,17,18"'
    (metadata / "test_instances.csv").write_text(f"id,name,ids\n0,{RADIO},{ids}\n1,{TRASH},{ids}\n")
    demos = [task * 10_000 + instance * 10 for task in (0, 1) for instance in (3, 1, 20, 21, 22, 23)]
    (metadata / "episodes.jsonl").write_text("\n".join(f'{{"episode_index": {e}}}' for e in demos))
    monkeypatch.setenv("OMNIGIBSON_DATA_PATH", str(tmp_path))
    of_2025, _ = make(evaluations(factory, evaluator="omnigibson", edition="2025"), factory.workspace)
    of_2026, _ = make(run, factory.workspace)
    monkeypatch.delenv("OMNIGIBSON_DATA_PATH")  # only workers need the simulator's data
    scores = [json.loads((a.path / "scores.json").read_text())["tasks"] for a in (of_2025, of_2026)]
    for task in (RADIO, TRASH):
        one, other = (table[task] for table in scores)
        assert one["chosen"] == other["chosen"]
        for policy in one["policies"]:
            first, second = (each["policies"][policy]["reported"] for each in (one, other))
            times = [each.pop("efficiency")["time"] for each in (first, second)]
            assert first == second
            # 250 / 300 of the human time is 2 - 1.2 in 2025 and 3 - 2.4 in 2026; one never finished
            finished = 10 - first["unfinished"]
            assert times == pytest.approx([0.8 * finished / 10, 0.6 * finished / 10])
    (folder,) = (of_2025.path / "submission").glob("standard.*-??/")
    names = {f"{RADIO}_{i}_0.json" for i in (45, 201, 7, 12, 13, 14, 15, 16, 17, 18)}
    assert {p.name for p in (folder / "json").glob(f"{RADIO}_*")} == names
    assert f"policy=websocket task.name={RADIO} " in (folder / "README.md").read_text()
    assert 45 in data_of(of_2025.path)["rollouts"]["instance"]


def test_rollouts_that_are_missing_are_no_zeros(run, factory):
    with pytest.raises(UserError, match="72 of 72 planned rollouts are missing, the first of them of common"):
        make(run, factory.workspace, evaluations=())


def test_a_rollout_that_was_done_twice(run, factory):
    """The first finished one counts; two results that differ are an error."""
    artifact, _ = make(run, factory.workspace)
    nothing = factory.evaluations(run.plan, lambda key: None, seed="never finished")
    same = factory.evaluations(run.plan, score, seed="again")
    twice, _ = make(run, factory.workspace, evaluations=(*nothing, *run.reported, *same))
    assert (twice.path / "scores.json").read_bytes() == (artifact.path / "scores.json").read_bytes()
    other = factory.evaluations(run.plan, lambda key: 0.25, seed="other")
    with pytest.raises(UserError, match=r"was done twice, with different outcomes: .*json and .*json\. Give"):
        make(run, factory.workspace, evaluations=(*run.reported, *other))


def test_reruns_are_listed(run, factory):
    for evaluation in run.reported:
        rollouts = [
            dataclasses.replace(one, attempts=3, reruns=("signal 0", "the policy server <b>did not answer"))
            if one.key.policy in ("group:best", "untrained") and one.name == f"{RADIO}_301_0"
            else one
            for one in load(evaluation.path / ROLLOUTS)
        ]
        save(rollouts, evaluation.path / ROLLOUTS)
    artifact, _ = make(run, factory.workspace)
    assert "<b>did not answer" not in (artifact.path / "report" / "index.html").read_text()
    reruns = list(data_of(artifact.path)["reruns"].values())
    assert reruns == 2 * [["signal 0", "the policy server <b>did not answer"]]
    (readme,) = (artifact.path / "submission").glob("*/README.md")
    # of the chosen policies only, whose results are submitted
    assert re.findall(r"^- .*signal.*$", readme.read_text(), re.MULTILINE) == [
        f"- {RADIO}_301_0: signal 0; the policy server <b>did not answer"
    ]


def test_no_reported_rollouts(factory):
    inputs = plan_config.Inputs(factory.model("common", TASKS))
    planned = plan(factory, inputs, splits=("validation",), validation_instances=2)
    evaluations = factory.evaluations(planned, lambda key: 1.0)
    with pytest.raises(UserError, match="plan with the split reported"):
        STAGE.execute(Config(), Inputs(planned, evaluations), factory.workspace)


def test_other_weights_make_another_leaderboard(factory):
    """A policy that was trained again at the same place, without a change that its fingerprint knows."""

    def places():
        planned = plan(factory, plan_config.Inputs(common), reported_instances=2)
        evaluation = EVALUATE.place(
            evaluate_config.Config(), evaluate_config.Inputs(planned), factory.workspace
        )
        inputs = Inputs(planned, factory.evaluations(planned, lambda key: 1.0))
        return {planned.path, evaluation, STAGE.execute(Config(), inputs, factory.workspace).artifact.path}

    common = factory.model("common", TASKS)
    before = places()
    assert places() == before
    common = factory.retrained(common, TASKS)
    assert not places() & before


def test_the_readme_says_how_the_policy_was_served(factory, changed_policy):
    """Its command and mapping, given to the real server, serve the chosen policies as they were evaluated."""
    import tyro

    from pi_behavior.policy.server import ServerConfig

    common = factory.model("common", TASKS)
    best = factory.model("best", (RADIO,))
    sizes = {"validation_instances": 2, "reported_instances": 2, "videos": 0}
    planned = plan(factory, plan_config.Inputs(common, (best,)), policy=changed_policy, **sizes)
    evaluations = factory.evaluations(planned, lambda key: float(key.policy == "group:best"))
    made = STAGE.execute(Config(), Inputs(planned, evaluations), factory.workspace)
    (file,) = (made.artifact.path / "submission").glob("*/README.md")
    text = textwrap.dedent(file.read_text())
    (command,) = re.findall(r"^    python -m pi_behavior\.policy\.server (.*)$", text, re.MULTILINE)
    config = tyro.cli(ServerConfig, args=shlex.split(command))
    assert config.policy == changed_policy
    shutil.copy(file.with_name("mapping.json"), factory.workspace)
    served, _ = read_mapping(factory.workspace / "mapping.json")
    assert {(entry.name, entry.path, entry.tasks) for entry in served} == {
        ("common", common.path / "checkpoint", frozenset({ALL_TASKS[TRASH].index})),
        ("group:best", best.path / "checkpoint", frozenset({ALL_TASKS[RADIO].index})),
    }


def test_the_readme_leaves_out_what_was_not_changed(run, factory):
    artifact, _ = make(run, factory.workspace)
    (file,) = (artifact.path / "submission").glob("*/README.md")
    assert "--policy." not in file.read_text()


def test_submission(run, factory):
    artifact, _ = make(run, factory.workspace)
    (folder,) = (artifact.path / "submission").glob("standard.*-??/")
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
    assert all(f"--task-name {task} " in readme for task in TASKS)
    assert str(Path.home()) not in readme
    with zipfile.ZipFile(folder.with_name(folder.name + ".zip")) as archive:
        inside = set(archive.namelist())
        assert archive.testzip() is None
    others = ("README.md", "mapping.json", "submission.json", "SHA256SUMS")
    results = {f"{folder.name}/json/{name}" for name in names}
    assert inside == results | {f"{folder.name}/{path}" for path in others}
    with zipfile.ZipFile(folder.with_name(folder.name + ".metrics.zip")) as archive:
        assert set(archive.namelist()) == results
    # the recorded rollouts of the chosen policies, beside the zip
    assert {path.name for path in folder.parent.joinpath("videos").iterdir()} == {
        name.replace(".json", ".mp4") for name in names
    }


@pytest.mark.parametrize("change", [{"team": "a.b"}, {"affiliation": ""}])
def test_names_that_the_folder_cannot_hold(change):
    with pytest.raises(ValueError, match="expected a name without dots"):
        Config(**change)
    named = Config(testset="hidden", team="T U", affiliation="A").submission("2026-01-02")
    assert named == "standard.hidden.T_U.A.2026-01-02"


class Page(HTMLParser):
    """Collects what a page refers to."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.ids: list[str] = []
        self.labels: list[str] = []
        self.open: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        self.tags.append(tag)
        if tag not in ("meta", "link", "br", "hr", "source", "path", "rect", "input"):
            self.open.append(tag)
        self.links += [values[name] for name in ("href", "src", "poster") if values.get(name)]
        self.ids += [values["id"]] if "id" in values else []
        self.labels += [values["aria-label"]] if "aria-label" in values else []

    def handle_endtag(self, tag):
        if tag not in ("path", "rect"):
            assert self.open.pop() == tag


def data_of(folder):
    """The data of a leaderboard's page."""
    text = (folder / "report" / "index.html").read_text()
    (found,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)
    return json.loads(found)


def test_report(run, factory):
    artifact, _ = make(run, factory.workspace)
    text = (artifact.path / "report" / "index.html").read_text()
    page = Page(text)
    assert page.open == []
    assert len(page.ids) == len(set(page.ids))
    assert "not a BEHAVIOR score" in text
    for published in ("Comet", "SimpleAI"):  # of another simulator
        assert published not in text
    for task in TASKS:
        assert task.replace("_", " ") in text
    for words in ("group:best", "untrained", "0.633", "chosen", "b1k lineage verify"):
        assert words in text
    # self-contained: nothing from elsewhere, and no player before somebody looks at it
    assert page.tags.count("script") == 2
    assert not re.search(r'(?:href|src|poster)="(?:https?:)?//', text)
    assert set(re.findall(r"https?://[^\"' ]*", text)) <= {"http://www.w3.org/2000/svg"}
    assert "url(" not in text
    assert "@import" not in text
    assert "video" not in page.tags
    for link in page.links:
        if link.startswith("#"):
            assert link[1:] in page.ids
        elif not link.startswith("data:"):
            assert (artifact.path / "report" / link).exists(), link
    for name in ("common", "group:best", "group:bad"):
        assert any(label.startswith(f"loss of {name}") for label in page.labels)
    for model in run.policies:
        assert model.uri in text
        assert model.digest in text
    # the one-file version for the Kubeflow UI
    summary = (artifact.path / "summary.html").read_text()
    assert Page(summary).open == []
    assert '"video":[1' not in summary
    assert "0.633" in summary


def test_every_reported_rollout_of_a_trained_policy_can_be_watched(run, factory):
    artifact, _ = make(run, factory.workspace)
    rollouts = data_of(artifact.path)["rollouts"]
    data = data_of(artifact.path)
    assert len(rollouts["q"]) == 2 * 3 * 10
    for place, video in enumerate(rollouts["video"]):
        name, task = (
            data["policies"][rollouts["policy"][place]],
            data["tasks"][rollouts["task"][place]]["name"],
        )
        instance, steps = rollouts["instance"][place], rollouts["steps"][place]
        first = instance == 301  # `videos` is 1
        assert video == int(steps is not None and (name != "untrained" or first))
        stem = f"{name.replace(':', '-')}/reported/{task}_{instance}_0"
        for ending in ("mp4", "jpg"):
            assert (artifact.path / "report" / "videos" / f"{stem}.{ending}").exists() == bool(video)


def test_times_and_costs_of_the_stages(run, factory):
    for artifact, workers in ((run.policies[0], ()), (run.reported[0], (0, 1))):
        statement = json.loads((artifact.path / "lineage.json").read_text())
        told = statement["predicate"]["runDetails"]["metadata"]
        told |= {"startedOn": "2026-11-01T00:00:00Z", "finishedOn": "2026-11-01T02:00:00Z"}
        use = {"names": ["NVIDIA H200"] * 4, "period": 60.0, "busy": [10.0, 90.0, 80.0], "memory": [50.0] * 3}
        told["b1k_gpus"] = use
        (artifact.path / "lineage.json").write_text(json.dumps(statement))
        # workers, of which the second begins an hour later, and both end after three
        rows = [{"times": {"worker": one, "begin": 3600.0 * one, "end": 3600.0 * 3}} for one in workers]
        (artifact.path / "durations.json").write_text(json.dumps({"rollouts": rows}))
    run = dataclasses.replace(run, config=dataclasses.replace(run.config, gpu_hour_price=2.5))
    artifact, _ = make(run, factory.workspace)
    text = (artifact.path / "report" / "index.html").read_text()
    table = re.search(r'<table class="times">.*?</table>', text, re.DOTALL)[0]
    rows = {
        re.search(r'scope="row">(.*?)<', row)[1]: re.findall(r'class="num">(.*?)<', row)
        for row in table.split("<tr>")[2:]
    }
    assert rows["train"][:3] == ["2:00:00", "8.00", "20.00"]  # one of the three had GPUs
    assert rows["evaluate"][:3] == ["3:00:00", "20.00", "50.00"]  # 3 and 2 hours with 4 GPUs each
    assert rows["all"] == ["28.00", "70.00"]
    assert "busy of common: 10 at minute 0, 80 at minute 2" in text


def test_broken_video_is_left_out(run, factory):
    for artifact in run.reported:
        for video in artifact.path.rglob("*.mp4"):
            video.write_bytes(b"not a video")
    artifact, _ = make(run, factory.workspace)
    assert not any(data_of(artifact.path)["rollouts"]["video"])


def test_published_scores_stand_beside_those_of_the_challenge(factory):
    run = evaluations(factory, evaluator="omnigibson", edition="2026")
    artifact, _ = make(run, factory.workspace)
    text = (artifact.path / "report" / "index.html").read_text()
    assert text.count('<li class="published">') == 5
    assert "0.2599" in text
    assert "not a BEHAVIOR score" not in text


def test_curves():
    rows = [{"step": s, "loss": 10.0 ** (-s / 500), "accuracy": s / 1000} for s in range(1001)]
    curve = draw("common", "loss", rows)
    assert [tick.label for tick in curve.x_ticks] == ["0", "500", "1,000"]
    assert {"0.01", "0.1", "1"} <= {tick.label for tick in curve.y_ticks}
    assert all(-1e-6 <= tick.place <= 100 + 1e-6 for tick in [*curve.x_ticks, *curve.y_ticks])
    numbers = [float(x) for x in re.findall(r"[\d.]+", curve.lines[0].path)]
    assert all(0 <= x <= 100 for x in numbers)
    assert len(numbers) <= 500
    assert [t.label for t in draw("c", "accuracy", rows).y_ticks] == ["0", "0.5", "1"]
    assert draw("c", "loss", rows[:1]) is None
    assert draw("c", "other", rows) is None
    flat = draw("c", "loss", [{"step": 1, "loss": 0.0}, {"step": 2, "loss": 0.0}])
    assert flat is not None
    many = draw_all("c", [{"step": s, "action_loss_base": 1.0, "action_loss_trunk": s} for s in range(9)])
    assert [(one.metric, [line.label for line in one.lines]) for one in many] == [
        ("loss by group of joints", ["base", "trunk"])
    ]
    steep = draw("c", "spectrum", [{"step": s, "spectrum": 10.0**-s} for s in range(20)])
    assert len(steep.y_ticks) <= 8
