import threading

import jax
import numpy as np
import pytest

from pi_behavior.accumulators import DatasetAccumulator, delta_chunks
from pi_behavior.challenge import TASKS_BY_INDEX
from pi_behavior.data.frames import CachedFrames, DecodedFrames
from pi_behavior.data.lerobot import LeRobotDataset
from pi_behavior.data.pipeline import Batch, make_loader
from pi_behavior.fast import DIMENSIONS, FastTokenizer
from pi_behavior.statistics import Statistics

CAMERAS = ("head", "left_wrist", "right_wrist")


@pytest.fixture(scope="module")
def statistics(demos) -> Statistics:
    dataset, accumulator = LeRobotDataset(demos), DatasetAccumulator()
    for e in dataset.episodes:
        stages = TASKS_BY_INDEX[e.task].stages
        accumulator.update(e.task, e.task_name, stages, *dataset.state_and_actions(e), e.human)
    return accumulator.finish()


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


def equal(a: Batch, b: Batch) -> bool:
    leaves = [jax.tree.leaves(batch) for batch in (a, b)]
    return all(np.array_equal(x, y) for x, y in zip(*leaves, strict=True))


def open_loader(demos, statistics, cache, **options):
    return make_loader(
        demos, statistics, image_size=32, **{"batch_size": 8, "seed": 3, "frame_cache": cache, **options}
    )


def test_batches_are_typed_normalised_and_padded(demos, statistics, cache) -> None:
    batch = next(open_loader(demos, statistics, cache))
    assert {c: (i.shape, i.dtype) for c, i in batch.images.items()} == {
        c: ((8, 32, 32, 3), np.dtype(np.uint8)) for c in CAMERAS
    }
    assert (batch.state.shape, batch.state.dtype) == ((8, 32), np.float32)
    assert (batch.actions.shape, batch.actions.dtype) == ((8, 30, 32), np.float32)
    assert (batch.task.dtype, batch.stage.dtype) == (np.int32, np.int32)
    assert not batch.state[:, 23:].any()
    assert not batch.actions[..., 23:].any()
    assert set(batch.task.tolist()) <= {0, 1}


def test_every_sample_is_the_frame_that_it_says(demos, statistics, cache, writer) -> None:
    """One epoch holds every frame once, with its own images, state, chunk and stage."""
    dataset = LeRobotDataset(demos)
    expected = {}
    for number, e in enumerate(dataset.episodes):
        state, actions = dataset.state_and_actions(e)
        stages = TASKS_BY_INDEX[e.task].stages
        for t in range(e.length):
            chunk = actions[np.minimum(np.arange(t, t + 30), e.length - 1)]
            normalised = statistics.normalise_actions(statistics.delta(chunk, state[t]))
            stage = min(stages - 1, t * stages // e.length)
            expected[number, t] = (e, stage, statistics.normalise_state(state[t]), normalised)
    loader = open_loader(demos, statistics, cache, batch_size=5)
    seen = set()
    for _ in range(sum(e.length for e in dataset.episodes) // 5):
        batch = next(loader)
        for i in range(5):
            key = next(
                k
                for k, (e, stage, state, chunk) in expected.items()
                if k not in seen
                and np.array_equal(state, batch.state[i, :23])
                and np.array_equal(chunk, batch.actions[i, :, :23])
                and (e.task, stage) == (batch.task[i], batch.stage[i])
            )
            seen.add(key)
            for number, camera in enumerate(CAMERAS):
                picture = writer.frame_picture(expected[key][0].index, number, key[1], 32)
                assert np.abs(batch.images[camera][i].astype(int) - picture).max() <= 4
    assert len(seen) == len(expected)


def test_fast_tokens_are_those_of_the_batchs_chunks(demos, statistics, cache) -> None:
    assert next(open_loader(demos, statistics, cache)).fast is None
    dataset = LeRobotDataset(demos)
    state, actions = dataset.state_and_actions(dataset.episodes[0])
    training = statistics.normalise_quantiles(delta_chunks(state, actions).reshape(-1, 30, 23))
    fast = FastTokenizer.train(training)
    loader = open_loader(demos, statistics, cache, fast=fast, threads=2)
    batches = [next(loader) for _ in range(3)]
    for batch in batches:
        assert batch.fast is not None
        assert batch.fast.tokens.shape == batch.fast.mask.shape == (8, 200)
        delta = statistics.unnormalise_actions(batch.actions[..., :23])
        chunks = statistics.normalise_quantiles(delta)
        rows = [tokens[mask].tolist() for tokens, mask in zip(*batch.fast, strict=True)]
        whole = [i for i, row in enumerate(rows) if len(row) < 200]
        assert len(whole) > 4
        decoded = fast.decode([rows[i] for i in whole])
        # half a step, and what lies outside the few coefficients that this little training saw
        assert np.abs(decoded - chunks[whole])[..., DIMENSIONS].mean() < 0.1
    again = open_loader(demos, statistics, cache, fast=fast, start_batch=2)
    assert equal(next(again), batches[2])


def test_decoding_on_the_fly_gives_the_same_batches(demos, statistics, cache) -> None:
    cached, decoded = open_loader(demos, statistics, cache), open_loader(demos, statistics, None)
    for _ in range(3):
        assert equal(next(cached), next(decoded))


def test_version_3_gives_the_samples_of_version_2(writer, tmp_path, demos, statistics) -> None:
    """One video file shows several episodes, and few of them begin with a key frame."""
    lengths = {0: [70, 45, 20], 1: [60, 50]}
    root = writer.write_v3(tmp_path / "demos", lengths)
    dataset, old = LeRobotDataset(root), LeRobotDataset(demos)
    decoded = DecodedFrames(dataset, dataset.episodes, 32)
    cached = CachedFrames(dataset, dataset.episodes, 32, tmp_path / "cache")
    expected = CachedFrames(old, old.episodes, 32, tmp_path / "cache")
    episode, frame = np.array([4, 0, 1, 1, 3, 2, 0]), np.array([49, 0, 0, 44, 7, 19, 69])
    for camera, images in expected.gather(episode, frame).items():
        ours = decoded.gather(episode, frame)[camera]
        np.testing.assert_array_equal(ours, cached.gather(episode, frame)[camera])
        assert np.abs(ours.astype(int) - images).max() <= 4
    batch = next(open_loader(root, statistics, None))
    assert batch.state.shape == (8, 32)


def test_start_batch_and_saved_state_continue_exactly(demos, statistics, cache) -> None:
    loader = open_loader(demos, statistics, cache)
    batches = [next(loader) for _ in range(5)]
    state = loader.get_state()
    batches += [next(loader) for _ in range(60)]
    again = open_loader(demos, statistics, cache, start_batch=40)
    assert equal(next(again), batches[40])
    assert equal(next(again), batches[41])
    loader.set_state(state)
    assert equal(next(loader), batches[5])


def test_seeds_and_epochs_differ(demos, statistics, cache) -> None:
    first = open_loader(demos, statistics, cache, batch_size=245)
    one, two = next(first), next(first)
    assert not equal(one, two)
    assert not equal(one, next(open_loader(demos, statistics, cache, batch_size=245, seed=4)))
    # an epoch is a permutation of the same frames
    order = [np.lexsort(b.state.T) for b in (one, two)]
    np.testing.assert_array_equal(one.state[order[0]], two.state[order[1]])


def test_shards_are_parts_of_the_same_batch(demos, statistics, cache) -> None:
    whole = next(open_loader(demos, statistics, cache))
    parts = [next(open_loader(demos, statistics, cache, shard_index=i, shard_count=2)) for i in (0, 1)]
    np.testing.assert_array_equal(np.concatenate([p.actions for p in parts]), whole.actions)
    np.testing.assert_array_equal(np.concatenate([p.images["head"] for p in parts]), whole.images["head"])


def test_tasks_are_selected_from_the_same_cache(demos, statistics, cache) -> None:
    _ = open_loader(demos, statistics, cache)
    before = {p.name: p.stat().st_mtime_ns for p in cache.glob("*.npy")}
    batch = next(open_loader(demos, statistics, cache, tasks=(1,), batch_size=16))
    assert set(batch.task.tolist()) == {1}
    assert {p.name: p.stat().st_mtime_ns for p in cache.glob("*.npy")} == before
    assert len(before) == 2


def test_cache_is_built_once_by_concurrent_users_and_survives_a_kill(demos, statistics, tmp_path) -> None:
    (tmp_path / "half").mkdir()
    reports = []

    def build() -> None:
        open_loader(demos, statistics, tmp_path / "half", on_progress=lambda *a: reports.append(a))

    build()
    whole = sorted(p.name for p in (tmp_path / "half").glob("*.npy"))
    assert reports[0] == ("decoding episodes", 1, 5)
    assert reports[-1] == ("decoding episodes", 5, 5)
    # as after a kill: one task is half written, the other is whole
    first = tmp_path / "half" / whole[0]
    first.rename(first.with_name(f".{first.name}.partial"))
    first.with_name(f".{first.name}.partial").write_bytes(b"half")
    reports.clear()
    threads = [threading.Thread(target=build) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(p.name for p in (tmp_path / "half").glob("*.npy")) == whole
    assert not list((tmp_path / "half").glob(".*.partial"))
    assert len(reports) == 3


def test_a_cache_that_does_not_fit_is_refused(demos, statistics, tmp_path) -> None:
    with pytest.raises(ValueError, match=r"task-0000\.20000000px\..* bytes, .* are free; make space"):
        make_loader(demos, statistics, image_size=20_000_000, batch_size=1, seed=0, frame_cache=tmp_path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 9, "shard_count": 2}, "batch_size 9, shard 0 of 2"),
        ({"shard_index": 2, "shard_count": 2}, "shard 2 of 2"),
        ({"start_batch": -1}, "start_batch is -1"),
        ({"tasks": (3,)}, "no demonstrations of task"),
    ],
)
def test_wrong_options_are_named(demos, statistics, cache, options, message) -> None:
    with pytest.raises(ValueError, match=message):
        open_loader(demos, statistics, cache, **options)
