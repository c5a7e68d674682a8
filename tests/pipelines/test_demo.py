"""Parts of `b1k demo`; the whole of it is in tests/end_to_end."""

import json
from pathlib import Path

import pytest

from components.errors import UserError
from pipelines.local.records import new_run
from pipelines.tools import demo


def _score(q: float) -> dict[str, float]:
    return {"q": q, "low": q / 2, "high": q, "n": 20, "success": q, "bootstrap_low": 0.0}


def test_the_result_takes_the_policy_chosen_on_validation(tmp_path: Path) -> None:
    policies = {
        "group:best": {"validation": _score(0.8), "reported": _score(0.5)},
        "common": {"validation": _score(0.7), "reported": _score(0.9)},
        "untrained": {"reported": _score(0.0)},
    }
    scores = {"tasks": {"turning_on_radio": {"chosen": "group:best", "policies": policies}}}
    (tmp_path / "scores.json").write_text(json.dumps(scores))
    result = demo.summarise(tmp_path, {"collect": 1.0})
    assert result == {
        "tasks": {
            "turning_on_radio": {
                "trained": {"q": 0.5, "low": 0.25, "high": 0.5, "n": 20},
                "untrained": {"q": 0.0, "low": 0.0, "high": 0.0, "n": 20},
            }
        },
        "seconds": {"collect": 1.0},
        "report": str(tmp_path / "report" / "index.html"),
        "leaderboard": str(tmp_path),
    }


def test_rendering_works_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MUJOCO_GL", "egl")
    demo.check_rendering()


def test_without_rendering_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MUJOCO_GL", "egl")
    monkeypatch.setenv("PYOPENGL_PLATFORM", "osmesa")
    with pytest.raises(UserError, match="apt-get install libegl1"):
        demo.check_rendering()


def test_a_failed_collection_ends_the_demo(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = demo.Options(workspace=tmp_path, profile="smoke", episodes=500)
    assert demo.run(options) == 2
    assert "--episodes is 500" in capsys.readouterr().err


def test_the_same_unfinished_run_is_continued(tmp_path: Path) -> None:
    options = demo.Options(profile="smoke")
    wanted = {"repository": "/r", "revision": "c"}
    assert demo._run_options(options, tmp_path, wanted).resume is False
    new_run(tmp_path, "train_and_evaluate", "smoke", wanted).save(tmp_path)
    again = demo._run_options(options, tmp_path, wanted)
    assert (again.resume, again.set) == (True, ())
    other = demo._run_options(options, tmp_path, {"repository": "/r", "revision": "d"})
    assert (other.resume, other.set) == (False, (("repository=/r", "revision=d"),))
