"""Results on their way to S3 or a folder, with a real S3 API on loopback that fails on demand."""

import hashlib
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from benchmarks.failing_s3 import Failing, failing_s3, objects
from benchmarks.faults import job
from components.errors import PassingError, UserError
from components.evaluate.upload import Bucket, Folder, Uploads, find_destination
from components.evaluation.rollouts import Distances, Outcome, Rollout, RolloutKey
from tests.components.test_evaluate import Bench

pytestmark = pytest.mark.filterwarnings(
    "ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
)


@pytest.fixture
def s3() -> Iterator[tuple[Failing, Any]]:
    with failing_s3("results") as both:
        yield both


def rollout(folder: Path, number: int, size: int = 100) -> Rollout:
    """A rollout with its files."""
    name = f"radio_{number}_0"
    place = folder / "rollouts" / "common" / "reported" / name
    place.mkdir(parents=True)
    (place / f"{name}.json").write_text(f'{{"{name}": 1}}')
    (place / f"{name}.mp4").write_bytes(hashlib.shake_128(name.encode()).digest(size))
    json, video = (f"rollouts/common/reported/{name}/{name}.{kind}" for kind in ("json", "mp4"))
    outcome = Outcome(1.0, True, 5, 1.0, Distances(None, None, None))
    key = RolloutKey("common", "reported", "radio", 0, 0)
    return Rollout(key, number, 1, json, video, outcome, str(folder))


def expected(rollouts: list[Rollout]) -> dict[str, bytes]:
    paths = [Path(one.folder, str(file)) for one in rollouts for file in (one.json, one.video)]
    return {f"run/f00d/common/reported/{path.name}": path.read_bytes() for path in paths}


@pytest.mark.parametrize("fault", ["500", "503", "reset", "torn", "403"])
def test_what_fails_is_tried_again_until_it_has_arrived(s3, tmp_path, fault):
    app, client = s3
    rollouts = [rollout(tmp_path, number) for number in range(3)]
    app.faults = [fault, "", fault, fault, "", fault]
    with Uploads(Bucket("s3://results/run"), "f00d", tmp_path / "sent") as uploads:
        for one in rollouts:
            uploads.add(one, tmp_path)
    assert app.happened == [fault] * 4
    assert objects(client) == expected(rollouts)


def test_large_files_go_in_parts(s3, tmp_path):
    app, client = s3
    one = rollout(tmp_path, 1, size=20 * 2**20)
    app.faults = ["", "503", "reset"]
    with Uploads(find_destination("s3://results/run"), "f00d", tmp_path / "sent") as uploads:
        uploads.add(one, tmp_path)
    assert app.happened == ["503", "reset"]
    assert objects(client) == expected([one])
    head = client.head_object(Bucket="results", Key="run/f00d/common/reported/radio_1_0.mp4")
    assert (
        head["Metadata"]["sha256"]
        == hashlib.sha256(Path(one.folder, str(one.video)).read_bytes()).hexdigest()
    )
    assert head["ETag"].strip('"').endswith("-3"), "parts"


def test_whoever_completes_the_evaluation_copies_what_a_lost_worker_did_not(s3, tmp_path):
    app, client = s3
    rollouts = [rollout(tmp_path, number) for number in range(3)]
    with Uploads(Bucket("s3://results/run"), "f00d", tmp_path / "sent") as uploads:
        uploads.add(rollouts[0], tmp_path)
    assert objects(client) == expected(rollouts[:1])
    last = Uploads(Bucket("s3://results/run"), "f00d", tmp_path / "sent")
    app.faults = ["403"]
    with pytest.raises(PassingError, match=r"radio_1_0 cannot be copied .* started again, it goes on"):
        last.complete(rollouts)
    client.delete_object(Bucket="results", Key="run/f00d/common/reported/radio_0_0.json")
    last.complete(rollouts)
    arrived = expected(rollouts)
    del arrived["run/f00d/common/reported/radio_0_0.json"]  # what had arrived is not copied again
    assert objects(client) == arrived


def test_a_folder(tmp_path):
    rollouts = [rollout(tmp_path / "content", number) for number in range(2)]
    with Uploads(Folder(tmp_path / "to"), "f00d", tmp_path / "sent") as uploads:
        for one in rollouts:
            uploads.add(one, tmp_path / "content")
    found = {path.relative_to(tmp_path / "to").as_posix(): path for path in (tmp_path / "to").rglob("*.*")}
    assert {f"run/{name}": path.read_bytes() for name, path in found.items()} == expected(rollouts)


def test_two_workers_copy_the_same_rollout_at_the_same_time(tmp_path):
    one = rollout(tmp_path / "content", 1, size=2 * 2**20)

    def copy(number: int) -> None:
        Uploads(Folder(tmp_path / "to"), "f00d", tmp_path / "sent" / str(number)).complete([one])

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(copy, range(40))) == [None] * 40
    found = {path.relative_to(tmp_path / "to").as_posix(): path for path in (tmp_path / "to").rglob("*.*")}
    assert {f"run/{name}": path.read_bytes() for name, path in found.items()} == expected([one])


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("gs://bucket", "expected s3://BUCKET/PREFIX or a folder"),
        ("s3://nowhere/x", "the bucket answers 404"),
        ("/dev/null/x", "expected a folder"),
    ],
)
def test_a_place_where_nothing_can_be_put(s3, place, message):
    with pytest.raises(UserError, match=message):
        find_destination(place)


def test_rollouts_leave_the_worker_as_they_finish(s3, tmp_path):
    app, client = s3
    bench = Bench(tmp_path / "bench")
    bench.prepare({"seconds": 0.3, "302": ["SIGSEGV"]})
    app.faults = ["503", "reset", "", "500"]
    count = 0

    def finished(one: Rollout) -> None:
        nonlocal count
        uploads.add(one, bench.output / "content")
        count += 1
        deadline = time.monotonic() + 60
        while count == 6 and not objects(client) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert count < 6 or objects(client), "some arrive while the worker is at work"

    with Uploads(Bucket("s3://results"), "f00d", tmp_path / "sent") as uploads:
        bench.supervisor((job(range(6), videos=range(6)),), finished=finished).run()
    assert count == 6
    assert len(objects(client)) == 12
    stored = {Path(name).name: content for name, content in objects(client).items()}
    files = bench.output.glob("content/rollouts/*/*/*/*_*.*")
    assert stored == {path.name: path.read_bytes() for path in files if path.suffix != ".log"}
