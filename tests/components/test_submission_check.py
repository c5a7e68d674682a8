"""`b1k leaderboard check`: a good submission has no fault, and every planted one is found."""

import json
import re
import shutil
import stat
import zipfile
from datetime import date
from pathlib import Path

import pytest

from components.errors import UserError
from components.leaderboard import check as checking
from components.leaderboard.check import check
from components.leaderboard.config import Config, Inputs
from components.leaderboard.stage import STAGE
from components.plan import config as plan_config
from components.plan.stage import STAGE as PLAN
from components.store.sums import format_sums, hash_files

RADIO, TRASH = TASKS = ("turning_on_radio", "picking_up_trash")
TODAY = date(2026, 10, 10)
NAME = "standard.public.Robot_lab.A_university.2026-10-09"


def score(key):
    return [1.0, 0.5, 0.0][(key.index + len(key.task)) % 3]


def submit(factory, folder: Path, edition="2026", evaluator="omnigibson", **changes) -> Path:
    """Package a submission by real stages; returns its folder, beside its zips and its videos."""
    common = factory.model("common", TASKS)
    (folder / "robot.yaml").write_text("name: robot_r1\n")
    config = plan_config.Config(
        edition=edition,
        evaluator=evaluator,
        validation_instances=1,
        reported_instances=10,
        videos=10,
        robot_config=str(folder / "robot.yaml") if (edition, evaluator) == ("2026", "omnigibson") else "",
    )
    plan = PLAN.execute(config, plan_config.Inputs(common), factory.workspace).artifact
    evaluations = factory.evaluations(plan, score, videos=True)
    values = {"videos": "https://example.org/videos", **changes}
    config = Config(team="Robot lab", affiliation="A university", **values)
    made = STAGE.execute(config, Inputs(plan, evaluations), factory.workspace).artifact
    (found,) = (p for p in (made.path / "submission").iterdir() if p.is_dir() and p.name != "videos")
    shutil.copytree(made.path / "submission", folder / "made")
    (folder / "made" / found.name).rename(folder / "made" / NAME)
    return folder / "made" / NAME


@pytest.fixture(scope="module")
def good(tmp_path_factory) -> Path:
    from tests.components.conftest import Factory

    folder = tmp_path_factory.mktemp("good")
    return submit(Factory(folder / "workspace"), folder)


@pytest.fixture
def folder(good, tmp_path) -> Path:
    """A copy to plant a fault in."""
    shutil.copytree(good.parent, tmp_path / "made")
    return tmp_path / "made" / good.name


def pack(folder: Path, *, seal: bool = True, name: str = "") -> Path:
    """Zip a folder as a person would who knows of SHA256SUMS (`seal`), or does not."""
    if seal:
        (folder / "SHA256SUMS").write_text(format_sums(hash_files(folder)))
    target = folder.with_name(name or f"{folder.name}.zip")
    with zipfile.ZipFile(target, "w") as archive:
        for path in sorted(folder.rglob("*")):
            archive.write(path, path.relative_to(folder.parent))
    return target


def faults(path: Path, *, videos: bool = True) -> list[str]:
    found = check(path, path.parent / "videos" if videos else None, TODAY)
    return [fault.text for fault in found if not fault.is_note]


def edit(folder: Path, name: str, change) -> None:
    """Change a JSON's content by a function of its values."""
    path = folder / name
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


def result(folder: Path, instance: int = 301, task: str = RADIO) -> str:
    return f"json/{task}_{instance}_0.json"


def put(*keys, value):
    """A change that puts a value at a place."""

    def change(document):
        for key in keys[:-1]:
            document = document[key]
        document[keys[-1]] = value

    return change


def in_result(*keys, value, instance=301):
    return lambda folder: edit(folder, result(folder, instance), put(*keys, value=value))


def in_manifest(*keys, value):
    return lambda folder: edit(folder, "submission.json", put(*keys, value=value))


def write(name, text):
    return lambda folder: (folder / name).write_text(text)


def copy(source, target):
    return lambda folder: shutil.copy(folder / source, folder / target)


def remove(name):
    return lambda folder: (folder / name).unlink()


def replace(name, old, new):
    def change(folder):
        text = (folder / name).read_text()
        assert old in text
        (folder / name).write_text(text.replace(old, new))

    return change


def video(change):
    return lambda folder: change(folder.parent / "videos" / f"{RADIO}_301_0.mp4")


def tear(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


FIRST = f"json/{RADIO}_301_0.json"
# what is planted, and a pattern of the fault that names it. The radio's q is 0.5 in instance 301, 0 in 302
PLANTED = {
    "no result": (lambda f: [p.unlink() for p in (f / "json").iterdir()], "there is no result"),
    "a result is missing": (remove(FIRST), f"{RADIO}_301_0 was prescribed, and has neither a result"),
    "a missing one is there": (
        in_manifest("missing", value=[f"{RADIO}_301_0"]),
        "has a result, and is said to have never finished",
    ),
    "not the evaluator's name": (write("json/notes.txt", ""), "json/notes.txt is not called TASK"),
    "a folder among results": (lambda f: (f / "json" / "old").mkdir(), "json/old is not called TASK"),
    "an unknown task": (copy(FIRST, "json/flying_301_0.json"), "there is no task flying"),
    "leading zeros": (copy(FIRST, f"json/{RADIO}_0301_0.json"), "leading zeros"),
    "a second rollout": (
        lambda f: [
            copy(FIRST, f"json/{RADIO}_301_1.json")(f),
            edit(f, f"json/{RADIO}_301_1.json", put("rollout_id", value=1)),
        ],
        f"{RADIO}_301_1 is another rollout of its instance",
    ),
    "an instance of no test set": (
        lambda f: [
            copy(FIRST, f"json/{RADIO}_311_0.json")(f),
            edit(f, f"json/{RADIO}_311_0.json", put("instance_id", value=311)),
        ],
        f"{RADIO}_311_0 is of no test set; expected instances 301 to 310",
    ),
    "more than ten": (
        lambda f: [
            copy(FIRST, f"json/{RADIO}_312_0.json")(f),
            edit(f, f"json/{RADIO}_312_0.json", put("instance_id", value=312)),
        ],
        f"{RADIO} has 11 results; expected 10",
    ),
    "a torn JSON": (lambda f: tear(f / FIRST), "its JSON is torn"),
    "no JSON": (write(FIRST, "[1]"), "it holds a list; expected an object"),
    "another rollout's JSON": (
        copy(result(None, 302), FIRST),
        r"it is about .*302, 0\); expected .*301",
    ),
    "success without its q": (in_result("success", value=True, instance=302), "do not fit"),
    "q without success": (in_result("q_score", "final", value=1.0, instance=302), "do not fit"),
    "q above 1": (in_result("q_score", "final", value=1.5), "expected 0 <= q <= 1"),
    "no q": (in_result("q_score", value={}), "it has no 'final'"),
    "q as text": (in_result("q_score", "final", value="high"), "unknown form"),
    "a distance is missing": (in_result("agent_distance", value={"base": 1.0}), "has the keys"),
    "steps in two ways": (in_result("steps", value=299), "steps is 299 and time.simulator_steps 300"),
    "time is not steps / 30": (in_result("time", "simulator_time", value=9.0), "300 steps take 10.00 s"),
    "beyond the time limit": (
        in_result("time", "normalized_time", value=0.5),
        r"normalized_time 0.500 is below 1 / 1.5",
    ),
    "another human time": (
        in_result("time", "normalized_time", value=1.25),
        "human mean of time comes out as 375.00, and as 250.00",
    ),
    "a shortened way": (in_result("agent_distance", "left", value=0.7), "human mean of left comes out as"),
    "a negative way": (in_result("agent_distance", "base", value=-1.0), "distances of base contradict"),
    "no way, and not infinite": (in_result("agent_distance", "base", value=0.0), "distances of base contra"),
    "a copy": (
        lambda f: [
            copy(result(None, 304), FIRST)(f),
            edit(f, FIRST, put("instance_id", value=301)),
        ],
        f"{RADIO}_304_0: steps, q and all distances are those of {RADIO}_301_0",
    ),
    "broke off with a score": (
        in_result("failure_reason", value="group_time_budget_exceeded"),
        r"it broke off \(group_time_budget_exceeded\), and q is 0.5",
    ),
    "the server's failure": (
        in_result("failure_reason", value="policy_error"),
        "says policy_error",
    ),
    "the other edition's form": (
        lambda f: edit(f, FIRST, lambda v: [v.pop(k) for k in list(v)[:5]]),
        "has the form of the other edition",
    ),
    "a household result": (in_manifest("reduced", value=True), "household simulator"),
    "the household's evaluator": (in_manifest("conditions", "evaluator", value="household"), "household sim"),
    "the true stage": (in_manifest("conditions", "true_stage", value=True), "told the policy the true stage"),
    "no video address": (in_manifest("videos", value=""), "no address of the videos"),
    "no digests": (in_manifest("policies", value={}), "names no digest of a policy"),
    "no manifest": (remove("submission.json"), "submission.json cannot be read"),
    "a damaged manifest": (write("submission.json", "{"), "submission.json is damaged"),
    "no README": (remove("README.md"), "README.md is missing"),
    "no mapping": (remove("mapping.json"), "mapping.json is missing"),
    "another policy's mapping": (
        replace("mapping.json", f'"{TRASH}"', '"cook_cabbage"'),
        f"does not serve {TRASH} with common",
    ),
    "another checkpoint": (
        in_manifest("policies", "common", value="0" * 64),
        "mapping.json has another digest of the policy common",
    ),
    "a task without command": (
        replace("README.md", f"--task-name {TRASH}", "--task-name x"),
        f"lacks the evaluator's command of {TRASH}",
    ),
    "no server": (
        replace("README.md", "pi_behavior.policy.server", "a.server"),
        "README.md lacks the policy server's command",
    ),
    "another robot": (write("robot.yaml", "name: another\n"), "the robot config that was used is missing"),
    "no robot": (remove("robot.yaml"), "the robot config that was used is missing"),
    "a file of its own": (write("weights.bin", "1"), "weights.bin does not belong"),
    "a desktop's file": (write(".DS_Store", "1"), ".DS_Store does not belong"),
    "no video": (video(Path.unlink), f"{RADIO}_301_0: its video is missing"),
    "a torn video": (video(tear), f"{RADIO}_301_0: its video is torn"),
    "a video too many": (
        lambda f: shutil.copy(f.parent / "videos" / f"{RADIO}_301_0.mp4", f.parent / "videos" / "x.mp4"),
        "the video x.mp4 has no result",
    ),
}
UNSEALED = {
    "an edited result": (in_result("q_score", "final", value=0.75, instance=302), "it was edited"),
    "an added file": (write("json/x", ""), "json/x is not in SHA256SUMS: it was added"),
    "a removed file": (remove(FIRST), f"{FIRST} is in SHA256SUMS, and missing"),
    "damaged sums": (write("SHA256SUMS", "no digest\n"), "SHA256SUMS is damaged"),
    "no sums": (remove("SHA256SUMS"), "SHA256SUMS is missing"),
}
NAMES = {
    "best.public.Team_A.B.2026-10-09": "the track is 'best'",
    "standard.private.Team_A.B.2026-10-09": "the test set is 'private'",
    "standard.hidden.Team_A.B.2026-10-09": r"\w+ and 19 others are of the public test set; .* 321 to 340",
    "standard.public.team.B.2026-10-09": "the team is called 'team'",
    "standard.public.__.B.2026-10-09": "the team is '__'",
    "standard.public.Team A.B.2026-10-09": "the team is 'Team A'",
    "standard.public.Team_A.B.2026-02-30": "the date is '2026-02-30'",
    "standard.public.Team_A.B.09-10-2026": "the date is '09-10-2026'",
    "standard.public.Team_A.B.20261009": "the date is '20261009'",
    "standard.public.Team_A.B.2026-12-24": "which is yet to come",
    "standard.public.Team_A.2026-10-09": "expected TRACK.TESTSET.TEAM.AFFILIATION.DATE",
}


def test_at_least_25_faults_are_planted():
    assert len(PLANTED) + len(UNSEALED) + len(NAMES) >= 25


def test_a_good_submission(good, folder):
    assert faults(pack(folder)) == []
    # as the stage packed it, but for the name that this test gave the folder
    with zipfile.ZipFile(next(good.parent.glob("*-??.zip"))) as ours, zipfile.ZipFile(pack(folder)) as again:
        own = {name.split("/", 1)[1] for name in ours.namelist()}
        assert own == {n.split("/", 1)[1] for n in again.namelist() if not n.endswith("/")} - {""}
    notes = [fault.text for fault in check(pack(folder), None, TODAY) if fault.is_note]
    assert notes == ["20 of 1000 results, of 2 of 100 tasks; the others count as 0"]


@pytest.mark.parametrize("what", PLANTED)
def test_planted(folder, what):
    change, pattern = PLANTED[what]
    change(folder)
    assert any(re.search(pattern, text) for text in faults(pack(folder))), faults(pack(folder))


@pytest.mark.parametrize("what", UNSEALED)
def test_planted_without_new_digests(folder, what):
    change, pattern = UNSEALED[what]
    change(folder)
    assert any(re.search(pattern, text) for text in faults(pack(folder, seal=False)))


@pytest.mark.parametrize("name", NAMES)
def test_names(folder, name):
    folder = folder.rename(folder.with_name(name))
    assert any(re.search(NAMES[name], text) for text in faults(pack(folder)))


def test_the_deadline_is_noted(folder):
    folder = folder.rename(folder.with_name("standard.public.Team_A.B.2026-10-17"))
    found = check(pack(folder), None, date(2026, 11, 1))
    assert found[0].text == "2026-10-17 is after the deadline, 2026-10-16"
    assert all(fault.is_note for fault in found)


def test_the_zip_itself(folder, tmp_path):
    wrong = pack(folder, name="upload.zip")
    assert f"the zip is called upload.zip; expected {NAME}.zip, as its folder" in faults(wrong)
    good = pack(folder)
    good.write_bytes(good.read_bytes()[:-200])
    assert "the zip cannot be read" in faults(good)[0]
    with zipfile.ZipFile(tmp_path / "out.zip", "w") as archive:
        archive.writestr("../outside.json", "{}")
    assert "a path that leads out of it" in faults(tmp_path / "out.zip", videos=False)[0]
    assert not (tmp_path.parent / "outside.json").exists()
    with zipfile.ZipFile(tmp_path / "two.zip", "w") as archive:
        archive.writestr("a/x", "")
        archive.writestr("b/x", "")
    assert faults(tmp_path / "two.zip", videos=False) == [
        "the zip holds a, b at its top; expected one folder"
    ]
    with zipfile.ZipFile(tmp_path / "link.zip", "w") as archive:
        entry = zipfile.ZipInfo("a/link")
        entry.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(entry, "/etc/passwd")
    assert faults(tmp_path / "link.zip", videos=False) == ["a/link is a link; expected the file"]
    with zipfile.ZipFile(tmp_path / "twice.zip", "w") as archive:
        archive.writestr("a/x", "1")
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("a/x", "2")
    assert faults(tmp_path / "twice.zip", videos=False) == ["the zip holds a/x twice"]
    with pytest.raises(UserError, match="there is no file"):
        check(tmp_path / "none.zip", None, TODAY)
    with pytest.raises(UserError, match="there is no folder"):
        check(wrong, tmp_path / "none", TODAY)


def test_the_zip_of_results_alone(folder):
    for path in folder.iterdir():
        if path.name != "json":
            path.unlink()
    assert faults(pack(folder, seal=False, name=f"{NAME}.metrics.zip")) == []
    in_result("success", value=True)(folder)
    assert "do not fit" in faults(pack(folder, seal=False, name=f"{NAME}.metrics.zip"))[0]


def test_both_editions(factory, tmp_path, monkeypatch):
    metadata = tmp_path / "2025-challenge-task-instances" / "metadata"
    metadata.mkdir(parents=True)
    ids = '"45,201,7,12,13,14,15,16,17,18"'
    (metadata / "test_instances.csv").write_text(f"id,name,ids\n0,{RADIO},{ids}\n1,{TRASH},{ids}\n")
    demos = [task * 10_000 + instance * 10 for task in (0, 1) for instance in range(1, 9)]
    (metadata / "episodes.jsonl").write_text("\n".join(f'{{"episode_index": {e}}}' for e in demos))
    monkeypatch.setenv("OMNIGIBSON_DATA_PATH", str(tmp_path))
    folder = submit(factory, tmp_path, edition="2025")
    assert faults(pack(folder)) == []
    edit(folder, f"json/{RADIO}_45_0.json", put("time", "normalized_time", value=0.45))
    (text,) = (text for text in faults(pack(folder)) if "time limit" in text)
    assert "below 1 / 2: it took longer" in text
    shutil.copy(folder / f"json/{RADIO}_45_0.json", folder / "json/make_microwave_popcorn_45_0.json")
    assert any("was not prescribed" in text for text in faults(pack(folder)))


def test_household_results_are_none_of_the_challenge(factory, tmp_path):
    folder = submit(factory, tmp_path, evaluator="household")
    assert faults(pack(folder)) == [
        "the results are of the household simulator; they are none of the challenge"
    ]


def test_the_command(folder, capsys):
    path = pack(folder)
    assert checking.run(checking.Options(path)) == 0
    assert capsys.readouterr().out.endswith(f"{NAME}.zip: no faults\n")
    (folder.parent / "videos" / f"{RADIO}_301_0.mp4").unlink()
    assert checking.run(checking.Options(path)) == 1
    out = capsys.readouterr().out
    assert f"fault: {RADIO}_301_0: its video is missing\n" in out
    assert out.endswith(f"{NAME}.zip: 1 fault\n")
