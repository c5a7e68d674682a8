"""Tell people what became of a run: by a webhook, if it failed, or if promotion was decided.

The webhook's URL is in the variable B1K_WEBHOOK_URL, from a secret; it never appears in logs or files.
Without it nothing is told. B1K_UI_URL is the address of the Kubeflow UI, for the link. A message that cannot
be delivered does not make the run fail.
"""

import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from http.client import HTTPException
from typing import Any
from urllib.parse import quote, urlsplit

from components.notify.config import DECLARATION, Config, Inputs
from components.runtime.outcomes import Outcome, forget, outcomes
from components.runtime.stage import Result, Stage, Work
from components.store.files import write_atomic

WEBHOOK, UI = "B1K_WEBHOOK_URL", "B1K_UI_URL"
_PAUSES = (2.0, 8.0)
"""Seconds before the second and the third try."""
_TIMEOUT = 20.0
_LONGEST = 1500
_SLACK = ("hooks.slack.com", "hooks.slack-gov.com")
_REFUSED = 2


@dataclass(frozen=True)
class Message:
    """What people are told."""

    title: str
    text: str
    link: str = ""

    def body(self, host: str) -> dict[str, Any]:
        """The JSON for a webhook on a host: Slack reads `text`, Teams the card; Slack itself gets no card."""
        lines = [f"*{self.title}*", self.text, *([self.link] if self.link else [])]
        body: dict[str, Any] = {"text": "\n".join(lines)}
        if host in _SLACK:
            return body
        card: dict[str, Any] = {
            "type": "AdaptiveCard",
            "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
            "version": "1.4",
            "body": [
                {"type": "TextBlock", "text": self.title, "weight": "Bolder", "size": "Medium", "wrap": True},
                {"type": "TextBlock", "text": self.text, "wrap": True},
            ],
        }
        if self.link:
            card["actions"] = [{"type": "Action.OpenUrl", "title": "Open the run", "url": self.link}]
        attached = {"contentType": "application/vnd.microsoft.card.adaptive", "content": card}
        return {"type": "message", **body, "attachments": [attached]}


class DeliveryError(Exception):
    """The message was not taken; the text never holds the URL."""


def run(config: Config, inputs: Inputs, work: Work) -> Result:
    """Send the message, if there is something to tell, and write it to `notification.json`."""
    message = compose(config, outcomes(work.workspace, config.run), os.environ.get(UI, ""))
    said = "nothing to tell"
    sent = False
    if message is not None:
        write_atomic(work.path / "notification.json", json.dumps(asdict(message), indent=2) + "\n")
        url = os.environ.get(WEBHOOK, "").strip()
        if not url:
            said = f"{message.title}; nobody is told, as there is no {WEBHOOK} (secret b1k-webhook)"
        else:
            try:
                deliver(url, message)
                sent, said = True, f"told: {message.title}"
            except DeliveryError as error:
                said = f"not told: {message.title}: {error}"
    forget(work.workspace, config.run)
    return Result(metrics={"sent": float(sent)}, metadata={"sent": sent}, summary=said)


def compose(config: Config, found: Sequence[Outcome], ui: str) -> Message | None:
    """What to tell of a run; None where nothing is of interest.

    Args:
        config: the run.
        found: what became of its tasks, in their order.
        ui: address of the Kubeflow UI, for the link; may be empty.
    """
    link = f"{ui.rstrip('/')}/#/runs/details/{quote(config.run, safe='')}" if ui and config.run else ""
    name = f"run {config.run or 'without ID'}"
    if config.state == "SUCCEEDED":
        decisions = [one.text for one in found if one.stage == "promote" and one.code == 0]
        if not decisions:
            return None
        promoted = decisions[-1].startswith("promoted")
        return Message(
            f"{'Promoted' if promoted else 'Not promoted'}: {name}", decisions[-1][:_LONGEST], link
        )
    failed = [one for one in found if one.code]
    killed = [one for one in found if one.code is None]
    reasons = [f"{one.name}: {one.text or f'exit code {one.code}'}" for one in failed]
    reasons += [
        f"{one.name}: ended without a word in attempt {one.attempt}: no memory, a lost node, cancelled"
        for one in killed
    ]
    if not reasons:
        reasons = ["no task left a word: a driver failed or a pod could not start; b1k pipeline status tells"]
    refused = bool(failed) and failed[0].code == _REFUSED and not killed
    word = "Refused" if refused else config.state.capitalize() or "Failed"
    return Message(f"{word}: {name}", "\n".join(reasons)[:_LONGEST], link)


def deliver(url: str, message: Message, pauses: Sequence[float] = _PAUSES) -> None:
    """Post a message to a webhook, and again after a pause where that may help.

    Raises:
        DeliveryError: the webhook did not take it.
    """
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
    except ValueError:
        host = ""
    if not host or parts.scheme not in ("http", "https"):
        raise DeliveryError(f"{WEBHOOK} is no URL that begins with https://; correct the secret")
    data = json.dumps(message.body(host)).encode()
    for pause in (*pauses, None):
        problem, passes = _post(url, data)
        if not problem:
            return
        if pause is None or not passes:
            raise DeliveryError(problem)
        print(f"notify: {problem}; trying again in {pause:.0f} s", flush=True)
        time.sleep(pause)


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirected POST would arrive elsewhere as a GET without its body."""

    def redirect_request(self, *arguments: Any) -> None:
        return None


def _post(url: str, data: bytes) -> tuple[str, bool]:
    """Why the webhook did not take the data, empty if it did; and whether that may pass.

    Messages of the libraries may hold the URL, so only their kinds are told.
    """
    opener = urllib.request.build_opener(_NoRedirect)
    try:
        # the scheme was checked
        request = urllib.request.Request(url, data, {"Content-Type": "application/json"})  # noqa: S310
        with opener.open(request, timeout=_TIMEOUT):
            return "", False
    except urllib.error.HTTPError as error:
        error.close()
        passes = error.code == 429 or error.code >= 500
        return f"the webhook answers {error.code}; is its URL in the secret still right?", passes
    except urllib.error.URLError as error:
        return f"the webhook cannot be reached ({type(error.reason).__name__})", True
    except (OSError, HTTPException, ValueError) as error:
        return f"the webhook cannot be reached ({type(error).__name__})", isinstance(error, OSError)


STAGE = Stage(DECLARATION, run)
