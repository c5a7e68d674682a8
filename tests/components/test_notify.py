"""What people are told of a run, by a real HTTP server in the place of Slack and Teams."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from components.notify import stage
from components.notify.config import Config
from components.notify.stage import Message, compose
from components.runtime.outcomes import Outcome, outcomes, recorder

RUN = "0f3c-7"
SECRET_PATH = "/services/T000/B000/very-secret"


class Webhook:
    """A webhook that answers what it is told to, and keeps what it was sent."""

    def __init__(self) -> None:
        self.answers: list[int] = []
        self.received: list[Any] = []
        webhook = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                code = webhook.answers.pop(0) if webhook.answers else 200
                if code == 200:
                    assert self.headers["Content-Type"] == "application/json"
                    webhook.received.append(json.loads(body))
                self.send_response(code)
                if code == 302:
                    self.send_header("Location", "http://127.0.0.1:1/elsewhere")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}{SECRET_PATH}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def webhook() -> Iterator[Webhook]:
    one = Webhook()
    yield one
    one.server.shutdown()
    one.server.server_close()


def _notify(workspace: Path, state: str, url: str, **environment: str) -> str:
    """Run the stage as Kubeflow does; returns what it printed, in which the URL must not be."""
    out = workspace / "out"
    task = {
        "inputs": {
            "parameterValues": {
                "run_id": RUN,
                "task_id": "9",
                "sections": "",
                "status": {
                    "state": state,
                    "pipelineTaskName": "exit-handler-1",
                    "pipelineJobResourceName": "demo-x",
                    "error": {},
                },
            }
        },
        "outputs": {"outputFile": str(out / "executor_output.json")},
    }
    command = [sys.executable, "-m", "components.notify", "--executor-input", json.dumps(task)]
    given = {"B1K_WEBHOOK_URL": url, "B1K_UI_URL": "https://kubeflow.example.org/pipeline/", **environment}
    done = subprocess.run(
        [*command, "--workspace", str(workspace)],
        env={**os.environ, **given},
        capture_output=True,
        text=True,
        check=False,
    )
    printed = done.stdout + done.stderr
    assert done.returncode == 0, printed
    for path in workspace.rglob("*"):
        if path.is_file():
            printed += path.read_text()
    assert "very-secret" not in printed
    return printed


def test_a_failed_run_tells_which_stage_and_why_with_a_link(tmp_path: Path, webhook: Webhook) -> None:
    recorder(tmp_path, RUN, "dataset", "")(0, "2 episodes")
    recorder(tmp_path, RUN, "train", "common")(1, "RuntimeError: loss is NaN")
    recorder(tmp_path, RUN, "evaluate", "3")(None, "")
    assert "told: Failed: run 0f3c-7" in _notify(tmp_path, "FAILED", webhook.url)
    (body,) = webhook.received
    assert "train common: RuntimeError: loss is NaN" in body["text"]
    assert "evaluate 3: ended without a word in attempt 1" in body["text"]
    assert "https://kubeflow.example.org/pipeline/#/runs/details/0f3c-7" in body["text"]
    assert body["type"] == "message"
    (attached,) = body["attachments"]
    assert attached["contentType"] == "application/vnd.microsoft.card.adaptive"
    card = attached["content"]
    assert (card["type"], card["version"]) == ("AdaptiveCard", "1.4")
    assert "loss is NaN" in card["body"][1]["text"]
    assert card["actions"][0]["url"].endswith("/#/runs/details/0f3c-7")
    assert outcomes(tmp_path, RUN) == [], "the records are needed no more"


@pytest.mark.parametrize("text", ["promoted: better than the champion", "not promoted: no evidence"])
def test_a_decision_on_promotion_is_told(tmp_path: Path, webhook: Webhook, text: str) -> None:
    recorder(tmp_path, RUN, "promote", "")(0, text)
    _notify(tmp_path, "SUCCEEDED", webhook.url)
    (body,) = webhook.received
    assert body["text"].startswith("*Promoted" if text.startswith("promoted") else "*Not promoted")
    assert text in body["text"]


def test_a_run_without_news_is_not_told(tmp_path: Path, webhook: Webhook) -> None:
    recorder(tmp_path, RUN, "news", "")(0, "no news, nothing to train")
    assert "nothing to tell" in _notify(tmp_path, "SUCCEEDED", webhook.url)
    assert webhook.received == []


def test_the_first_mistake_makes_it_refused() -> None:
    found = [Outcome("settings", code=2, text="2 mistakes: steps is 0; batch_size is -1")]
    message = compose(Config(RUN, "FAILED"), found, "")
    assert message == Message("Refused: run 0f3c-7", "settings: 2 mistakes: steps is 0; batch_size is -1")
    nothing = compose(Config(RUN, "FAILED"), [], "")
    assert nothing is not None
    assert "no task left a word" in nothing.text


def test_slack_gets_no_card() -> None:
    assert Message("a", "b", "https://x").body("hooks.slack.com") == {"text": "*a*\nb\nhttps://x"}


def test_it_is_tried_again_where_that_may_help(webhook: Webhook) -> None:
    webhook.answers = [503, 429]
    stage.deliver(webhook.url, Message("a", "b"), (0.0, 0.0))
    assert len(webhook.received) == 1


@pytest.mark.parametrize(
    ("answer", "said"), [(404, "the webhook answers 404"), (302, "the webhook answers 302")]
)
def test_what_the_webhook_refuses_is_said_and_the_run_does_not_fail(
    tmp_path: Path, webhook: Webhook, answer: int, said: str
) -> None:
    webhook.answers = [answer]
    recorder(tmp_path, RUN, "promote", "")(0, "promoted: better")
    printed = _notify(tmp_path, "SUCCEEDED", webhook.url)
    assert f"not told: Promoted: run 0f3c-7: {said}" in printed


@pytest.mark.parametrize("url", ["very-secret", "file:///very-secret", "http://[very-secret", "https://"])
def test_a_wrong_url_is_never_printed(tmp_path: Path, url: str) -> None:
    recorder(tmp_path, RUN, "promote", "")(0, "promoted: better")
    printed = _notify(tmp_path, "SUCCEEDED", url)
    assert "B1K_WEBHOOK_URL is no URL that begins with https://" in printed


def test_without_a_webhook_nobody_is_told(tmp_path: Path) -> None:
    recorder(tmp_path, RUN, "promote", "")(0, "promoted: better")
    assert "nobody is told" in _notify(tmp_path, "SUCCEEDED", "")


def test_stages_record_how_they_end(tmp_path: Path) -> None:
    parameters = {"run_id": RUN, "task_id": "5", "sections": "collect", "repository": "", "episodes": 1}
    task = {"inputs": {"parameterValues": parameters}, "outputs": {"outputFile": str(tmp_path / "o")}}
    command = [sys.executable, "-m", "components.collect", "--executor-input", json.dumps(task)]
    command += ["--workspace", str(tmp_path)]
    assert subprocess.run(command, check=False).returncode == 2
    assert outcomes(tmp_path, RUN) == [], "at home nobody is told"
    pod = {**os.environ, "B1K_ATTEMPTS": "3"}
    assert subprocess.run(command, env=pod, check=False).returncode == 2
    (outcome,) = outcomes(tmp_path, RUN)
    assert (outcome.name, outcome.code) == ("collect", 2)
    assert "expected a folder to collect" in outcome.text
