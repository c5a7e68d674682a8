"""The report in a real browser: opened from a file, by keyboard, in both colours, and with 3,000 rollouts."""

from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

VIEWS = ("overview", "heat", "gallery", "pairs", "training", "origin")


def address(board: Path, view: str = "") -> str:
    return f"{(board / 'report' / 'index.html').as_uri()}#{view}"


def videos(page: Page) -> int:
    return page.locator("video").count()


def state(page: Page) -> str:
    return page.evaluate("decodeURIComponent(location.hash)")


def test_tabs_by_keyboard_and_the_back_button(small, look):
    page = look(address(small))
    page.get_by_role("tab", name="Overview").focus()
    page.keyboard.press("ArrowRight")
    expect(page.get_by_role("tab", name="Heat map")).to_be_focused()
    assert state(page) == "#view=heat"
    page.keyboard.press("End")
    expect(page.get_by_role("tab", name="Origin")).to_have_attribute("aria-selected", "true")
    expect(page.locator("#view-origin")).to_be_visible()
    expect(page.locator("#view-heat")).to_be_hidden()
    page.go_back()
    expect(page.locator("#view-heat")).to_be_visible()


def test_filters_and_the_address_that_holds_them(small, look):
    page = look(address(small, "view=gallery"))
    expect(page.locator("#filter-count")).to_have_text("24 of 72 rollouts")
    page.get_by_role("combobox", name="Task").select_option("picking_up_trash")
    page.get_by_role("combobox", name="Policy").select_option("all")
    expect(page.locator("#filter-count")).to_have_text("12 of 72 rollouts")
    page.get_by_role("searchbox").fill("untrained 302")
    expect(page.locator("#filter-count")).to_have_text("1 of 72 rollouts")
    assert state(page) == "#view=gallery&task=picking_up_trash&policy=all&text=untrained+302"
    other = look(page.url)  # as a colleague gets it
    expect(other.locator("#filter-count")).to_have_text("1 of 72 rollouts")
    expect(other.locator("#cards li")).to_have_count(1)
    other.get_by_role("button", name="Clear filters").click()
    expect(other.locator("#filter-count")).to_have_text("24 of 72 rollouts")


def test_a_cause_filters_the_gallery(small, look):
    page = look(address(small, "view=gallery&policy=all"))
    bar = page.locator("#causes button").first
    count = int(bar.locator(".num").inner_text().split()[0])
    bar.click()
    expect(page.locator("#filter-count")).to_have_text(f"{count} of 72 rollouts")
    expect(bar).to_have_attribute("aria-pressed", "true")
    expect(page.locator("#causes-note")).to_contain_text("not by people")
    bar.click()
    expect(page.locator("#filter-count")).to_have_text("72 of 72 rollouts")


def test_the_heat_map_opens_rollouts_by_keyboard(small, look):
    page = look(address(small, "view=heat"))
    assert page.locator("#heat td[data-key]").count() == 24
    page.locator('#heat td[tabindex="0"]').focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowRight")
    key = page.evaluate("document.activeElement.dataset.key")
    page.keyboard.press("Enter")
    expect(page.locator("#rollout")).to_be_visible()
    assert f"rollout={key}" in state(page)
    assert videos(page) <= 1
    page.keyboard.press("Escape")
    expect(page.locator("#rollout")).to_be_hidden()
    assert page.evaluate("document.activeElement.dataset.key") == key
    assert videos(page) == 0
    rows = page.locator("#heat tbody tr")
    page.get_by_role("combobox", name="Columns").select_option("score")
    for row in range(rows.count()):
        cells = rows.nth(row).locator("td[data-key]").all_inner_texts()
        scores = [{"1": 1.0, "?": 0.0}.get(text, float(text) if text[0] in ".0" else 0.0) for text in cells]
        assert scores == sorted(scores, reverse=True)


def filmed(page: Page) -> str:
    """The key of a rollout with a video that failed."""
    return page.evaluate(
        """() => {
          const data = JSON.parse(document.getElementById("data").textContent);
          const columns = data.rollouts;
          const place = columns.video.findIndex((video, i) => video && columns.q[i] < 1 && columns.trace[i]);
          const name = data.tasks[columns.task[place]].name;
          return [data.policies[columns.policy[place]], name, columns.instance[place], 0].join("/");
        }"""
    )


def test_a_rollout_has_its_video_and_timeline(small, look):
    page = look(address(small, "view=gallery&outcome=not"))
    page.goto(address(small, f"view=gallery&outcome=not&rollout={filmed(page)}"))
    page.reload()
    video = page.locator("#rollout video")
    expect(page.locator("#rollout path.voted")).to_have_count(1)
    expect(page.locator("#rollout .timeline pre")).to_contain_text("Current step: ")
    assert page.locator("#rollout path.voted").get_attribute("d").startswith("M0.0")
    page.wait_for_function("document.querySelector('#rollout video').currentTime > 0.2")
    page.keyboard.press(">")
    page.keyboard.press(">")
    assert video.evaluate("one => one.playbackRate") == 4
    page.keyboard.press("p")
    page.wait_for_function("document.querySelector('#rollout video').paused")
    plot = page.locator("#rollout .stages")
    plot.scroll_into_view_if_needed()
    box = plot.bounding_box()
    plot.click(position={"x": box["width"] / 2, "y": 20})
    page.wait_for_function("Math.abs(document.querySelector('#rollout video').currentTime - 2) < 0.2")
    title = page.locator("#rollout").inner_text()
    page.keyboard.press("j")
    page.wait_for_function("before => document.getElementById('rollout').innerText !== before", arg=title)
    assert videos(page) <= 1


def test_pairs_play_in_step(small, look):
    page = look(address(small, "view=pairs&task=turning_on_radio"))
    expect(page.locator("#pair video")).to_have_count(2)
    page.wait_for_function("[...document.querySelectorAll('#pair video')].every(one => one.readyState >= 3)")
    page.get_by_role("button", name="Play both").click()
    page.wait_for_function("document.querySelector('#pair video').currentTime > 0.5")
    differences = page.evaluate(
        """async () => {
          const [one, two] = document.querySelectorAll("#pair video");
          const found = [];
          for (let i = 0; i < 20; i += 1) {
            await new Promise((resolve) => setTimeout(resolve, 80));
            found.push(Math.abs(one.currentTime - two.currentTime));
          }
          return found;
        }"""
    )
    assert max(differences) < 0.1
    assert page.evaluate("document.querySelector('#pair video').currentTime") > 1.0
    slider = page.get_by_label("Time of both videos")
    slider.focus()
    page.keyboard.press("Home")
    page.get_by_role("button", name="10×").click()
    rates = page.locator("#pair video").evaluate_all("all => all.map(one => one.playbackRate)")
    assert rates == [10, 10]
    page.get_by_role("tab", name="Gallery").click()
    assert videos(page) == 0


def test_the_lineage_opens_an_artifact(small, look):
    page = look(address(small, "view=origin"))
    page.locator("svg.graph a", has_text="plan").first.click()
    expect(page.locator("details[open]")).to_have_count(1)
    expect(page.locator("details[open] summary")).to_contain_text("artifacts/plan/")
    assert "artifact=artifact-plan-" in state(page)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_accessibility(small, look, scheme):
    page = look(address(small), scheme=scheme)
    key = filmed(page)
    for view in (*(f"view={one}" for one in VIEWS), f"view=gallery&rollout={key}"):
        page.goto("about:blank")
        page.goto(address(small, view))
        if "rollout" in view:
            expect(page.locator("#rollout path.voted")).to_have_count(1)
        found = Axe().run(page).response["violations"]
        assert [
            (view, one["id"], node["html"], node["failureSummary"])
            for one in found
            if one["impact"] in ("serious", "critical")
            for node in one["nodes"]
        ] == []


@pytest.mark.parametrize("width", [390, 1440])
def test_nothing_is_wider_than_the_window(small, look, width):
    page = look(address(small), width=width)
    for view in VIEWS:
        page.goto(address(small, f"view={view}"))
        page.reload()
        assert page.evaluate("document.documentElement.scrollWidth") <= width, view


@pytest.mark.parametrize("width", [390, 1440])
@pytest.mark.parametrize("policy", ["chosen", "all"])
def test_cells_of_the_heat_map_are_below_their_instances(small, look, width, policy):
    page = look(address(small, f"view=heat&policy={policy}"), width=width)
    names = page.locator("#heat tr:has(th[scope=col])").last.locator(".up")
    cells = page.locator("#heat tbody tr").first.locator("td[data-key], td.absent")
    assert names.count() == cells.count() >= 4
    for place in range(names.count()):
        name, cell = names.nth(place).bounding_box(), cells.nth(place).bounding_box()
        assert cell["x"] <= name["x"] + name["width"] / 2 <= cell["x"] + cell["width"], place


def test_three_thousand_rollouts(large, look):
    report = large / "report"
    size = sum(p.stat().st_size for p in report.rglob("*") if p.is_file() and "videos" not in p.parts)
    page = look(address(large, "view=heat"))
    opened = page.evaluate("performance.getEntriesByType('navigation')[0].loadEventEnd")
    heights, times = {}, {}
    for view in VIEWS:
        page.get_by_role("tab", name={"heat": "Heat map"}.get(view, view.capitalize())).click()
        heights[view] = page.evaluate("document.documentElement.scrollHeight")
        assert videos(page) <= 2
    for view, name, value in (
        ("heat", "policy", "all"),
        ("gallery", "outcome", "not"),
        ("heat", "text", "radio"),
    ):
        page.goto(address(large, f"view={view}"))
        page.reload()
        # until the browser has laid the page out again
        times[view, name] = page.evaluate(
            """([name, value]) => {
              const input = document.getElementById(`filter-${name}`);
              const began = performance.now();
              input.value = value;
              input.dispatchEvent(new Event(name === "text" ? "input" : "change"));
              document.body.getBoundingClientRect();
              return performance.now() - began;
            }""",
            [name, value],
        )
    print(f"{size:,} bytes without videos; open {opened:.0f} ms; filters {times} ms; heights {heights}")
    assert size < 2_000_000
    assert opened < 1000
    assert max(times.values()) < 1000
    assert max(heights.values()) < 4000
