"""The results browser on a prefix of S3: a real S3 API on loopback, the server as a process of its own."""

import logging
import os
import re
import shutil
from concurrent.futures import ThreadPoolExecutor

import boto3
import pytest

from components.errors import UserError
from components.results.bucket import Bucket
from components.results.serving import Options, run
from components.store.files import files_below
from tests.components.test_results_server import TASKS, TRICKS, Server, files, label, make, video

BUCKET, PREFIX = "robots", "runs of 2026"
KEYS = {
    "AWS_ACCESS_KEY_ID": "AKIDEXAMPLE",
    "AWS_SECRET_ACCESS_KEY": "do not tell",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_CONFIG_FILE": "/nonexistent",
    "AWS_SHARED_CREDENTIALS_FILE": "/nonexistent",
    "AWS_EC2_METADATA_DISABLED": "true",
}


@pytest.fixture(scope="module")
def client():
    """A client of an S3 API whose address is in the environment."""
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {**KEYS, "AWS_ENDPOINT_URL": f"http://{host}:{port}"}.items():
            patch.setenv(name, value)
        made = boto3.client("s3")
        made.create_bucket(Bucket=BUCKET)
        yield made
        made.close()
    server.stop()


def put(client, board, *, prefix=PREFIX):
    """Copy a leaderboard, and the artifacts that it was made from, as `aws s3 sync` does."""
    for path in files_below(board.workspace / "artifacts"):
        key = f"{prefix}/{path.relative_to(board.workspace).as_posix()}"
        client.put_object(Bucket=BUCKET, Key=key, Body=path.read_bytes())


@pytest.fixture(scope="module")
def board(client, factory_in, tmp_path_factory):
    factory = factory_in(tmp_path_factory.mktemp("bucket") / "workspace")
    made = make(factory, lambda key: 0.5 if key.policy == "common" else 0.0)
    put(client, made)
    for place in (
        "../evil/scores.json",
        "artifacts/../../evil/run.json",
        ".hidden/scores.json",
        "a//run.json",
    ):
        client.put_object(Bucket=BUCKET, Key=f"{PREFIX}/{place}", Body=b"{}")
    client.put_object(Bucket=BUCKET, Key=f"{PREFIX}/plan.json", Body=b"{}")  # a file, and below a folder
    client.put_object(Bucket=BUCKET, Key=f"{PREFIX}/plan.json/plan.json", Body=b"{}")
    client.put_object(Bucket=BUCKET, Key="elsewhere/scores.json", Body=b"not ours")
    return made


@pytest.fixture(scope="module")
def server(board, tmp_path_factory):
    labels = tmp_path_factory.mktemp("labels")
    running = Server(f"s3://{BUCKET}/{PREFIX}/", "--labels", str(labels))
    running.labels = labels
    yield running
    running.close()


def test_pages_and_labels(board, server):
    index = server.get("/").content.decode()
    assert "Results of runs of 2026" in index
    assert f"{files(board)}/report/index.html" in index
    assert "<td>common</td><td>household 2026</td>" in index
    report = server.get(f"{files(board)}/report/index.html")
    assert report.status == 200
    assert f'content="/labels/{board.digest}"' in report.content.decode()
    plan = next((board.workspace / "artifacts" / "plan").glob("*/summary.html"))
    place = plan.relative_to(board.workspace).as_posix()
    assert server.get(f"/files/{place}").content == plan.read_bytes()
    assert label(server, board).status == 200
    assert [path.name for path in server.labels.iterdir()] == [f"{board.digest}.jsonl"]
    weights = next((board.workspace / "artifacts" / "train").glob("*/checkpoint/weights"))
    for place in (weights.relative_to(board.workspace), "plan.json", "../elsewhere/scores.json"):
        assert server.get(f"/files/{place}").status == 404


def test_ranges_and_no_signatures(board, server):
    path, url = video(board)
    content = path.read_bytes()
    whole = server.get(url)
    assert (whole.status, whole.content) == (200, content)
    assert (whole.headers["content-type"], whole.headers["accept-ranges"]) == ("video/mp4", "bytes")
    head = server.ask("HEAD", url)
    assert (head.status, head.content, int(head.headers["content-length"])) == (200, b"", len(content))
    cases = {
        "0-1": content[:2],  # what Safari asks for first
        "100-199": content[100:200],
        "100-": content[100:],
        "-50": content[-50:],
        f"{len(content) - 1}-{len(content) + 9}": content[-1:],
        f"-{2 * len(content)}": content,
    }
    for spec, part in cases.items():
        answer = server.get(url, Range=f"bytes={spec}")
        start = content.index(part) if len(part) > 2 else {"0-1": 0}.get(spec, len(content) - 1)
        assert (answer.status, answer.content) == (206, part), spec
        assert answer.headers["content-range"] == f"bytes {start}-{start + len(part) - 1}/{len(content)}"
    beyond = server.get(url, Range=f"bytes={len(content)}-")
    assert (beyond.status, beyond.headers["content-range"]) == (416, f"bytes */{len(content)}")
    for spec in ("bytes=5-3", "bytes=0-1,4-5", "pieces=0-1", "bytes=-", "bytes=a-b"):  # to be ignored
        assert (server.get(url, Range=spec).status, len(server.get(url, Range=spec).content)) == (
            200,
            len(content),
        ), spec
    tag = whole.headers["etag"]
    assert server.get(url, Range="bytes=0-9", If_Range=tag).status == 206
    assert server.get(url, Range="bytes=0-9", If_Range=whole.headers["last-modified"]).status == 206
    assert server.get(url, Range="bytes=0-9", If_Range='"another"').status == 200
    for page in ("/", f"{files(board)}/report/index.html", url):
        answer = server.get(page)
        said = f"{answer.headers}".encode() + answer.content
        for secret in (*list(KEYS.values())[:2], "X-Amz", "Signature", os.environ["AWS_ENDPOINT_URL"]):
            assert secret.encode() not in said


@pytest.mark.parametrize("trick", TRICKS)
def test_nothing_else_of_the_bucket(board, server, trick):
    for base in (files(board), "/files", "/files/.."):
        assert server.get(f"{base}/{trick}").status in (400, 404), (base, trick)


def test_many_readers(board, server):
    path, url = video(board)
    content = path.read_bytes()

    def read(number):
        start = number % (len(content) // 2)
        return server.get(url, Range=f"bytes={start}-{start + 99}").content == content[start : start + 100]

    with ThreadPoolExecutor(32) as pool:
        assert all(pool.map(read, range(128)))


def test_what_is_new_and_what_is_gone(board, client, factory_in, tmp_path):
    factory = factory_in(tmp_path / "workspace")
    first = make(factory, lambda key: 0.5)
    put(client, first, prefix="changing")
    mirror = tmp_path / "mirror"
    bucket = Bucket(f"s3://{BUCKET}/changing", mirror)
    bucket.refresh()
    kept = {path.relative_to(mirror).as_posix() for path in files_below(mirror)}
    assert f"{first.uri}/scores.json" in kept
    assert not [name for name in kept if re.search(r"\.mp4$|\.jpg$|traces/|checkpoint", name)]
    film = next(name for name in bucket._entries if name.endswith(".mp4") and "/report/" in name)
    assert bucket.find(film).size == (factory.workspace / film).stat().st_size
    assert bucket.find(f"{first.uri}/scores.json") is None  # which is in the folder
    client.delete_object(Bucket=BUCKET, Key=f"changing/{first.uri}/scores.json")
    client.put_object(Bucket=BUCKET, Key=f"changing/{first.uri}/episodes.json", Body=b"[]")
    bucket.refresh()
    assert (mirror / first.uri / "scores.json").exists()  # looked a moment ago
    bucket._looked = float("-inf")
    bucket.refresh()
    assert not (mirror / first.uri / "scores.json").exists()
    assert (mirror / first.uri / "episodes.json").read_bytes() == b"[]"


def test_two_leaderboards_are_compared(board, client, server, factory_in):
    better = make(factory_in(board.workspace), lambda key: 1.0 if key.policy == "common" else 0.0, seed=1)
    put(client, better, prefix="compared")
    other = Server(f"s3://{BUCKET}/compared", "--labels", str(server.labels))
    try:
        both = f"/compare?first={better.uri}&second={board.uri}"
        assert "Difference in q +0.500" in other.get(both).content.decode()
        film = other.get(f"{both}&rollout={TASKS[0]}/301/0")
        assert film.content.decode().count("<video") == 2
    finally:
        other.close()
        shutil.rmtree(better.path)


def test_a_bucket_that_is_not_there(client):
    with pytest.raises(UserError, match="--workspace is s3://nowhere/x: the bucket answers 404"):
        run(Options("s3://nowhere/x"))
