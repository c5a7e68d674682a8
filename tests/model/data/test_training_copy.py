"""Training copies: their pictures, kills while they are made, and what a later revision costs."""

import json
import os
import pickle
import random
import resource
import signal
import subprocess
import sys
import time
from collections import namedtuple

import numpy as np
import pytest

from pi_behavior.data import packing
from pi_behavior.data.frames import DecodedFrames
from pi_behavior.data.groups import GROUP, GroupDecoder, encode, needed
from pi_behavior.data.lerobot import LeRobotDataset
from pi_behavior.data.meta import DatasetError
from pi_behavior.data.open_files import OpenFiles, open_limit
from pi_behavior.data.packing import make_copy
from pi_behavior.data.training_copy import CopyOptions, PackedFrames, TrainingCopy
from pi_behavior.data.video import Converter, VideoError
from pi_behavior.files import NoSpaceError
from pi_behavior.layout import CAMERAS

OPTIONS = CopyOptions(32, quality=10)


@pytest.fixture(scope="module")
def copy(copy_of, demos, tmp_path_factory) -> TrainingCopy:
    return copy_of(demos, tmp_path_factory.mktemp("copy"), OPTIONS)


def files(root) -> dict[str, bytes]:
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def test_every_frame_by_random_access_is_that_of_the_original(demos, copy) -> None:
    dataset = LeRobotDataset(demos)
    numbers = [(n, t) for n, e in enumerate(copy.episodes) for t in range(e.length)]
    random.Random(0).shuffle(numbers)
    episode, frame = map(np.array, zip(*numbers, strict=True))
    ours = PackedFrames(copy, copy.episodes, 32).gather(episode, frame)
    theirs = DecodedFrames(dataset, dataset.episodes, 32).gather(episode, frame)
    for camera in CAMERAS:
        assert np.abs(ours[camera].astype(int) - theirs[camera]).max() <= 4
    single = PackedFrames(pickle.loads(pickle.dumps(copy)), copy.episodes, 32)
    for n in range(20):
        one = single.gather(episode[n : n + 1], frame[n : n + 1])
        assert all((one[camera][0] == ours[camera][n]).all() for camera in CAMERAS)


def test_pictures_are_scaled_down_unless_raw(copy) -> None:
    at = np.array([0, 1]), np.array([3, 40])
    small = PackedFrames(copy, copy.episodes, 16).gather(*at)
    large = PackedFrames(copy, copy.episodes, 32).gather(*at)
    assert small["head"].shape == (2, 16, 16, 3)
    assert np.abs(small["head"].astype(int) - large["head"][:, ::2, ::2]).max() <= 4
    assert OPTIONS.serves(16)
    assert not OPTIONS.serves(33)
    assert not CopyOptions(32, compress=False).serves(16)


def test_columns_are_those_of_the_dataset(demos, copy) -> None:
    dataset = LeRobotDataset(demos)
    assert [(e.index, e.human) for e in copy.episodes] == [(e.index, e.human) for e in dataset.episodes]
    packs, starts = copy.locate(copy.episodes)
    for episode, pack, start in zip(copy.episodes, packs, starts, strict=True):
        state, actions = dataset.state_and_actions(episode)
        rows = np.arange(start, start + episode.length)
        np.testing.assert_array_equal(copy.rows("state", np.full(len(rows), pack), rows), state)
        np.testing.assert_array_equal(copy.rows("action", np.full(len(rows), pack), rows), actions)


def test_groups_are_closed_and_as_long_as_said() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (3 * GROUP + 3, 64, 64, 3), np.uint8)
    pieces = list(encode(noise, 64, 1))
    assert len(pieces) == len(noise)
    convert, decoder = Converter(None), GroupDecoder()
    for first in range(0, len(noise), GROUP):
        group = pieces[first : first + GROUP]
        order = needed(range(len(group)), len(group))
        assert sorted(order) == list(range(len(group)))
        whole = {n: convert(f) for n, f in decoder.decode({n: group[n] for n in order}).items()}
        for n in range(len(group)):
            few = needed([n], len(group))
            assert len(few) <= 3
            one = GroupDecoder().decode({k: group[k] for k in few})[n]
            np.testing.assert_array_equal(convert(one), whole[n])
            near = np.abs(whole[n].astype(int).mean(axis=(0, 1)) - noise[first + n].mean(axis=(0, 1)))
            assert near.max() < 3
    with pytest.raises(VideoError):
        decoder.decode({1: pieces[1]})
    assert needed([0], 8) == [0]
    assert needed([7], 8) == [0, 7]
    assert needed([5, 2, 2], 8) == [0, 7, 2, 5]
    assert needed([0], 1) == [0]


def test_a_damaged_copy_is_named(copy_of, demos, tmp_path) -> None:
    copy = copy_of(demos, tmp_path, OPTIONS)
    video = copy.path(0, "head.h264")
    os.truncate(video, 100)
    with pytest.raises(VideoError, match=r"head\.h264, rows 8 to 15: the file ends \d+ bytes too early"):
        PackedFrames(copy, copy.episodes, 32).gather(np.array([0]), np.array([9]))
    manifest = json.loads((tmp_path / "copy.json").read_text())
    (tmp_path / "copy.json").write_text(json.dumps({**manifest, "version": 0}))
    with pytest.raises(DatasetError, match="is of version 0; expected 1: make the training copy again"):
        TrainingCopy(tmp_path)
    with pytest.raises(DatasetError, match=r"cannot be read .*; expected a training copy"):
        TrainingCopy(demos)


def test_open_files_are_few(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (20, 20))
    opened, closed = [], []
    held = OpenFiles(lambda path: opened.append(path) or path.name, closed.append)
    assert open_limit() == 6
    for n in (*range(30), 29, 28, 24):
        assert held(tmp_path / str(n)) == str(n)
    assert (len(opened), len(closed)) == (30, 24)


PACK = """
import sys
from pathlib import Path
from pi_behavior.data.lerobot import LeRobotDataset
from pi_behavior.data.packing import make_copy
from pi_behavior.data.training_copy import CopyOptions
from pi_behavior.layout import CAMERAS

if __name__ == "__main__":
    make_copy(LeRobotDataset(Path(sys.argv[1])), Path(sys.argv[2]), CopyOptions(32, quality=10),
              cameras=CAMERAS, digest=lambda path: path.name, processes=2)
"""


def test_a_copy_that_was_killed_continues_and_is_the_same(demos, copy, tmp_path) -> None:
    script, root = tmp_path / "pack.py", tmp_path / "copy"
    script.write_text(PACK)
    command = [sys.executable, script, demos, root]
    rng, killed = random.Random(0), 0
    for _ in range(3):
        process = subprocess.Popen(command, start_new_session=True)
        while process.poll() is None and not list(root.glob("packs/*.partial/*.h264")):
            time.sleep(0.002)
        time.sleep(rng.uniform(0.0, 0.1))
        killed += process.poll() is None
        # the parent alone: the kernel ends its workers
        process.send_signal(signal.SIGKILL)
        process.wait()
    subprocess.run(command, check=True)
    assert killed
    assert files(root) == files(copy.root)


def test_a_pack_continues_after_its_last_whole_episode(demos, copy, tmp_path, monkeypatch) -> None:
    dataset, root = LeRobotDataset(demos), tmp_path / "copy"
    read = []
    whole = LeRobotDataset.state_and_actions

    def reads(self, episode):
        read.append(episode.index)
        if len(read) == 3:
            raise VideoError("as a kill in the third episode")
        return whole(self, episode)

    monkeypatch.setattr(LeRobotDataset, "state_and_actions", reads)
    write = packing.write_pack
    episodes = tuple(e for e in dataset.episodes if e.task == 0)
    name = next(name for name in copy.manifest.packs if name.startswith("task-0000"))
    with pytest.raises(VideoError):
        write(dataset, root / name, episodes, OPTIONS, CAMERAS)
    with (root / f"{name}.partial" / "head.h264").open("ab") as file:
        file.write(b"half a picture")
    write(dataset, root / name, episodes, OPTIONS, CAMERAS)
    assert read == [10, 20, 30, 30]
    assert files(root / name) == files(copy.root / "packs" / name)


def test_a_new_revision_costs_what_is_new(writer, demos, copy, copy_of, tmp_path, monkeypatch) -> None:
    more = writer.write_dataset(tmp_path / "more", {0: [70, 45, 20, 33], 1: [60, 50]})
    written = []
    pack_all = packing._pack_all
    monkeypatch.setattr(
        packing, "_pack_all", lambda root, jobs, *rest: written.extend(jobs) or pack_all(root, jobs, *rest)
    )
    root = tmp_path / "copy"
    make_copy(
        LeRobotDataset(more),
        root,
        OPTIONS,
        cameras=CAMERAS,
        digest=lambda path: path.name,
        earlier=[tmp_path, copy.root],
    )
    assert [[e.index for e in job.episodes] for job in written] == [[40]]
    later = TrainingCopy(root)
    assert len(later.episodes) == 6
    assert set(copy.manifest.packs) < set(later.manifest.packs)
    for pack in copy.manifest.packs:
        for path in (root / "packs" / pack).iterdir():
            assert path.stat().st_ino == (copy.root / "packs" / pack / path.name).stat().st_ino
    ours = PackedFrames(later, later.episodes, 32).gather(np.array([0, 3, 4]), np.array([5, 32, 0]))
    dataset = LeRobotDataset(more)
    theirs = DecodedFrames(dataset, dataset.episodes, 32).gather(np.array([0, 3, 4]), np.array([5, 32, 0]))
    assert all(np.abs(ours[c].astype(int) - theirs[c]).max() <= 4 for c in CAMERAS)
    # other pictures have no packs in common
    other = make_copy(
        LeRobotDataset(demos),
        tmp_path / "other",
        CopyOptions(28),
        cameras=CAMERAS,
        digest=lambda path: path.name,
        earlier=[copy.root],
    )
    assert not set(other.packs) & set(copy.manifest.packs)


def test_free_space_is_looked_at_first(demos, tmp_path, monkeypatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(packing.shutil, "disk_usage", lambda _: usage(0, 0, 2_000_000))
    arguments = (LeRobotDataset(demos), tmp_path / "copy", CopyOptions(224))
    with pytest.raises(NoSpaceError, match=r"needs 2,250,080 bytes, 2,000,000 are free; make space, or"):
        make_copy(*arguments, cameras=CAMERAS, digest=lambda path: path.name)
    assert not list((tmp_path / "copy").rglob("*.h264"))


@pytest.mark.parametrize(("values", "message"), [({"image_size": 55}, "even"), ({"quality": 0}, "1 to 51")])
def test_wrong_options_are_named(values, message) -> None:
    with pytest.raises(ValueError, match=message):
        CopyOptions(**values)
