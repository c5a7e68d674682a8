"""`b1k dataset import` against a local server of the Hub's HTTP interface."""

import hashlib
import importlib.util
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from components.demonstrations.importing import Options, run
from components.errors import PassingError, UserError

# DVC's dependencies deprecate what DVC still uses
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:dvc")

_writer_path = Path(__file__).parents[1] / "model" / "data" / "dataset_writer.py"
_spec = importlib.util.spec_from_file_location("dataset_writer", _writer_path)
writer = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(writer)

COMMIT = "4f50b44796641a4d526a19d9aeadc8aa51e2f2c2"
NAME = "behavior-1k/demos"


class Hub(ThreadingHTTPServer):
    """A data set of a folder, as the Hub serves it: what it knows of it, and its files, also in part."""

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.folder = folder
        self.sent: list[tuple[str, int]] = []
        """Paths that were fetched, and the byte from which on."""
        self.cut: set[str] = set()
        """Files whose next answer breaks off in the middle."""
        self.failing = 0
        """Status of all answers; 0 for the right ones."""


class Handler(BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content_Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if self.server.failing:
            self.answer(self.server.failing)
        elif match := re.fullmatch(rf"/api/datasets/{NAME}/revision/(\w+)", path):
            self.describe(match[1])
        elif match := re.fullmatch(rf"/datasets/{NAME}/resolve/{COMMIT}/(.+)", path):
            self.file(match[1])
        else:
            self.answer(404, X_Error_Code="RepoNotFound")

    def describe(self, revision: str) -> None:
        if revision not in ("main", COMMIT):
            self.answer(404, X_Error_Code="RevisionNotFound")
            return
        root = self.server.folder
        files = [p for p in sorted(root.rglob("*")) if p.is_file()]
        siblings = [{"rfilename": p.relative_to(root).as_posix(), "size": p.stat().st_size} for p in files]
        content = {"id": NAME, "sha": COMMIT, "private": False, "tags": [], "downloads": 0, "likes": 0}
        body = json.dumps({**content, "siblings": siblings}).encode()
        self.answer(200, body, Content_Type="application/json")

    def file(self, name: str) -> None:
        data = (self.server.folder / name).read_bytes()
        headers = {"ETag": f'"{hashlib.sha256(data).hexdigest()}"', "X_Repo_Commit": COMMIT}
        if self.command == "HEAD":
            self.answer(200, Content_Length=str(len(data)), **headers)
            return
        given = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        begin = int(given[1]) if given else 0
        self.server.sent.append((name, begin))
        rest = data[begin:]
        if name in self.server.cut:
            self.server.cut.discard(name)
            self.send_response(206 if given else 200)
            for key, value in {**headers, "Content_Length": str(len(rest))}.items():
                self.send_header(key.replace("_", "-"), value)
            self.end_headers()
            self.wfile.write(rest[: len(rest) // 2])
            self.wfile.flush()
            self.close_connection = True
            self.connection.close()
            return
        span = {"Content_Range": f"bytes {begin}-{len(data) - 1}/{len(data)}"} if given else {}
        self.answer(206 if given else 200, rest, **headers, **span)


@pytest.fixture
def hub(tmp_path):
    server = Hub(writer.write_dataset(tmp_path / "hub", {0: [32], 1: [31]}, size=16))
    (server.folder / ".gitattributes").write_text("*.mp4 filter=lfs\n")
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def options(hub: Hub, tmp_path: Path, source: str = f"hf://{NAME}", **values) -> Options:
    port = hub.server_address[1]
    return Options(
        source,
        tmp_path / "repository",
        tmp_path / "remote",
        endpoint=f"http://127.0.0.1:{port}",
        **values,
    )


def test_a_dataset_is_fetched_once_and_becomes_a_version(hub, tmp_path, capsys) -> None:
    assert run(options(hub, tmp_path)) == 0
    assert f"of {NAME} at {COMMIT} are version" in capsys.readouterr().out
    data = tmp_path / "repository" / "data"
    for path in [p for p in hub.folder.rglob("*") if p.is_file() and p.name != ".gitattributes"]:
        assert (data / path.relative_to(hub.folder)).read_bytes() == path.read_bytes()
    assert not (data / ".gitattributes").exists()
    assert ".cache" not in (tmp_path / "repository" / "data.dvc").read_text()
    objects = [p for p in (tmp_path / "remote").rglob("*") if p.is_file()]
    assert not any(b"etag" in p.read_bytes() for p in objects)
    before = len(hub.sent)
    assert run(options(hub, tmp_path)) == 0
    assert len(hub.sent) == before


def test_a_connection_that_breaks_off_is_continued(hub, tmp_path, monkeypatch) -> None:
    # what is received is written in pieces of this size
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 256)
    video = next(p.relative_to(hub.folder).as_posix() for p in sorted(hub.folder.rglob("*.mp4")))
    hub.cut.add(video)
    try:
        run(options(hub, tmp_path))
    except PassingError:
        run(options(hub, tmp_path))
    size = (hub.folder / video).stat().st_size
    begins = [begin for name, begin in hub.sent if name == video]
    assert len(begins) == 2
    assert 0 < begins[1] < size
    assert (tmp_path / "repository/data" / video).read_bytes() == (hub.folder / video).read_bytes()


def test_tasks_are_chosen(hub, tmp_path) -> None:
    run(options(hub, tmp_path, tasks=("picking_up_trash",)))
    assert not [name for name, _ in hub.sent if "task-0000" in name]
    assert [name for name, _ in hub.sent if "task-0001" in name]


@pytest.mark.parametrize(
    ("source", "failing", "kind", "message"),
    [
        ("https://example.org/x", 0, UserError, "expected hf://OWNER/NAME"),
        ("hf://nobody/nothing", 0, UserError, "the Hub has no dataset 'nobody/nothing'"),
        (f"hf://{NAME}@nope", 0, UserError, "has no revision 'nope'"),
        (f"hf://{NAME}", 503, PassingError, "cannot be fetched now"),
        (f"hf://{NAME}", 403, UserError, "cannot be fetched: .*403"),
    ],
)
def test_errors_are_in_words(hub, tmp_path, monkeypatch, source, failing, kind, message) -> None:
    hub.failing = failing
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    with pytest.raises(UserError, match=message) as raised:
        run(options(hub, tmp_path, source))
    assert type(raised.value) is kind


def test_no_server_at_all_is_told_in_words(hub, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    given = options(hub, tmp_path)
    hub.shutdown()
    hub.server_close()
    with pytest.raises(PassingError, match="cannot be fetched now"):
        run(given)
