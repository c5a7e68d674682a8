"""The results browser over real HTTP: files with ranges, who may come in, labels, and hostile names."""

import http.client
import json
import os
import resource
import shutil
import socket
import subprocess
import sys
import threading
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.faults import Bench, job
from components.errors import UserError
from components.evaluation.rollouts import ROLLOUTS, load, save
from components.leaderboard.config import Config, Inputs
from components.leaderboard.stage import STAGE
from components.plan import config as plan_config
from components.plan.stage import STAGE as PLAN
from components.results.serving import Options
from components.store.files import write_atomic

TASKS = ("turning_on_radio", "picking_up_trash")
HOSTILE = "</script><script>alert(1)</script>\u202egnp.exe 🤖 &lt;b&gt; {{ 7 * 7 }}"


class Server:
    """The server as a process of its own."""

    def __init__(self, workspace: Path, *options: str) -> None:
        command = [sys.executable, "-m", "components.results", "--workspace", str(workspace), "--port", "0"]
        self.process = subprocess.Popen([*command, *options], stdout=subprocess.PIPE, text=True)
        line = self.process.stdout.readline()
        self.port = int(line.rstrip().rstrip("/").rpartition(":")[2])
        for _ in range(100):
            try:
                if self.get("/healthz").status == 200:
                    break
            except OSError:
                time.sleep(0.1)

    def ask(self, method, path, body=None, headers=None):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        connection.request(method, path, body, headers or {})
        answer = connection.getresponse()
        answer.content = answer.read()
        connection.close()
        return answer

    def get(self, path, **headers):
        return self.ask(
            "GET", path, headers={name.replace("_", "-"): value for name, value in headers.items()}
        )

    def close(self):
        self.process.terminate()
        self.process.wait(20)
        self.process.stdout.close()


def make(factory, scores, seed=0, word=""):
    common = factory.model("common", TASKS)
    planned = PLAN.execute(
        plan_config.Config(reported_instances=3, validation_instances=2, videos=1, untrained=True),
        plan_config.Inputs(common),
        factory.workspace,
    ).artifact
    evaluations = factory.evaluations(planned, scores, videos=True, seed=str(seed))
    if word:
        for one in evaluations:
            rollouts = [replace(rollout, reruns=(word,)) for rollout in load(one.path / ROLLOUTS)]
            save(rollouts, one.path / ROLLOUTS)
    return STAGE.execute(Config(seed=seed), Inputs(planned, evaluations), factory.workspace).artifact


@pytest.fixture(scope="module")
def factory(factory_in, tmp_path_factory):
    return factory_in(tmp_path_factory.mktemp("results") / "workspace")


@pytest.fixture(scope="module")
def board(factory):
    return make(factory, lambda key: 0.5 if key.policy == "common" else 0.0, word=HOSTILE)


@pytest.fixture(scope="module")
def running_server(board):
    running = Server(board.workspace)
    yield running
    running.close()


@pytest.fixture
def server(board, running_server):
    """The server, while there are no labels."""
    shutil.rmtree(board.workspace / "labels", ignore_errors=True)
    return running_server


def files(board):
    return f"/files/{board.uri}"


def video(board):
    found = next((board.path / "report").rglob("*.mp4"))
    return found, f"{files(board)}/{found.relative_to(board.path).as_posix()}"


def test_ranges_as_browsers_ask_for_them(board, server):
    path, url = video(board)
    content = path.read_bytes()
    whole = server.get(url)
    assert (whole.status, whole.content) == (200, content)
    assert whole.headers["content-type"] == "video/mp4"
    assert whole.headers["accept-ranges"] == "bytes"
    head = server.ask("HEAD", url)
    assert (head.status, head.content) == (200, b"")
    assert int(head.headers["content-length"]) == len(content)
    # Safari asks for two bytes first, and plays nothing without 206 and the size
    first = server.get(url, Range="bytes=0-1")
    assert (first.status, first.content) == (206, content[:2])
    assert first.headers["content-range"] == f"bytes 0-1/{len(content)}"
    for spec, part in (("100-199", content[100:200]), ("100-", content[100:]), ("-50", content[-50:])):
        answer = server.get(url, Range=f"bytes={spec}")
        assert (answer.status, answer.content) == (206, part)
        assert int(answer.headers["content-length"]) == len(part)
    assert server.get(url, Range=f"bytes={len(content)}-").status == 416
    tag = whole.headers["etag"]
    assert server.get(url, Range="bytes=0-9", If_Range=tag).status == 206
    changed = server.get(url, Range="bytes=0-9", If_Range='"another"')
    assert (changed.status, changed.content) == (200, content)


TRICKS = (
    "..", "../", "../../lineage.json", "report/../../../../secret", "%2e%2e/%2e%2e/secret",
    "..%2f..%2fsecret",
    "....//secret", "/etc/passwd", "//etc/passwd", "report/%00index.html", "report\\..\\..\\secret",
    "report/%5c..%5csecret", ".hidden", "report/./index.html", "report//index.html", "report", "report/",
    "link", "folder/secret", "pipe", "a" * 5000, "%ff%fe",
)  # fmt: skip


@pytest.mark.parametrize("trick", TRICKS)
def test_nothing_leaves_the_leaderboards(board, server, trick):
    (board.workspace / "secret").write_text("secret")
    (board.path / ".hidden").write_text("secret")
    if not (board.path / "pipe").exists():
        (board.path / "link").symlink_to(board.workspace / "secret")
        (board.path / "folder").symlink_to(board.workspace)
        os.mkfifo(board.path / "pipe")
    for base in (files(board), "/files", f"/files/{board.uri.rpartition('/')[0]}"):
        answer = server.get(f"{base}/{trick}")
        assert answer.status in (400, 404), (base, trick)
        assert b"secret" not in answer.content


@given(st.text(max_size=60))
def test_no_path_finds_a_file_outside(tmp_path_factory, path):
    from starlette.exceptions import HTTPException
    from starlette.requests import Request

    from components.results.app import Place, _Browser

    root = tmp_path_factory.getbasetemp() / "hostile" / "root"
    root.mkdir(parents=True, exist_ok=True)
    (root.parent / "secret").write_text("secret")
    browser = _Browser(Place(root, root / "labels"))
    request = Request({"type": "http", "method": "GET", "headers": [], "path_params": {"path": path}})
    with pytest.raises(HTTPException):
        browser.file(request)


def test_artifacts_of_other_stages_are_not_served(board, server):
    model = next((board.workspace / "artifacts" / "train").glob("*/checkpoint/weights"))
    assert server.get(f"/files/{model.relative_to(board.workspace).as_posix()}").status == 404
    plan = next((board.workspace / "artifacts" / "plan").glob("*/summary.html"))
    page = server.get(f"/files/{plan.relative_to(board.workspace).as_posix()}")
    assert (page.status, page.content) == (200, plan.read_bytes())  # which the report's lineage links to
    assert page.headers["content-security-policy"].startswith("sandbox")
    assert server.get(f"/files/{(plan.parent / 'plan.json').relative_to(board.workspace)}").status == 404
    assert server.get(f"{files(board)}/scores.json").status == 200


def test_pages_and_hostile_words(board, server):
    listing = server.get("/")
    assert listing.status == 200
    assert files(board) in listing.content.decode()
    report = server.get(f"{files(board)}/report/index.html")
    text = report.content.decode()
    assert "alert(1)</script>" not in text
    assert "{{ 7 * 7 }}" in text  # no template either
    policy = report.headers["content-security-policy"]
    assert "unsafe-inline" not in policy.partition("script-src")[2]
    assert "default-src 'none'" in policy
    for page in ("/", "/compare", "/live", f"{files(board)}/scores.json"):
        answer = server.get(page)
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert answer.headers["x-content-type-options"] == "nosniff"
    strange = server.get("/compare?first=%3Cscript%3E&second=x")
    assert strange.status == 200
    assert b"<script>" not in strange.content


def label(server, board, **changes):
    row = {
        "rollout": f"common/{TASKS[0]}/301/0",
        "causes": ["order", "dexterity"],
        "note": HOSTILE,
        "who": "Ann",
    }
    headers = {"Content-Type": "application/json", **changes.pop("headers", {})}
    return server.ask("POST", f"/labels/{board.digest}", json.dumps({**row, **changes}), headers)


def test_labels_are_kept_with_their_history(board, server):
    assert label(server, board).status == 200
    assert label(server, board, causes=["fell"], note="").status == 200
    assert label(server, board, who="Bob").status == 200
    answer = json.loads(server.get(f"/labels/{board.digest}").content)
    assert answer["labels"][f"common/{TASKS[0]}/301/0"] == {
        "Ann": {"causes": ["fell"], "note": ""},
        "Bob": {"causes": ["dexterity", "order"], "note": HOSTILE},
    }
    lines = (board.workspace / "labels" / f"{board.digest}.jsonl").read_text().splitlines()
    assert [json.loads(line)["who"] for line in lines] == ["Ann", "Ann", "Bob"]
    assert not (board.path / "labels").exists()
    assert "common/turning_on_radio/301/0" in server.get(f"/labels/{board.digest}/csv").content.decode()


def test_labels_that_are_refused(board, server):
    for changes in (
        {"causes": ["else"]},
        {"who": " "},
        {"note": "x" * 3000},
        {"rollout": "a"},
        {"causes": "order"},
    ):
        assert label(server, board, **changes).status == 400, changes
    assert label(server, board, note="x" * 70_000).status == 413
    assert label(server, board, headers={"Content-Type": "text/plain"}).status == 403
    assert label(server, board, headers={"Origin": "http://elsewhere.example"}).status == 403
    other = server.ask("POST", "/labels/abc123", "{}", {"Content-Type": "application/json"})
    assert other.status in (400, 404)
    assert server.get("/labels/..%2f..%2fsecret").status == 404
    assert not (board.workspace / "labels").exists()


def test_who_may_come_in(board, server):
    assert server.get("/", X_Forwarded_For="10.0.0.1").status == 401
    assert server.get("/", Host="rebound.example").status == 401
    assert server.get("/healthz", Host="anything").status == 200
    named = Server(board.workspace, "--host", "0.0.0.0", "--user-header", "X-User")
    try:
        assert named.get("/", X_User="ann", X_Forwarded_For="10.0.0.1").status == 200
        assert named.get("/", X_Forwarded_For="10.0.0.1").status == 401
        sent = label(named, board, headers={"X-User": "ann"}, who="Bob")
        assert json.loads(sent.content)["who"] == "ann"  # a login is not to be changed by the page
        ours = socket.gethostbyname(socket.gethostname())
        if not ours.startswith("127."):
            outside = http.client.HTTPConnection(ours, named.port, timeout=10)
            outside.request("GET", "/")
            assert outside.getresponse().status == 401
            outside.close()
    finally:
        named.close()
    with pytest.raises(UserError, match="name the header of a proxy"):
        Options(str(board.workspace), host="0.0.0.0")
    with pytest.raises(UserError, match="is not a folder"):
        Options(str(board.workspace / "nowhere"))


def test_two_leaderboards_are_compared(factory, board, server):
    better = make(factory, lambda key: 1.0 if key.policy == "common" else 0.0, seed=1)
    page = server.get(f"/compare?first={better.uri}&second={board.uri}").content.decode()
    assert "Difference in q +0.500" in page
    assert f"{TASKS[0]}/301/0" in page
    film = server.get(f"/compare?first={better.uri}&second={board.uri}&rollout={TASKS[0]}/301/0")
    assert film.content.decode().count("<video") == 2
    assert server.get("/script/pairs.js").status == 200


def test_a_running_evaluation(board, server, tmp_path):
    bench = Bench(tmp_path / "bench")
    bench.prepare({}, q=0.25)
    bench.run([job([1, 2])])
    for path in bench.results():  # a worker that was killed while it put a result in place
        if path.stem.endswith("_302_0"):
            path.parent.rename(path.parent.with_name(f".{path.parent.name}.0-abc.partial"))
    folder = board.workspace / "artifacts" / "evaluate"
    write_atomic(bench.file(303).parent.with_name("torn_303_0") / "torn_303_0.json", "{")
    shutil.move(bench.output, folder / "abc.partial")
    page = server.get("/live").content.decode()
    shutil.rmtree(folder / "abc.partial")
    assert "Evaluation abc" in page
    assert "1 of 2 rollouts finished in 0:0" in page
    assert '<td class="num">1 of 2</td>' in page
    assert '<td class="num">0.250</td>' in page
    assert "left</p>" in page
    assert "torn" not in page


def _memory(pid: int) -> int:
    """Resident memory of a process in kilobytes."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))


def test_two_hundred_readers_at_once(board, server):
    """Each reads 2 MB in ranges of a large video, all at the same time; memory does not grow with them."""
    large = board.path / "report" / "videos" / "large.mp4"
    content = os.urandom(2**20) * 64
    large.write_bytes(content)
    url, size, part = f"{files(board)}/report/videos/large.mp4", len(content), 2**19
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(4096, hard), hard))
    together = threading.Barrier(200)

    def read(number: int) -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=120)
        connection.connect()
        together.wait(60)
        right = True
        for turn in range(4):
            start = (number * 7919 * 1024 + turn * part) % (size - part)
            connection.request("GET", url, headers={"Range": f"bytes={start}-{start + part - 1}"})
            answer = connection.getresponse()
            crc = zlib.crc32(answer.read())
            right &= answer.status == 206 and crc == zlib.crc32(content[start : start + part])
        connection.close()
        return right

    server.get(url, Range="bytes=0-1")
    before, peak, done = _memory(server.process.pid), [0], threading.Event()

    def watch() -> None:
        while not done.wait(0.1):
            peak[0] = max(peak[0], _memory(server.process.pid))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        with ThreadPoolExecutor(200) as pool:
            assert all(pool.map(read, range(200)))
    finally:
        done.set()
        watcher.join()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    print(f"memory {before} kB before, {peak[0]} kB at most")
    assert peak[0] - before < 100_000
