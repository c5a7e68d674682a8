import json
import shutil
from dataclasses import replace

import jax
import numpy as np
import pytest

from pi_behavior.accumulators import DatasetAccumulator, delta_chunks
from pi_behavior.challenge import TASKS_BY_INDEX
from pi_behavior.data.frames import DecodedFrames
from pi_behavior.data.lerobot import LeRobotDataset
from pi_behavior.data.meta import DatasetError, Episode
from pi_behavior.data.pipeline import Batch, is_held_out, make_loader, open_samples
from pi_behavior.data.training_copy import CopyOptions, PackedFrames, TrainingCopy
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
def copy(copy_of, demos, tmp_path_factory) -> TrainingCopy:
    """A training copy of raw frames: those of the videos, pixel by pixel."""
    return copy_of(demos, tmp_path_factory.mktemp("copy"), CopyOptions(32, compress=False))


def equal(a: Batch, b: Batch) -> bool:
    leaves = [jax.tree.leaves(batch) for batch in (a, b)]
    return all(np.array_equal(x, y) for x, y in zip(*leaves, strict=True))


def open_loader(copy, statistics, *, batch_size=8, seed=3, **options):
    names = ("tasks", "originals", "fast", "together", "validation_share", "validation")
    sampling = {name: options.pop(name) for name in names if name in options}
    samples = open_samples(copy, statistics, image_size=32, **sampling)
    return make_loader(samples, batch_size=batch_size, seed=seed, **options)


def test_batches_are_typed_normalised_and_padded(demos, statistics, copy) -> None:
    batch = next(open_loader(copy, statistics))
    assert {c: (i.shape, i.dtype) for c, i in batch.images.items()} == {
        c: ((8, 32, 32, 3), np.dtype(np.uint8)) for c in CAMERAS
    }
    assert (batch.state.shape, batch.state.dtype) == ((8, 32), np.float32)
    assert (batch.actions.shape, batch.actions.dtype) == ((8, 30, 32), np.float32)
    assert (batch.task.dtype, batch.stage.dtype) == (np.int32, np.int32)
    assert not batch.state[:, 23:].any()
    assert not batch.actions[..., 23:].any()
    assert set(batch.task.tolist()) <= {0, 1}


@pytest.mark.parametrize("original", [False, True])
def test_samples_of_several_observations_hold_the_steps_before(demos, statistics, copy, original) -> None:
    dataset = LeRobotDataset(demos)
    source = dataset if original else None
    one = open_samples(copy, statistics, image_size=32, originals=source)
    three = open_samples(copy, statistics, image_size=32, originals=source, observation_steps=3, horizon=40)
    length = dataset.episodes[0].length
    numbers = np.array([0, 1, 5, length - 1, length])
    plain, found = one.gather(numbers), three.gather(numbers)
    for camera in CAMERAS:
        np.testing.assert_array_equal(found.images[camera], plain.images[camera])
    np.testing.assert_array_equal(found.state, plain.state)
    np.testing.assert_array_equal(found.actions[:, 2:32], plain.actions)
    assert plain.earlier is None
    assert found.earlier is not None
    # an episode repeats its first observation before its start
    for back, before in ((1, [0, 0, 4, length - 2, length]), (2, [0, 0, 3, length - 3, length])):
        earlier = one.gather(np.array(before))
        np.testing.assert_array_equal(found.earlier.state[:, -back], earlier.state)
        for camera in CAMERAS:
            np.testing.assert_array_equal(found.earlier.images[camera][:, -back], earlier.images[camera])
    state, actions = dataset.state_and_actions(dataset.episodes[0])
    chunk = actions[np.clip(np.arange(5 - 2, 5 + 38), 0, length - 1)]
    steps = np.clip(np.arange(-2, 38), 0, 29)
    spread = statistics.action_step_std[steps] + 1e-6
    expected = (statistics.delta(chunk, state[5]) - statistics.action_step_mean[steps]) / spread
    np.testing.assert_allclose(found.actions[2, :, :23], expected, atol=1e-4)


def test_every_sample_is_the_frame_that_it_says(demos, statistics, copy, writer) -> None:
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
    loader = open_loader(copy, statistics, batch_size=5)
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


def test_stages_from_annotated_skills(demos, statistics, copy_of, tmp_path) -> None:
    """An annotated demonstration has its skills, the others equal parts; the training copy knows both."""
    shutil.copytree(demos, tmp_path / "demos")
    dataset = LeRobotDataset(tmp_path / "demos")
    first = dataset.episodes[0]
    # the second skill is done in two pieces; there is nothing between 30 and 40
    skills = [[40, 60], [[10, 20], [25, 30]], [0, 10]]
    note = tmp_path / "demos/annotations/task-0000" / f"episode_{first.index:08d}.json"
    note.parent.mkdir(parents=True)
    note.write_text(json.dumps({"skill_annotation": [{"frame_duration": frames} for frames in skills]}))
    assert dataset.with_skills(first).skills == (0, 10, 40)
    copy = copy_of(tmp_path / "demos", tmp_path / "copy", CopyOptions(32, compress=False))
    assert [one.skills for one in copy.episodes] == [(0, 10, 40), *[()] * 4]
    counts, length = TASKS_BY_INDEX[0].stages, first.length
    expected = [min(counts - 1, counts * ((t >= 10) + (t >= 40)) // 3) for t in range(length)]
    frames = np.arange(length + 3)
    for kind in ("skills", "equal"):
        samples = open_samples(copy, replace(statistics, stages=kind), image_size=32)
        stages = samples.gather(frames).stage.tolist()
        if kind == "equal":
            expected = [t * counts // length for t in range(length)]
        assert stages == [*expected, 0, 0, 0]  # the next demonstration begins
    note.write_text('{"skill_annotation": [{}]}')
    with pytest.raises(DatasetError, match=r"\.json: KeyError 'frame_duration'; expected skill_annotation"):
        dataset.with_skills(first)


def test_fast_tokens_are_those_of_the_batchs_chunks(demos, statistics, copy) -> None:
    assert next(open_loader(copy, statistics)).fast is None
    dataset = LeRobotDataset(demos)
    state, actions = dataset.state_and_actions(dataset.episodes[0])
    training = statistics.normalise_quantiles(delta_chunks(state, actions).reshape(-1, 30, 23))
    fast = FastTokenizer.train(training)
    loader = open_loader(copy, statistics, fast=fast)
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
    again = open_loader(copy, statistics, fast=fast, start_batch=2)
    assert equal(next(again), batches[2])


def test_original_videos_give_the_same_batches(copy_of, demos, statistics, copy, tmp_path) -> None:
    columns = copy_of(demos, tmp_path, CopyOptions(), cameras=())
    assert not list(tmp_path.rglob("*head*"))
    copied = open_loader(copy, statistics)
    decoded = open_loader(columns, statistics, originals=LeRobotDataset(demos))
    for _ in range(3):
        assert equal(next(copied), next(decoded))
    with pytest.raises(ValueError, match=r"holds no pictures; the network reads 32 pixels"):
        open_loader(columns, statistics)


def test_version_3_gives_the_samples_of_version_2(copy_of, writer, tmp_path, copy, statistics) -> None:
    """One video file shows several episodes, and few of them begin with a key frame."""
    lengths = {0: [70, 45, 20], 1: [60, 50]}
    root = writer.write_v3(tmp_path / "demos", lengths)
    dataset = LeRobotDataset(root)
    decoded = DecodedFrames(dataset, dataset.episodes, 32)
    raw = copy_of(root, tmp_path / "copy", CopyOptions(32, compress=False))
    copied, expected = PackedFrames(raw, raw.episodes, 32), PackedFrames(copy, copy.episodes, 32)
    episode, frame = np.array([4, 0, 1, 1, 3, 2, 0]), np.array([49, 0, 0, 44, 7, 19, 69])
    for camera, images in expected.gather(episode, frame).items():
        ours = decoded.gather(episode, frame)[camera]
        np.testing.assert_array_equal(ours, copied.gather(episode, frame)[camera])
        assert np.abs(ours.astype(int) - images).max() <= 4
    assert next(open_loader(raw, statistics)).state.shape == (8, 32)


def test_worker_processes_give_the_same_batches(statistics, copy) -> None:
    alone, workers = open_loader(copy, statistics), open_loader(copy, statistics, workers=2)
    try:
        assert all(equal(next(alone), next(workers)) for _ in range(5))
    finally:
        workers.close()
    later = open_loader(copy, statistics, workers=1, start_batch=5)
    assert equal(next(later), next(alone))
    later.close()


@pytest.mark.parametrize("together", [2, 4, 8])
def test_samples_of_a_group_follow_each_other(statistics, copy, together) -> None:
    samples = open_samples(copy, statistics, image_size=32, together=together)
    batch = samples.gather(np.arange(len(samples)))
    single = open_samples(copy, statistics, image_size=32)
    every = single.gather(np.arange(len(single)))
    rows = {row.tobytes(): number for number, row in enumerate(every.actions)}
    numbers = np.array([rows[row.tobytes()] for row in batch.actions])
    assert set(numbers) == set(range(len(single)))
    for camera in CAMERAS:
        np.testing.assert_array_equal(batch.images[camera], every.images[camera][numbers])
    starts = np.cumsum([0, *(e.length for e in copy.episodes)])
    episode = np.searchsorted(starts, numbers, side="right") - 1
    group = (numbers - starts[episode]) // 8
    for rows in (episode, group):
        assert (np.diff(rows.reshape(-1, together), axis=1) == 0).all()
    loader = open_loader(copy, statistics, together=together)
    assert next(loader).state.shape == (8, 32)


def test_weights_decide_the_share_of_a_task(statistics, copy) -> None:
    loader = open_loader(copy, statistics, batch_size=40, weights={0: 3.0})
    tasks = np.concatenate([next(loader).task for _ in range(20)])
    assert (tasks == 0).mean() == pytest.approx(0.75, abs=0.02)
    again = open_loader(copy, statistics, batch_size=40, weights={0: 3.0}, start_batch=7)
    np.testing.assert_array_equal(next(again).task, tasks[280:320])


def test_instances_are_held_out_whole_and_stay_so(statistics, copy) -> None:
    episodes = [Episode(i, i % 7, "", 9, {}, i // 3, 0) for i in range(3000)]
    held = [is_held_out(e, 0.2) for e in episodes]
    assert np.mean(held) == pytest.approx(0.2, abs=0.03)
    sides = {(e.task, e.instance): h for e, h in zip(episodes, held, strict=True)}
    assert all(sides[e.task, e.instance] == h for e, h in zip(episodes, held, strict=True))
    assert all(is_held_out(e, 0.3) for e, h in zip(episodes, held, strict=True) if h)
    share = 0.5
    parts = [
        open_samples(copy, statistics, image_size=32, validation_share=share, validation=v)
        for v in (False, True)
    ]
    assert sum(map(len, parts)) == 245
    with pytest.raises(ValueError, match="validation_share 0 none of 5 demonstrations"):
        open_samples(copy, statistics, image_size=32, validation=True)


def test_start_batch_and_saved_state_continue_exactly(statistics, copy) -> None:
    loader = open_loader(copy, statistics)
    batches = [next(loader) for _ in range(5)]
    state = loader.get_state()
    batches += [next(loader) for _ in range(60)]
    again = open_loader(copy, statistics, start_batch=40)
    assert equal(next(again), batches[40])
    assert equal(next(again), batches[41])
    loader.set_state(state)
    assert equal(next(loader), batches[5])


def test_seeds_and_epochs_differ(demos, statistics, copy) -> None:
    first = open_loader(copy, statistics, batch_size=245)
    one, two = next(first), next(first)
    assert not equal(one, two)
    assert not equal(one, next(open_loader(copy, statistics, batch_size=245, seed=4)))
    # an epoch is a permutation of the same frames
    order = [np.lexsort(b.state.T) for b in (one, two)]
    np.testing.assert_array_equal(one.state[order[0]], two.state[order[1]])


def test_shards_are_parts_of_the_same_batch(demos, statistics, copy) -> None:
    whole = next(open_loader(copy, statistics))
    parts = [next(open_loader(copy, statistics, shard_index=i, shard_count=2)) for i in (0, 1)]
    np.testing.assert_array_equal(np.concatenate([p.actions for p in parts]), whole.actions)
    np.testing.assert_array_equal(np.concatenate([p.images["head"] for p in parts]), whole.images["head"])


def test_tasks_are_selected(statistics, copy) -> None:
    batch = next(open_loader(copy, statistics, tasks=(1,), batch_size=16))
    assert set(batch.task.tolist()) == {1}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 9, "shard_count": 2}, "batch_size 9, shard 0 of 2"),
        ({"shard_index": 2, "shard_count": 2}, "shard 2 of 2"),
        ({"start_batch": -1}, "start_batch is -1"),
        ({"together": 3}, "together is 3"),
        ({"together": 8, "batch_size": 12}, "batch_size 12, shard 0 of 1, 8 samples together"),
        ({"tasks": (3,)}, "no demonstrations of task"),
    ],
)
def test_wrong_options_are_named(statistics, copy, options, message) -> None:
    with pytest.raises(ValueError, match=message):
        open_loader(copy, statistics, **options)
