"""A real Chromium, driven by Playwright, and leaderboards to look at."""

import importlib.util
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from pi_behavior.challenge import TASKS

_spec = importlib.util.spec_from_file_location("challenge", Path(__file__).with_name("challenge.py"))
challenge = sys.modules["challenge"] = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(challenge)
SMALL = tuple(TASKS)[:6]


def pytest_collection_modifyitems(items):
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.browser)


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Debian's Chromium. Without one these tests fail: a page that nobody opened is not tested."""
    program = shutil.which("chromium")
    if program is None:
        pytest.fail("there is no chromium: apt-get install -y chromium")
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(
            executable_path=program,
            args=["--no-sandbox", "--autoplay-policy=no-user-gesture-required"],  # tests may run as root
        )
        yield started
        started.close()


@pytest.fixture(scope="session")
def small(tmp_path_factory) -> Path:
    """The leaderboard of six tasks, four instances and four policies."""
    return challenge.make(tmp_path_factory.mktemp("small") / "workspace", SMALL, instances=4).path


@pytest.fixture(scope="session")
def large(tmp_path_factory) -> Path:
    """The leaderboard of 100 tasks, ten instances and three policies per task."""
    return challenge.make(
        tmp_path_factory.mktemp("large") / "workspace", tuple(TASKS)[:100], instances=10
    ).path


@pytest.fixture
def look(browser):
    """Opens pages, none of which may say anything on the console or ask for another host."""
    said, asked, contexts = [], [], []

    def open_page(address: str, *, scheme: str = "light", width: int = 1440, quiet: bool = True) -> Page:
        context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(15_000)
        if quiet:
            page.on("console", lambda message: said.append(message.text))
            page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(address)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert said == []
    assert [url for url in asked if not url.startswith(("file:", "data:", "http://127.0.0.1:"))] == []
