"""`b1k results serve` in a real browser: seeking, labels, the comparison."""

import json
import shutil
import subprocess
import sys

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect

CAUSES = 13


@pytest.fixture
def served(small):
    """The address of a server of the small leaderboard's workspace, which has no labels yet."""
    workspace = small.parents[2]
    for path in workspace.glob("labels/*"):
        path.unlink()
    running = workspace / "artifacts" / "evaluate" / "running.partial"
    running.mkdir(exist_ok=True)
    shutil.copy(next(workspace.glob("artifacts/plan/*/plan.json")), running)
    command = [sys.executable, "-m", "pipelines.cli", "results", "serve", "--workspace", str(workspace)]
    process = subprocess.Popen([*command, "--port", "0"], stdout=subprocess.PIPE, text=True)
    yield process.stdout.readline().split()[-1]
    process.terminate()
    process.wait(20)
    process.stdout.close()


def wait_until(page, condition) -> None:
    """As `page.wait_for_function`, which the page's content security policy refuses."""
    for _ in range(300):
        if condition():
            return
        page.wait_for_timeout(100)
    raise AssertionError("waited for half a minute")


def test_a_video_can_be_sought(small, served, look):
    page = look(served)
    page.locator("tbody a").first.click()
    page.get_by_role("tab", name="Gallery").click()
    ranges = []
    page.on("response", lambda one: ranges.append(one.status) if one.url.endswith(".mp4") else None)
    page.locator("#cards button:has(img)").first.click()
    video = page.locator("#rollout video")
    wait_until(page, lambda: video.evaluate("one => one.readyState >= 2"))
    video.evaluate("one => { one.currentTime = 3 }")
    wait_until(page, lambda: video.evaluate("one => !one.seeking && one.currentTime >= 3"))
    assert ranges
    assert set(ranges) == {206}


def test_labels_by_keyboard_are_there_again(small, served, look):
    page = look(served)
    page.locator("tbody a").first.click()
    page.goto(f"{page.url}#view=gallery&outcome=not&policy=all")
    page.reload()
    page.locator("#cards button:has(img)").first.click()
    expect(page.locator("#label-form input[name=cause]")).to_have_count(CAUSES)
    page.locator("#label-who").fill("Ann")
    page.locator("#label-note").fill("<script>alert(1)</script> \u202e🤖")
    page.locator("#rollout-close").focus()
    for key in "12s":
        page.keyboard.press(key)
    expect(page.locator("#rollout .labels li")).to_contain_text("Dexterity, Order")
    first = page.locator("#rollout-title").inner_text()
    page.keyboard.press("j")  # the next one, by the same person
    expect(page.locator("#rollout-title")).not_to_have_text(first)
    page.locator("#rollout-close").focus()
    for key in "4s":
        page.keyboard.press(key)
    expect(page.locator("#rollout .labels li")).to_contain_text("Robot fell")
    page.reload()
    expect(page.locator("#rollout .labels li")).to_contain_text("Robot fell")
    page.keyboard.press("Escape")
    expect(page.locator("#causes-note")).to_contain_text("As labelled by people: 2 of")
    names = page.locator("#causes .name").all_inner_texts()
    assert sorted(names) == ["Dexterity", "Order", "Robot fell"]
    (file,) = small.parents[2].glob("labels/*.jsonl")
    assert [json.loads(line)["causes"] for line in file.read_text().splitlines()] == [
        ["dexterity", "order"],
        ["fell"],
    ]


@pytest.mark.parametrize("width", [390, 1440])
def test_nothing_is_wider_than_the_window(served, look, width):
    page = look(served, width=width)
    for path in ("", "compare", "live"):
        page.goto(served + path)
        assert page.evaluate("document.documentElement.scrollWidth") <= width, path
    expect(page.get_by_text("0 of 84 rollouts finished")).to_be_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_accessibility(served, look, scheme):
    page = look(served, scheme=scheme)
    for path in ("", "compare", "live"):
        page.goto(served + path)
        found = Axe().run(page).response["violations"]
        assert [one["id"] for one in found if one["impact"] in ("serious", "critical")] == []
