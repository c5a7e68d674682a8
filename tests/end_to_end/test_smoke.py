"""The demo's DAG at its smallest, everything real: simulator, DVC, training, policy server, evaluator."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipelines.local.records import load_runs

# as for a user: the tests' own settings simulate two devices
ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
# two minutes alone; other tests run beside it
pytestmark = pytest.mark.timeout(1800)
STAGES = (
    "settings",
    "collect",
    "dataset",
    "prepare",
    "statistics",
    "train",
    "plan",
    "evaluate",
    "group",
    "leaderboard",
    "trial",
    "promote",
)


def _b1k(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pipelines.cli", *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=1500, env=ENVIRONMENT)


def _demo(workspace: Path) -> list[str]:
    return ["demo", "--profile", "smoke", "--episodes", "4", "--workspace", str(workspace)]


def _inodes(workspace: Path) -> dict[str, int]:
    """Finished artifacts by their folder's inode: the same folder, not one made again."""
    found = (workspace / "artifacts").glob("*/*/")
    return {f"{p.parent.name}/{p.name}": p.stat().st_ino for p in found if p.suffix != ".partial"}


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace in which the demo was killed while it trained, and run again to its end."""
    workspace = tmp_path_factory.mktemp("demo")
    with (workspace / "output.txt").open("wb") as output:
        demo = subprocess.Popen(
            [sys.executable, "-m", "pipelines.cli", *_demo(workspace)],
            stdout=output,
            stderr=output,
            env=ENVIRONMENT,
        )
        end = time.monotonic() + 900
        while not list(workspace.glob("artifacts/train/*.partial")):
            assert demo.poll() is None, (workspace / "output.txt").read_text()
            assert time.monotonic() < end, "no training after 15 minutes"
            time.sleep(0.2)
        os.kill(demo.pid, signal.SIGKILL)
        demo.wait()
    before = _inodes(workspace)
    answer = _b1k(*_demo(workspace))
    assert answer.returncode == 0, answer.stdout + answer.stderr
    (workspace / "output.txt").write_text(answer.stdout)
    after = _inodes(workspace)
    done = {"settings", "collect", "dataset", "prepare", "statistics"}
    assert {name.partition("/")[0] for name in before} == done
    assert before.items() <= after.items(), "finished stages are untouched"
    return workspace


def test_the_last_line_is_the_result(workspace: Path) -> None:
    lines = (workspace / "output.txt").read_text().splitlines()
    assert lines[-1] == str(workspace / "result.json")
    result = json.loads(Path(lines[-1]).read_text())
    assert result.keys() == {"tasks", "seconds", "report", "leaderboard"}
    assert result["tasks"].keys() == {"turning_on_radio", "picking_up_trash"}
    for scores in result["tasks"].values():
        for kind in ("trained", "untrained"):
            assert scores[kind].keys() == {"q", "low", "high", "n"}
            assert scores[kind]["low"] <= scores[kind]["q"] <= scores[kind]["high"]
            assert scores[kind]["n"] == 2
    assert {"collect", "settings", "dataset", "train_common", "evaluate_groups"} <= result["seconds"].keys()
    assert Path(result["report"]).stat().st_size > 10_000


def test_every_stage_made_its_artifact_in_one_run(workspace: Path) -> None:
    (run,) = load_runs(workspace)
    assert (run.status, run.attempts) == ("succeeded", 2)
    made = {place.split("/")[1] for place in run.outputs.values()}
    assert made == set(STAGES)
    groups = [key for key in run.outputs if key.startswith("for-loop-2")]
    assert len(groups) == 2
    assert not list(workspace.glob("artifacts/*/*.partial"))


def test_again_everything_is_cached(workspace: Path) -> None:
    before = _inodes(workspace)
    answer = _b1k(*_demo(workspace))
    assert answer.returncode == 0, answer.stderr
    assert _inodes(workspace) == before
    assert "Train common: cached" in answer.stdout
    assert "Promote: cached" in answer.stdout


def test_lineage_reaches_the_raw_episodes(workspace: Path) -> None:
    board = json.loads((workspace / "result.json").read_text())["leaderboard"]
    shown = _b1k("lineage", "show", board).stdout
    assert "demonstrations: dvc+" in shown
    # run and task ids of kfp.local: the run that was killed and the one after it, a task for every artifact
    ids = [line.rpartition("  run ")[2] for line in shown.splitlines() if "  run " in line]
    assert len({one.partition("/")[0] for one in ids}) <= 2
    assert len(set(ids)) == len(ids) > 5
    assert "shell" not in shown
    assert _b1k("lineage", "verify", board).returncode == 0
    episode = next(workspace.glob("artifacts/dataset/*/data/**/*.parquet"))
    content = bytearray(episode.read_bytes())
    content[len(content) // 2] ^= 1
    mode = episode.stat().st_mode
    episode.chmod(0o644)
    episode.write_bytes(content)
    try:
        answer = _b1k("lineage", "verify", board)
        assert answer.returncode == 1
        assert str(episode) in answer.stderr
    finally:
        content[len(content) // 2] ^= 1
        episode.write_bytes(content)
        episode.chmod(mode)
    assert _b1k("lineage", "verify", board).returncode == 0


def test_a_policy_can_be_evaluated_on_its_own(workspace: Path) -> None:
    policy = workspace / load_runs(workspace)[0].outputs["train"]
    words = ["run", "--pipeline", "evaluate", "--profile", "smoke", "--workspace", str(workspace)]
    answer = _b1k(*words, "--set", f"policy={policy}", "tasks=turning_on_radio", "untrained=false")
    assert answer.returncode == 0, answer.stdout + answer.stderr
    assert "report: " in answer.stdout
