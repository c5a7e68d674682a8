"""Parts of `b1k demo`; the whole of it is in tests/end_to_end."""

import json
from pathlib import Path

import pytest

from components.errors import UserError
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


def test_impossible_demonstrations_are_refused(tmp_path: Path) -> None:
    options = demo.Options(workspace=tmp_path, profile="smoke", episodes=500)
    with pytest.raises(UserError, match="episodes is 500; expected 1 to 100"):
        demo.run(options)


def test_the_same_unfinished_run_is_continued(tmp_path: Path) -> None:
    options = demo.Options(profile="smoke", episodes=3)
    first, resume = demo._prepare(options, tmp_path)
    assert not resume
    assert (first.pipeline, first.arguments["episodes"]) == ("demo", 3)
    assert first.arguments["repository"] == str(tmp_path / "demonstrations")
    first.save(tmp_path)
    again, resume = demo._prepare(options, tmp_path)
    assert resume
    assert again == first
    other, resume = demo._prepare(demo.Options(profile="smoke", episodes=4), tmp_path)
    assert not resume
    assert other.id != first.id
