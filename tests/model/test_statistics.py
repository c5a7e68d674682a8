"""Normalisation, correlation and accumulators: golden tensors, files, and properties."""

import json
import pickle
from dataclasses import fields, replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from pi_behavior.accumulators import (
    EXCLUDED_DIMS,
    DatasetAccumulator,
    QuantileHistogram,
    delta_chunks,
)
from pi_behavior.correlation import (
    EPSILON,
    correction_matrix,
    correlation_matrix,
    pad_correlation,
    shrunk_covariance,
)
from pi_behavior.fast import FastTokenizer
from pi_behavior.layout import DELTA_DIMS
from pi_behavior.moments import ChunkMoments, ExactSum
from pi_behavior.statistics import StageTable, Statistics, closed_grippers, pad_to_model, stage_of_frame

GOLDEN = Path(__file__).parents[1] / "golden" / "model_tiny.npz"
HUMAN = {
    "length": 80.0,
    "distance_traveled": 1.0,
    "left_eef_displacement": 0.5,
    "right_eef_displacement": 2.0,
}


CHUNK = hnp.arrays(np.float32, (2, 30, 23), elements=st.floats(-4, 4, width=32))
STATE = hnp.arrays(np.float32, (2, 23), elements=st.floats(-4, 4, width=32))


def episode(seed: int, length: int = 80) -> tuple[np.ndarray, np.ndarray]:
    """A random walk of the state, and actions around it; dimension 6 is constant."""
    rng = np.random.default_rng(seed)
    state = np.cumsum(rng.normal(0, 0.02, (length, 23)), axis=0) + rng.normal(0, 0.3, 23)
    actions = np.roll(state, -1, axis=0) + rng.normal(0, 0.01, (length, 23))
    state[:, 6] = actions[:, 6] = 0.3
    state[:, [14, 22]] = actions[:, [14, 22]] = np.where(np.arange(length) < length // 2, 1.0, -1.0)[:, None]
    return state.astype(np.float32), actions.astype(np.float32)


def accumulate(seeds: range | list[int], lengths: list[int] | None = None) -> DatasetAccumulator:
    accumulator = DatasetAccumulator()
    for i, seed in enumerate(seeds):
        task = seed % 2
        name, stages = (("turning_on_radio", 5), ("picking_up_trash", 6))[task]
        accumulator.update(task, name, stages, *episode(seed, lengths[i] if lengths else 80), HUMAN)
    return accumulator


@pytest.fixture(scope="module")
def statistics() -> Statistics:
    return accumulate(range(12)).finish()


def test_golden_shrinkage_and_correction_matrix() -> None:
    with np.load(GOLDEN) as data:
        covariance = shrunk_covariance(data["in/sigma"], 0.5)
        np.testing.assert_allclose(
            np.linalg.cholesky(covariance), data["in/cholesky_regularised"], rtol=0, atol=1e-5
        )
        matrix = correction_matrix(covariance, 4)
        assert matrix.shape == (868, 92)
        np.testing.assert_allclose(matrix, data["out/inpaint_correction_matrix"], rtol=0, atol=1e-5)


def test_statistics_object_gives_the_golden_matrices(statistics) -> None:
    with np.load(GOLDEN) as data:
        real = (np.arange(30)[:, None] * 32 + np.arange(23)).reshape(-1)
        factor = np.linalg.cholesky(data["in/sigma"][np.ix_(real, real)]).astype(np.float32)
        golden = replace(statistics, correlation_cholesky=factor)
        np.testing.assert_allclose(
            golden.regularised_cholesky(0.5), data["in/cholesky_regularised"], rtol=0, atol=1e-4
        )
        np.testing.assert_allclose(
            golden.correction_matrix(0.5, 4), data["out/inpaint_correction_matrix"], rtol=0, atol=1e-4
        )


def test_moments_are_those_of_all_whole_chunks() -> None:
    """Against a plain loop over every chunk of every episode, at once."""
    chunks = []
    for seed in range(12):
        state, actions = (x.astype(np.float64) for x in episode(seed))
        for t in range(80 - 29):
            chunk = actions[t : t + 30].copy()
            chunk[:, DELTA_DIMS] -= state[t, DELTA_DIMS]
            chunks.append(chunk)
    chunks = np.stack(chunks)
    states = np.concatenate([episode(seed)[0] for seed in range(12)]).astype(np.float64)
    found = accumulate(range(12)).finish(normalisation="per_step")
    assert (found.num_frames, found.num_chunks) == (12 * 80, len(chunks))
    np.testing.assert_allclose(found.state_mean, states.mean(0), atol=1e-6)
    np.testing.assert_allclose(found.state_std, states.std(0), atol=1e-6)
    np.testing.assert_allclose(found.action_mean, chunks.mean((0, 1)), atol=1e-6)
    np.testing.assert_allclose(found.action_std, chunks.std((0, 1)), atol=1e-6)
    np.testing.assert_allclose(found.action_step_mean, chunks.mean(0), atol=1e-6)
    np.testing.assert_allclose(found.action_step_std, chunks.std(0), atol=1e-6)
    normalised = ((chunks - chunks.mean(0)) / (chunks.std(0) + 1e-6)).reshape(len(chunks), -1)
    sigma = normalised.T @ normalised / len(chunks)
    constant = np.arange(690) % 23 == 6
    sigma[constant] = sigma[:, constant] = 0.0
    root = np.sqrt(np.diag(sigma) + constant)
    sigma = sigma / np.outer(root, root) + np.diag(constant * 1.0) + 1e-6 * np.eye(690)
    factor = found.correlation_cholesky.astype(np.float64)
    np.testing.assert_allclose(factor @ factor.T, sigma, atol=1e-5)
    for array, values in (
        (found.action_step_q01, np.quantile(chunks, 0.01, axis=0, method="inverted_cdf")),
        (found.action_step_q99, np.quantile(chunks, 0.99, axis=0, method="inverted_cdf")),
        (found.action_q99, np.quantile(chunks.reshape(-1, 23), 0.99, axis=0, method="inverted_cdf")),
        (found.state_q01, np.quantile(states, 0.01, axis=0, method="inverted_cdf")),
    ):
        np.testing.assert_allclose(array, values, rtol=2.1e-3, atol=7e-5)


def test_exclusion_gives_velocities_and_grippers_global_values(statistics) -> None:
    assert statistics.normalisation == "report"
    assert EXCLUDED_DIMS.tolist() == [0, 1, 2, 14, 22]
    published = accumulate(range(12)).finish(normalisation="per_step")
    for kind in ("mean", "std", "q01", "q99"):
        steps, overall = getattr(statistics, f"action_step_{kind}"), getattr(statistics, f"action_{kind}")
        assert (steps[:, EXCLUDED_DIMS] == overall[EXCLUDED_DIMS]).all()
        others = np.setdiff1d(np.arange(23), EXCLUDED_DIMS)
        assert (steps[:, others] == getattr(published, f"action_step_{kind}")[:, others]).all()
    # the correlation is that of chunks normalised this way: unit diagonal, still positive definite
    factor = statistics.correlation_cholesky.astype(np.float64)
    np.testing.assert_allclose(np.diag(factor @ factor.T), 1.0 + 1e-6, atol=1e-5)


def test_constant_dimensions_are_identity_rows_and_stay_finite(statistics) -> None:
    factor = statistics.correlation_cholesky.astype(np.float64)
    sigma = factor @ factor.T
    constant = np.arange(6, 690, 23)
    expected = (1.0 + 1e-6) * np.eye(690)[constant]
    np.testing.assert_allclose(sigma[constant], expected, atol=1e-6)
    state, actions = episode(3)
    delta = statistics.delta(actions[None, :30], state[:1])
    normalised = statistics.normalise_actions(delta)
    assert np.isfinite(normalised).all()
    assert np.abs(normalised[..., 6]).max() < 1e-3
    assert np.abs(statistics.normalise_state(state)[:, 6]).max() < 1e-3


@pytest.mark.parametrize("normalisation", ["report", "per_step", "global"])
def test_files_hold_everything(tmp_path, normalisation) -> None:
    saved = accumulate(range(6)).finish(normalisation=normalisation)
    assert saved.normalisation == normalisation
    saved.save(tmp_path)
    loaded = Statistics.load(tmp_path)
    for field in fields(Statistics):
        np.testing.assert_array_equal(getattr(loaded, field.name), getattr(saved, field.name))
    assert {p.name for p in tmp_path.iterdir()} == {"norm_stats.json", "human.json", "closure.json"}
    assert json.loads((tmp_path / "human.json").read_text())["turning_on_radio"] == HUMAN


def test_global_normalisation_is_the_same_at_all_steps(statistics) -> None:
    everywhere = accumulate(range(12)).finish(normalisation="global")
    for kind in ("mean", "std", "q01", "q99"):
        steps = getattr(everywhere, f"action_step_{kind}")
        assert (steps == getattr(statistics, f"action_{kind}")).all()


def test_absolute_actions_stay_as_they_are() -> None:
    accumulator = DatasetAccumulator(absolute_actions=True)
    state, actions = episode(0)
    accumulator.update(0, "turning_on_radio", 5, state, actions, HUMAN)
    absolute = accumulator.finish()
    np.testing.assert_array_equal(absolute.delta(actions[None, :30], state[:1]), actions[None, :30])
    np.testing.assert_array_equal(absolute.undelta(actions[None, :30], state[:1]), actions[None, :30])
    whole = np.stack([actions[i : i + 30] for i in range(len(actions) - 29)])
    np.testing.assert_allclose(absolute.action_step_mean[:, 7], whole[..., 7].mean(axis=0), rtol=1e-4)


def published(statistics: Statistics, width: int, flat: int) -> dict[str, object]:
    """The published layout, padded to the given widths."""

    def pad(array: np.ndarray) -> list:
        return np.pad(array, [(0, 0)] * (array.ndim - 1) + [(0, width - 23)]).tolist()

    correlation = statistics.correlation_cholesky
    if flat == 960:
        correlation = np.linalg.cholesky(
            pad_correlation(correlation.astype(float) @ correlation.T.astype(float))
        )
    kinds = ("mean", "std", "q01", "q99")
    return {
        "norm_stats": {
            "state": {k: pad(getattr(statistics, f"state_{k}")) for k in kinds},
            "actions": {
                **{k: pad(getattr(statistics, f"action_{k}")) for k in kinds},
                **{f"per_timestamp_{k}": pad(getattr(statistics, f"action_step_{k}")) for k in kinds},
                "action_correlation_cholesky": correlation.tolist(),
            },
        }
    }


@pytest.mark.parametrize(("width", "flat"), [(23, 690), (32, 690), (32, 960)])
def test_published_files_load_as_they_are(tmp_path, statistics, width, flat) -> None:
    (tmp_path / "norm_stats.json").write_text(json.dumps(published(statistics, width, flat)))
    loaded = Statistics.load(tmp_path)
    assert loaded.normalisation == "per_step"
    assert loaded.human == {}
    np.testing.assert_array_equal(loaded.action_step_std, statistics.action_step_std)
    np.testing.assert_allclose(loaded.correlation_cholesky, statistics.correlation_cholesky, atol=1e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d["actions"].pop("per_timestamp_std"), "no entry 'per_timestamp_std'"),
        (lambda d: d["state"].update(mean=[0.0] * 7), r"state_mean has the shape \(7,\); expected \(23,\)"),
        (lambda d: d["state"].update(std=[float("nan")] * 23), "state_std holds values that are not finite"),
        (lambda d: d.pop("state"), "no entry 'state'"),
    ],
)
def test_wrong_files_are_named(tmp_path, statistics, change, message) -> None:
    document = published(statistics, 23, 690)
    change(document["norm_stats"])
    (tmp_path / "norm_stats.json").write_text(json.dumps(document))
    with pytest.raises(ValueError, match=rf"norm_stats\.json.*{message}"):
        Statistics.load(tmp_path)


def test_missing_file_and_empty_data_are_named(tmp_path) -> None:
    with pytest.raises(ValueError, match="cannot read statistics from"):
        Statistics.load(tmp_path)
    with pytest.raises(ValueError, match="no chunk of 30 actions in 20 frames"):
        accumulate([0], [20]).finish()


def test_closure_and_human_tables(statistics) -> None:
    # closed in the second half: of 5 stages, from the third on (it holds the middle)
    assert statistics.closure["0"] == [[False] * 2] * 2 + [[True] * 2] * 3
    assert statistics.closure["1"] == [[False] * 2] * 3 + [[True] * 2] * 3
    assert statistics.human["picking_up_trash"] == HUMAN
    assert closed_grippers(np.full((2, 23), -0.98)).tolist() == [[False, False]] * 2


@given(st.integers(1, 15), st.integers(1, 5000))
def test_stages_cover_an_episode_in_order(stages, length) -> None:
    found = stage_of_frame(np.arange(length), length, stages)
    assert found[0] == 0
    assert (np.diff(found) >= 0).all()
    assert found[-1] == (length - 1) * stages // length <= stages - 1


@given(
    st.integers(1, 15),
    st.lists(
        st.tuples(st.integers(1, 200), st.sets(st.integers(0, 199), max_size=20)), min_size=1, max_size=4
    ),
)
def test_stages_from_skills_follow_the_rule_frame_by_frame(stages, demonstrations) -> None:
    lengths = [length for length, _ in demonstrations]
    skills = [sorted(start for start in starts if start < length) for length, starts in demonstrations]
    table = StageTable("skills", lengths, [stages] * len(lengths), skills)
    equal = StageTable("equal", lengths, [stages] * len(lengths), skills)
    for number, (length, starts) in enumerate(zip(lengths, skills, strict=True)):
        frames = np.arange(length)
        found = table.of(np.full(length, number), frames).tolist()
        parts = stage_of_frame(frames, length, stages).tolist()
        assert equal.of(np.full(length, number), frames).tolist() == parts
        for frame in range(length if starts else 0):
            k = max(sum(start <= frame for start in starts) - 1, 0)
            assert found[frame] == min(stages - 1, stages * k // len(starts))
        assert starts or found == parts


LENGTHS = st.lists(st.integers(1, 70), min_size=1, max_size=6)


@settings(deadline=None, max_examples=6)
@given(LENGTHS, st.booleans(), st.sampled_from([2.0**-12, 1.0, 20.0]), st.randoms())
def test_moments_are_exact_in_any_order(lengths, absolute, scale, shuffle) -> None:
    """Against fractions, of a few entries of every kind, and bit by bit in another order and other parts."""
    rng = np.random.default_rng(sum(lengths))
    pairs = [[(scale * rng.normal(size=(n, 23))).astype(np.float32) for _ in "ab"] for n in (40, *lengths)]
    one = ChunkMoments(absolute=absolute)
    for pair in pairs:
        one.update(*pair)
    mean, covariance = one.chunk_moments()
    # as rounded to the stated grid, which leaves all but small values as they are
    grid = [[np.ldexp(np.rint(np.ldexp(x.astype(np.float64), 40)), -40) for x in pair] for pair in pairs]
    assert all(
        np.abs(g - x).max() <= 2.0**-41
        for a, b in zip(grid, pairs, strict=True)
        for g, x in zip(a, b, strict=True)
    )
    rows = np.concatenate([delta_chunks(*pair, absolute=absolute) for pair in grid])
    assert one.chunks == len(rows)
    for i, j in [(0, 0), (3, 3), (3, 670), (8, 8 + 23 * 29), (14, 100), (689, 689), (620, 47)]:
        a, b = ([Fraction(x) for x in rows[:, k].tolist()] for k in (i, j))
        means = sum(a) / len(a), sum(b) / len(b)
        exact = sum((x - means[0]) * (y - means[1]) for x, y in zip(a, b, strict=True)) / len(a)
        assert mean[i] == float(means[0])
        assert covariance[i, j] == float(exact)
    shuffle.shuffle(pairs)
    parts = [ChunkMoments(absolute=absolute) for _ in range(3)]
    for n, pair in enumerate(pairs):
        parts[n % 3].update(*pair)
    parts[2].merge(parts[0])
    parts[2].merge(pickle.loads(pickle.dumps(parts[1])))
    again = (*parts[2].state_moments(), *parts[2].chunk_moments())
    for ours, theirs in zip(again, (*one.state_moments(), mean, covariance), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    states = np.concatenate([state for state, _ in pairs]).astype(np.float64)
    np.testing.assert_allclose(again[0], states.mean(axis=0), rtol=1e-11, atol=1e-12)
    np.testing.assert_allclose(again[1], states.var(axis=0), rtol=1e-8)


@pytest.mark.parametrize("value", [np.nan, np.inf, 1000.0])
def test_values_that_no_robot_has_are_refused(value) -> None:
    state, actions = episode(0)
    state[3, 5] = value
    with pytest.raises(ValueError, match=r"a value of .* in states or actions; expected at most 128"):
        ChunkMoments().update(state, actions)


def test_sums_do_not_overflow() -> None:
    total, other = ExactSum(2), ExactSum(2)
    for _ in range(1500):
        total.add(np.array([2.0**53 - 1, -(2.0**53) + 1]))
        other.add(np.array([1.0, -1.0]))
    total.merge(other)
    assert total.total().tolist() == [1500 * 2**53, -1500 * 2**53]


def test_quantiles_of_long_demonstrations_come_from_evenly_spaced_chunks() -> None:
    state, actions = episode(0, 1000)
    accumulator, expected = DatasetAccumulator(), QuantileHistogram(690)
    accumulator.update(0, "turning_on_radio", 5, state, actions, HUMAN)
    whole = delta_chunks(state, actions)
    # 971 chunks: one in 7 stands for 7, and the last for what is left
    expected.update(whole[0:966:7], 7)
    expected.update(whole[966:967], 5)
    np.testing.assert_array_equal(accumulator.chunk_histogram.counts, expected.counts)
    assert (expected.counts.sum(axis=1) == len(whole)).all()


@given(CHUNK)
def test_quantiles_become_minus_one_and_one(statistics, chunk) -> None:
    low, high = statistics.action_q01, statistics.action_q99
    normalised = statistics.normalise_quantiles(chunk)
    assert np.abs(normalised).max() <= 1.0 + 1e-6
    np.testing.assert_array_equal(normalised[..., 6], -1.0)
    np.testing.assert_allclose(
        (normalised + 1) / 2 * (high - low) + low, np.clip(chunk, low, high), atol=2e-6
    )
    wide = np.setdiff1d(np.arange(23), [6])
    ends = statistics.normalise_quantiles(np.stack([low, high]))
    np.testing.assert_allclose(ends[:, wide], [[-1.0] * 22, [1.0] * 22], atol=1e-6)


def test_a_tokenizer_is_saved_and_read_beside_the_statistics(tmp_path, statistics) -> None:
    chunks = statistics.normalise_quantiles(delta_chunks(*episode(0)).reshape(-1, 30, 23))
    trained = replace(statistics, fast=FastTokenizer.train(chunks, vocab_size=300))
    trained.save(tmp_path)
    assert (tmp_path / "fast_tokenizer" / "processor_config.json").is_file()
    assert Statistics.load(tmp_path).fast == trained.fast
    assert Statistics.load(tmp_path / "norm_stats.json").fast == trained.fast
    (tmp_path / "fast_tokenizer" / "tokenizer.json").unlink()
    with pytest.raises(ValueError, match="cannot read a FAST tokenizer"):
        Statistics.load(tmp_path)
    # statistics without one leave none of an earlier run behind
    statistics.save(tmp_path)
    assert Statistics.load(tmp_path).fast is None


def test_merged_datasets_are_one_pass() -> None:
    first, second = accumulate(range(5)), accumulate(range(5, 9))
    first.merge(second)
    merged, one = first.finish(), accumulate(range(9)).finish()
    for field in fields(Statistics):
        a, b = getattr(merged, field.name), getattr(one, field.name)
        np.testing.assert_array_equal(a, b, err_msg=field.name)


FINITE = st.floats(-200, 200, width=32)


@given(
    hnp.arrays(np.float32, st.tuples(st.integers(1, 60), st.just(3)), elements=FINITE), st.floats(0.0, 1.0)
)
def test_quantiles_have_the_stated_error(values, share) -> None:
    histogram, parts = QuantileHistogram(3), QuantileHistogram(3)
    histogram.update(values)
    for half in (values[::2], values[1::2]):
        part = QuantileHistogram(3)
        part.update(half)
        parts.merge(part)
    exact = np.quantile(values, share, axis=0, method="inverted_cdf")
    np.testing.assert_allclose(histogram.quantile(share), exact, rtol=2e-3, atol=6.2e-5)
    np.testing.assert_array_equal(parts.quantile(share), histogram.quantile(share))


@given(CHUNK, STATE)
def test_inverses(statistics, chunk, state) -> None:
    delta = statistics.delta(chunk, state)
    np.testing.assert_allclose(statistics.undelta(delta, state), chunk, atol=2e-6)
    untouched = np.setdiff1d(np.arange(23), DELTA_DIMS)
    np.testing.assert_array_equal(delta[..., untouched], chunk[..., untouched])
    # relative to the size of what was normalised: a narrow dimension makes large numbers
    restored = statistics.unnormalise_actions(statistics.normalise_actions(delta))
    np.testing.assert_allclose(restored, delta, atol=1e-5)
    normalised = statistics.normalise_state(state)
    restored = normalised * (statistics.state_std + EPSILON) + statistics.state_mean
    np.testing.assert_allclose(restored, state, atol=1e-5)
    saved = statistics.normalise_initial(chunk[:, :4], state)
    np.testing.assert_array_equal(saved, statistics.normalise_actions(delta)[:, :4])


def test_too_long_chunks_are_refused(statistics) -> None:
    with pytest.raises(ValueError, match="31 steps; expected at most 30"):
        statistics.normalise_actions(np.zeros((31, 23)))


def test_delta_chunks_end_with_the_episode() -> None:
    state, actions = episode(0, 31)
    chunks = delta_chunks(state, actions).reshape(-1, 30, 23)
    assert len(chunks) == 2
    np.testing.assert_allclose(chunks[1, -1, 7], actions[30, 7] - state[1, 7], rtol=1e-6)
    assert delta_chunks(*episode(0, 29)).shape == (0, 690)
    assert pad_to_model(chunks).shape == (2, 30, 32)


def test_noise_has_the_shrunk_covariance(statistics) -> None:
    factor = statistics.regularised_cholesky(0.5)
    noise = np.random.default_rng(0).normal(size=(8_000, 960)) @ factor.T
    expected = statistics.covariance(0.5)
    # 5 standard errors of a covariance's entry
    assert np.abs(noise.T @ noise / len(noise) - expected).max() < 5.5 * np.sqrt(2 / len(noise))
    real = (np.arange(30)[:, None] * 32 + np.arange(23)).reshape(-1)
    padding = np.setdiff1d(np.arange(960), real)
    np.testing.assert_array_equal(expected[padding], np.eye(960)[padding])
    np.testing.assert_allclose(np.diag(expected), 1.0, atol=1e-5)


def test_shrinkage_has_a_range(statistics) -> None:
    np.testing.assert_array_equal(statistics.covariance(0.0), np.eye(960))
    with pytest.raises(ValueError, match=r"beta is 1\.5"):
        statistics.covariance(1.5)
    with pytest.raises(ValueError, match="keep is 30"):
        correction_matrix(np.eye(960), 30)


def test_correlation_of_independent_entries_is_the_identity() -> None:
    scatter = np.diag([4.0, 1e-14, 0.0, 9.0])
    found = correlation_matrix(scatter, np.array([2.0, 1e-6, 1e-6, 1.0]))
    np.testing.assert_allclose(found, (1 + 1e-6) * np.eye(4))
