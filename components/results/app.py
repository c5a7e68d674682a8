"""The web application: pages, files of leaderboards with range requests, and labels.

Files are read, never written: those in a leaderboard's folder, and the pages of other artifacts; nothing
follows a link out of the root. Names and notes are text wherever they are shown.
"""

import base64
import hashlib
import json
import os
import re
import stat
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from components.errors import UserError
from components.evaluation.records import SCORES
from components.results import comparing, listing
from components.results.bucket import Bucket
from components.results.labels import Label, Labels, to_csv
from components.results.running import running
from components.results.site import with_decision
from components.runtime.progress import format_seconds
from components.runtime.stage import SUMMARY
from components.store.artifact import is_artifact
from components.store.lineage import Node

_LARGEST = 64 * 1024
"""Bytes of a label that is sent to us."""
_FORWARDED = ("x-forwarded-for", "forwarded", "via", "x-real-ip")
_LOOPBACK = ("127.0.0.1", "::1")
LOCAL_HOSTS = ("127.0.0.1", "localhost", "[::1]")
_PAGE = "default-src 'none'; style-src 'unsafe-inline'; img-src 'self' data:; media-src 'self'; "
_PAGE += "base-uri 'none'; form-action 'self'; frame-ancestors 'self'"
_SCRIPTS = {
    "live.js": (("components.results", "live.js"),),
    "pairs.js": (("components.leaderboard", "report_together.js"), ("components.results", "pairs.js")),
}
_SAFE = {"X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer", "Cache-Control": "no-cache"}


@dataclass(frozen=True)
class Place:
    """What is served, and to whom."""

    root: Path
    """A workspace, or a folder with leaderboards."""
    labels: Path
    """Folder of the labels."""
    user_header: str = ""
    """Header in which a proxy names the user who has logged in; without it only this machine is served."""
    bucket: Bucket | None = None
    """Of which `root` has copies of records and pages."""


def make_app(place: Place) -> Starlette:
    """The application for a place."""
    browser = _Browser(place)
    routes = [
        Route("/healthz", lambda _: PlainTextResponse("OK\n")),
        Route("/", browser.index),
        Route("/live", browser.live),
        Route("/compare", browser.compare),
        Route("/script/{name}", browser.script),
        Route("/labels/{digest}", browser.labels),
        Route("/labels/{digest}", browser.add_label, methods=["POST"]),
        Route("/labels/{digest}/csv", browser.labels_csv),
        Route("/files/{path:path}", browser.file),
    ]
    app = Starlette(routes=routes)
    app.state.place = place
    app.add_middleware(_Login, place=place)
    return app


class _Login:
    """Lets those in whom the proxy has named, and callers on this machine who came through no proxy."""

    def __init__(self, app: Callable[..., Awaitable[None]], place: Place) -> None:
        self._app, self._place = app, place

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http" or scope["path"] == "/healthz":
            await self._app(scope, receive, send)
            return
        request = Request(scope)
        named = request.headers.get(self._place.user_header, "").strip() if self._place.user_header else ""
        local = bool(request.client) and request.client is not None and request.client.host in _LOOPBACK
        proxied = any(header in request.headers for header in _FORWARDED)
        host = request.headers.get("host", "")
        name = host.partition("]")[0] + "]" if host.startswith("[") else host.partition(":")[0]
        # a web page elsewhere may send a browser's requests to this machine under another name
        if named or (local and not proxied and name in LOCAL_HOSTS):
            scope.setdefault("state", {})["user"] = named
            await self._app(scope, receive, send)
            return
        words = f"expected the header {self._place.user_header}" if self._place.user_header else "local only"
        await PlainTextResponse(f"not logged in: {words}\n", 401)(scope, receive, send)


class _Browser:
    """The pages of a place."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._root = place.root.resolve()
        environment = Environment(
            loader=PackageLoader("components.results", "."),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        environment.filters["duration"] = format_seconds
        environment.filters["path"] = lambda text: quote(text, safe="/")
        environment.globals["style"] = files("components.leaderboard").joinpath("report.css").read_text()
        self._environment = environment

    def _page(self, name: str, scripts: bool = False, **context: Any) -> HTMLResponse:
        policy = _PAGE + ("; script-src 'self'; connect-src 'self'" if scripts else "")
        text = self._environment.get_template(name).render(**context)
        return HTMLResponse(text, headers={**_SAFE, "Content-Security-Policy": policy})

    def _boards(self) -> list[listing.Board]:
        if self._place.bucket is not None:
            self._place.bucket.refresh()
        return listing.boards(self._root)

    def index(self, request: Request) -> Response:
        boards = self._boards()
        return self._page(
            "index.html",
            boards=boards,
            unread=listing.unread(self._root, boards),
            runs=listing.runs(self._root),
            running=running(self._root),
            root=self._root.name,
        )

    def live(self, request: Request) -> Response:
        return self._page("live.html", scripts=True, running=running(self._root))

    def compare(self, request: Request) -> Response:
        boards = self._boards()
        known = {board.place: board for board in boards}
        first, second = (request.query_params.get(name, "") for name in ("first", "second"))
        found, problem, film = None, "", None
        if first in known and second in known:
            try:
                found = comparing.compare(self._root / first, self._root / second)
                film = comparing.find(found, request.query_params.get("rollout", ""))
            except UserError as error:
                problem = str(error).replace(f"{self._root}/", "")
        elif first or second:
            problem = "one of the two leaderboards is not here"
        return self._page(
            "compare.html",
            scripts=True,
            boards=boards,
            first=first,
            second=second,
            found=found,
            problem=problem,
            film=film,
        )

    def script(self, request: Request) -> Response:
        parts = _SCRIPTS.get(request.path_params["name"])
        if parts is None:
            raise HTTPException(404)
        text = "\n".join(files(package).joinpath(name).read_text() for package, name in parts)
        return Response(f'"use strict";\n{text}', media_type="text/javascript", headers=_SAFE)

    def file(self, request: Request) -> Response:
        place, bucket = request.path_params["path"], self._place.bucket
        if any(part.startswith(".") or not part or "\0" in part or "\\" in part for part in place.split("/")):
            raise HTTPException(404)
        path = self._root / place
        entry = None
        if bucket is not None:
            bucket.refresh()
            entry = bucket.find(place)
        if entry is None:
            self._check_file(path)
        board = self._artifact_of(path)
        if path == board / "report" / "index.html":
            return self._report(path, board)
        policy = "sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src data:"
        headers = {**_SAFE, "Content-Security-Policy": policy}
        if bucket is not None and entry is not None:
            return bucket.respond(place, entry, request, headers)
        return FileResponse(path, headers=headers)

    def _check_file(self, path: Path) -> None:
        """404 unless a path is that of a file."""
        try:
            # no link anywhere: the real place is the place that was asked for
            if os.path.realpath(path, strict=True) != str(path) or not stat.S_ISREG(path.stat().st_mode):
                raise HTTPException(404)
        except (OSError, ValueError) as error:
            raise HTTPException(404) from error

    def _artifact_of(self, path: Path) -> Path:
        """The folder of the leaderboard that a file is of, or of the artifact whose page it is; else 404."""
        for folder in path.parents:
            if folder == self._root.parent:
                break
            if is_artifact(folder) and (path == folder / SUMMARY or (folder / SCORES).is_file()):
                return folder
        raise HTTPException(404)

    def _report(self, path: Path, board: Path) -> Response:
        """The report's page, with the promotion's decision and the place of its labels."""
        text = with_decision(path.read_text(errors="replace"), listing.decision_of(board))
        meta = f'<meta name="b1k-labels" content="/labels/{Node.read(board).digest}">'
        text = text.replace('<meta charset="utf-8">', f'<meta charset="utf-8">\n{meta}', 1)
        scripts = re.findall(r"<script(?:\s[^>]*)?>(.*?)</script>", text, re.DOTALL)
        hashes = " ".join(
            f"'sha256-{base64.b64encode(hashlib.sha256(one.encode()).digest()).decode()}'" for one in scripts
        )
        policy = f"{_PAGE}; script-src 'self' {hashes}; connect-src 'self'"
        return HTMLResponse(text, headers={**_SAFE, "Content-Security-Policy": policy})

    def _labels_of(self, request: Request) -> Labels:
        try:
            found = Labels(self._place.labels, request.path_params["digest"])
        except ValueError as error:
            raise HTTPException(404) from error
        if not any(board.digest == request.path_params["digest"] for board in self._boards()):
            raise HTTPException(404)
        return found

    def _writable(self) -> bool:
        place = self._place.labels
        while not place.exists() and place != place.parent:
            place = place.parent
        return os.access(place, os.W_OK)

    def labels(self, request: Request) -> Response:
        found = self._labels_of(request).for_report()
        answer = {"labels": found, "who": request.state.user, "writable": self._writable()}
        return JSONResponse(answer, headers=_SAFE)

    def labels_csv(self, request: Request) -> Response:
        text = to_csv(self._labels_of(request).current())
        attachment = {"Content-Disposition": 'attachment; filename="labels.csv"'}
        return Response(text, media_type="text/csv", headers={**_SAFE, **attachment})

    async def add_label(self, request: Request) -> Response:
        origin = request.headers.get("origin")
        same = origin is None or urlsplit(origin).netloc == request.headers.get("host")
        if request.headers.get("content-type", "").partition(";")[0] != "application/json" or not same:
            raise HTTPException(403, "expected JSON from a page of this server")
        body = b""
        async for chunk in request.stream():
            body += chunk
            if len(body) > _LARGEST:
                raise HTTPException(413)
        try:
            row = json.loads(body)
            who = request.state.user or row["who"]
            label = Label.make(row["rollout"], who, row["causes"], row["note"])
        except (ValueError, KeyError, TypeError) as error:
            raise HTTPException(400, f"not a label: {error}") from error
        try:
            # in a thread, as other readers would wait for the disk
            await run_in_threadpool(lambda: self._labels_of(request).add([label]))
        except OSError as error:
            raise HTTPException(503, f"labels cannot be written: {error.strerror}") from error
        return JSONResponse({"who": label.who, "causes": label.causes, "note": label.note}, headers=_SAFE)
