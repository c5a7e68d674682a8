"""Leaderboards below a prefix of S3, for readers who want folders.

Records and pages are copied into a folder. Videos, posters and traces stay where they are and are passed on
in parts: browsers get neither an address nor a signature of the bucket, so who may see a video is decided
here.
"""

import mimetypes
import re
import threading
import time
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from email.utils import formatdate
from pathlib import Path, PurePosixPath
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from components.evaluation.plan import PLAN
from components.evaluation.records import SCORES
from components.evaluation.rollouts import EPISODES
from components.promote.stage import DECISION
from components.runtime.stage import SUMMARY
from components.store.artifact import LINEAGE, RESULT
from components.store.champion import CHAMPION
from components.store.files import write_atomic
from components.store.s3 import Prefix
from components.store.sums import SUMS

_COPIED = {SUMS, LINEAGE, SCORES, EPISODES, PLAN, DECISION, RESULT, SUMMARY, CHAMPION, "run.json"}
_PAGE = ("report", "index.html")
_LARGEST = 64 * 2**20
"""Bytes of a file that is copied."""
_FRESH = 10.0
"""Seconds for which a list of names counts."""
_CHUNK = 2**18
_DOWNLOADS = 8
_CONNECTIONS = 64
_RANGE = re.compile(r"bytes=(?:(\d{1,18})-(\d{0,18})|-(\d{1,18}))")


@dataclass(frozen=True)
class Entry:
    """An object of the bucket."""

    size: int
    tag: str
    """Its ETag, quoted."""
    changed: str
    """When it was last modified, as HTTP writes it."""


class Bucket:
    """What lies below a prefix, with a folder that has the copies."""

    def __init__(self, url: str, folder: Path) -> None:
        """Copy what there is; UserError if the bucket cannot be read."""
        self._s3 = Prefix(url, "--workspace", _CONNECTIONS)
        self._folder = folder
        self._entries: dict[str, Entry] = {}
        self._looked = float("-inf")
        self._lock = threading.Lock()

    def refresh(self) -> None:
        """Look at the bucket again, if the last look was some time ago; HTTPException if that fails."""
        with self._lock:
            if time.monotonic() - self._looked < _FRESH:
                return
            try:
                self._copy(self._list())
            except self._s3.errors as error:
                raise HTTPException(503, f"the bucket cannot be read: {type(error).__name__}") from error
            self._looked = time.monotonic()

    def find(self, place: str) -> Entry | None:
        """An object that is not copied, by its place below the prefix."""
        return None if _is_copied(place) else self._entries.get(place)

    def respond(self, place: str, entry: Entry, request: Request, headers: dict[str, str]) -> Response:
        """An object, or the part that a Range asks for (RFC 9110, section 14)."""
        headers = {
            **headers,
            "Accept-Ranges": "bytes",
            "ETag": entry.tag,
            "Last-Modified": entry.changed,
            "Content-Type": mimetypes.guess_type(place)[0] or "application/octet-stream",
        }
        wanted = request.headers.get("range", "")
        if request.headers.get("if-range", entry.tag) not in (entry.tag, entry.changed):
            wanted = ""
        part = _part(wanted, entry.size)
        if part is not None and not part:
            return Response(status_code=416, headers={**headers, "Content-Range": f"bytes */{entry.size}"})
        span = part or range(entry.size)
        headers["Content-Length"] = str(len(span))
        if part is not None:
            headers["Content-Range"] = f"bytes {span[0]}-{span[-1]}/{entry.size}"
        status = 200 if part is None else 206
        if request.method == "HEAD" or not span:
            return Response(status_code=status, headers=headers)
        # the object that was listed, and no later one
        asked = {"Range": f"bytes={span[0]}-{span[-1]}", "IfMatch": entry.tag}
        try:
            body = self._s3.client.get_object(Bucket=self._s3.bucket, Key=self._s3.key(place), **asked)[
                "Body"
            ]
        except self._s3.errors as error:
            self._looked = float("-inf")
            raise HTTPException(503, f"the bucket does not give it: {type(error).__name__}") from error
        return StreamingResponse(_chunks(body), status, headers)

    def _get(self, place: str, **asked: str) -> Any:
        key = self._s3.key(place)
        return self._s3.client.get_object(Bucket=self._s3.bucket, Key=key, **asked)["Body"]

    def _list(self) -> dict[str, Entry]:
        found = {}
        before = self._s3.key("")
        pages = self._s3.client.get_paginator("list_objects_v2")
        for page in pages.paginate(Bucket=self._s3.bucket, Prefix=before):
            for one in page.get("Contents", ()):
                place = one["Key"].removeprefix(before)
                if all(part and part[0] != "." and "\0" not in part for part in place.split("/")):
                    changed = formatdate(one["LastModified"].timestamp(), usegmt=True)
                    found[place] = Entry(one["Size"], one["ETag"], changed)
        return found

    def _copy(self, found: dict[str, Entry]) -> None:
        known, self._entries = self._entries, found
        for place in known.keys() - found.keys():
            if _is_copied(place):
                (self._folder / place).unlink(missing_ok=True)
        new = [
            place
            for place, entry in found.items()
            if _is_copied(place) and entry != known.get(place) and entry.size <= _LARGEST
        ]
        # an artifact is one once it has its sums
        for places in ([one for one in new if not _is_sums(one)], [one for one in new if _is_sums(one)]):
            with ThreadPoolExecutor(_DOWNLOADS) as pool:
                list(pool.map(self._download, places))

    def _download(self, place: str) -> None:
        content = self._get(place).read()
        with suppress(OSError):  # a name that no folder can hold; nothing of ours has one
            write_atomic(self._folder / place, content)


def _is_copied(place: str) -> bool:
    path = PurePosixPath(place)
    return path.name in _COPIED or path.parts[-2:] == _PAGE


def _is_sums(place: str) -> bool:
    return place.endswith(f"/{SUMS}")


def _part(wanted: str, size: int) -> range | None:
    """The bytes of a Range header: empty if there are none of them, None if it is to be ignored."""
    found = _RANGE.fullmatch(wanted.strip())
    if found is None:  # several ranges too
        return None
    first, last, suffix = found.groups()
    if suffix is not None:
        return range(max(0, size - int(suffix)), size)
    end = min(int(last) + 1, size) if last else size
    if last and int(last) < int(first):
        return None
    return range(min(int(first), size), end)


async def _chunks(body: Any) -> AsyncIterator[bytes]:
    try:
        while chunk := await run_in_threadpool(body.read, _CHUNK):
            yield chunk
    finally:
        body.close()
