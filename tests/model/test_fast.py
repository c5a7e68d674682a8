"""The FAST tokenizer: round trips, files, and tokens that fit a network."""

import dataclasses
import json
from pathlib import Path

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.fft import dct
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from pi_behavior.fast import COEFFICIENTS, DIMENSIONS, MAX_TOKENS, FastTokenizer
from pi_behavior.losses import fast_loss
from pi_behavior.observation import FastTokens


def smooth_chunks(seed: int, count: int) -> np.ndarray:
    """Chunks in [-1, 1] as robots make them: slow waves around an offset, dimension 6 constant."""
    rng = np.random.default_rng(seed)
    time = np.arange(30)[None, :, None] / 30
    phase, speed = rng.uniform(0, 6, (count, 1, 23)), rng.uniform(0.3, 4, (count, 1, 23))
    waves = 0.6 * np.sin(speed * time + phase) + rng.normal(0, 0.3, (count, 1, 23))
    waves[..., 6] = -1.0
    return waves.clip(-1, 1).astype(np.float32)


@pytest.fixture(scope="module")
def tokenizer() -> FastTokenizer:
    return FastTokenizer.train(smooth_chunks(0, 400))


@pytest.fixture(scope="module")
def whole_alphabet() -> FastTokenizer:
    """Trained on chunks that hold the extreme coefficients, so that nothing is out of range."""
    time = np.arange(30)
    extremes = np.sign(np.cos(np.pi * (time + 0.5) * np.arange(30)[:, None] / 30)) + 0.0
    chunks = np.concatenate([extremes, -extremes]).astype(np.float32)[..., None] * np.ones(23, np.float32)
    return FastTokenizer.train(np.concatenate([chunks, smooth_chunks(1, 50)]))


@given(hnp.arrays(np.float32, (2, 30, 23), elements=st.floats(-1, 1, width=32)))
def test_a_round_trip_is_off_by_at_most_half_a_step(
    whole_alphabet: FastTokenizer, chunks: np.ndarray
) -> None:
    decoded = whole_alphabet.decode(whole_alphabet.encode(chunks))
    assert decoded.shape == chunks.shape
    bound = 0.5 / whole_alphabet.scale
    errors = (decoded - chunks)[..., DIMENSIONS].astype(np.float64)
    # every coefficient by half a step, hence the root mean square of every dimension too
    assert np.abs(dct(errors, axis=1, norm="ortho")).max() <= bound + 1e-5
    assert np.sqrt(np.square(errors).mean(axis=1)).max() <= bound + 1e-5
    assert not decoded[..., 6].any()


def test_tokens_say_what_the_paper_says(tokenizer: FastTokenizer) -> None:
    """Against a second way to the same numbers: a sum of cosines, one chunk and one dimension at a time."""
    (chunk,) = smooth_chunks(2, 1)
    dimensions = [*range(6), *range(7, 23)]
    text = ""
    for frequency in range(30):
        basis = np.cos(np.pi * (np.arange(30) + 0.5) * frequency / 30) * np.sqrt((1 + (frequency > 0)) / 30)
        for dimension in dimensions:
            coefficient = int(np.rint(10 * float(basis @ chunk[:, dimension].astype(np.float64))))
            text += chr(coefficient - tokenizer.min_token)
    expected = Tokenizer.from_str(tokenizer.bpe).encode(text).ids
    assert tokenizer.encode(chunk[None]) == [expected]
    assert len(expected) < COEFFICIENTS / 3


def test_training_is_deterministic_and_compresses_what_it_has_not_seen(tokenizer: FastTokenizer) -> None:
    assert FastTokenizer.train(smooth_chunks(0, 400)) == tokenizer
    assert tokenizer != FastTokenizer.train(smooth_chunks(3, 400))
    rows = tokenizer.encode(smooth_chunks(4, 200))
    assert max(max(row) for row in rows) < 1024
    small = FastTokenizer.train(smooth_chunks(0, 400), vocab_size=150).encode(smooth_chunks(4, 200))
    mean, mean_small = (np.mean([len(row) for row in one]) for one in (rows, small))
    assert mean < 0.8 * mean_small
    assert mean < COEFFICIENTS / 8


def test_coefficients_that_training_never_saw_become_the_nearest_seen(tokenizer: FastTokenizer) -> None:
    quiet = FastTokenizer.train(0.1 * smooth_chunks(5, 50))
    loud = np.ones((1, 30, 23), np.float32)
    (row,) = quiet.encode(loud)
    decoded = quiet.decode([row])
    # the constant's one coefficient is cut to the largest of the alphabet; every other one stays 0
    largest = Tokenizer.from_str(quiet.bpe).get_vocab().keys()
    highest = max(ord(token) for token in largest if len(token) == 1) + quiet.min_token
    assert highest < 54
    np.testing.assert_allclose(decoded[..., DIMENSIONS], highest / 10 / np.sqrt(30), atol=1e-6)
    # as far outside as it may be: chunks that nobody normalised
    assert quiet.decode(quiet.encode(1e6 * loud)).max() == pytest.approx(decoded.max())


def test_constant_chunks_are_few_tokens(tokenizer: FastTokenizer) -> None:
    constant = -np.ones((1, 30, 23), np.float32)
    (row,) = tokenizer.encode(constant)
    assert len(row) < 40
    np.testing.assert_allclose(tokenizer.decode([row])[..., DIMENSIONS], -1.0, atol=0.05)


def test_batches_are_cut_and_padded(tokenizer: FastTokenizer) -> None:
    rough = np.random.default_rng(6).uniform(-1, 1, (1, 30, 23)).astype(np.float32)
    chunks = np.concatenate([smooth_chunks(7, 3), rough])
    rows = tokenizer.encode(chunks)
    lengths = np.array([len(row) for row in rows])
    assert lengths[:3].max() < MAX_TOKENS < lengths[3]
    tokens, mask = tokenizer.encode_batch(chunks)
    assert (tokens.shape, tokens.dtype, mask.dtype) == ((4, MAX_TOKENS), np.int32, np.bool_)
    assert mask.sum(axis=1).tolist() == np.minimum(lengths, MAX_TOKENS).tolist()
    for row, line, valid in zip(rows, tokens, mask, strict=True):
        assert line[valid].tolist() == row[:MAX_TOKENS]
        assert not line[~valid].any()
    assert tokenizer.encode_batch(chunks[:0]).tokens.shape == (0, MAX_TOKENS)
    with pytest.raises(ValueError, match=r"the 200 tokens of row 0 stand for \d+ coefficients; expected 660"):
        tokenizer.decode([tokens[3].tolist()])


def test_tokens_and_a_row_of_padding_fit_the_loss(tokenizer: FastTokenizer) -> None:
    tokens, mask = tokenizer.encode_batch(smooth_chunks(8, 2))
    mask[1] = False
    logits = jax.random.normal(jax.random.key(0), (2, MAX_TOKENS, 1024))
    loss = np.asarray(fast_loss(logits, FastTokens(jax.numpy.asarray(tokens), jax.numpy.asarray(mask))))
    assert loss[0] > 1.0
    assert loss[1] == 0.0


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ([], "the 0 tokens of row 0 stand for 0 coefficients; expected 660, those of 30 steps x 22"),
        ([0] * 661, "stand for 661 coefficients"),
        ([0, 1024], "tokens from 0 to 1024; expected 0 to 1023"),
        ([-1, 5], "tokens from -1 to 5"),
    ],
)
def test_tokens_of_no_chunk_are_refused(tokenizer: FastTokenizer, row: list[int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tokenizer.decode([row])


def test_folders_have_the_published_layout(tokenizer: FastTokenizer, tmp_path: Path) -> None:
    folder = tmp_path / "fast_tokenizer"
    FastTokenizer.train(smooth_chunks(9, 20)).save(folder)
    (folder / "stale").touch()
    tokenizer.save(folder)
    assert [p.name for p in tmp_path.iterdir()] == ["fast_tokenizer"]
    assert {p.name for p in folder.iterdir()} == {"tokenizer.json", "processor_config.json"}
    assert json.loads((folder / "processor_config.json").read_text()) == {
        "action_dim": 22,
        "min_token": tokenizer.min_token,
        "scale": 10.0,
        "time_horizon": 30,
        "vocab_size": 1024,
    }
    loaded = FastTokenizer.load(folder)
    assert loaded == tokenizer
    chunks = smooth_chunks(10, 5)
    assert loaded.encode(chunks) == tokenizer.encode(chunks)


def test_a_published_byte_level_folder_loads_and_keeps_every_chunk(tmp_path: Path) -> None:
    """The published way: byte-level text, regular expression, 2,048 tokens, shape left open, more entries."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    rng = np.random.default_rng(11)
    # characters of -40 to 220 - 40; those from 128 on are two bytes, of which a few were never seen
    texts = ["".join(map(chr, rng.choice(np.arange(10, 180), 660))) for _ in range(20)]
    alphabet = pre_tokenizers.ByteLevel.alphabet()[:200]
    bpe.train_from_iterator(
        texts, trainers.BpeTrainer(vocab_size=400, initial_alphabet=alphabet, show_progress=False)
    )
    bpe.save(str(tmp_path / "tokenizer.json"))
    processor = {
        "action_dim": None,
        "time_horizon": None,
        "auto_map": {"AutoProcessor": "processing_action_tokenizer.UniversalActionProcessor"},
        "processor_class": "UniversalActionProcessor",
        "min_token": -90,
        "scale": 10,
        "vocab_size": 2048,
    }
    (tmp_path / "processor_config.json").write_text(json.dumps(processor))
    (tmp_path / "processing_action_tokenizer.py").write_text("raise RuntimeError")
    loaded = FastTokenizer.load(tmp_path)
    chunks = smooth_chunks(12, 20)
    decoded = loaded.decode(loaded.encode(chunks))
    assert np.sqrt(np.square((decoded - chunks)[..., DIMENSIONS]).mean(axis=1)).max() <= 0.05 + 1e-5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"time_horizon": 50}, "time_horizon is 50; expected 30"),
        ({"action_dim": 32}, "action_dim is 32; expected 22"),
        ({"vocab_size": 256}, "tokens; expected at most the vocab_size 256"),
        ({"min_token": -100_000}, "no token for any coefficient"),
        ({"min_token": None}, "has no entry 'min_token'"),
    ],
)
def test_folders_of_other_tokenizers_are_named(
    tokenizer: FastTokenizer, tmp_path: Path, change: dict[str, int | None], message: str
) -> None:
    tokenizer.save(tmp_path / "fast")
    file = tmp_path / "fast" / "processor_config.json"
    processor = {**json.loads(file.read_text()), **change}
    file.write_text(json.dumps({name: value for name, value in processor.items() if value is not None}))
    with pytest.raises(ValueError, match=message):
        FastTokenizer.load(tmp_path / "fast")


def test_broken_folders_are_named(tokenizer: FastTokenizer, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="cannot read a FAST tokenizer from"):
        FastTokenizer.load(tmp_path)
    tokenizer.save(tmp_path / "fast")
    (tmp_path / "fast" / "tokenizer.json").write_text('{"half')
    with pytest.raises(ValueError, match="not a tokenizer of the library"):
        FastTokenizer.load(tmp_path / "fast")


def test_vocabularies_below_the_alphabet_and_surrogates_are_refused(tokenizer: FastTokenizer) -> None:
    chunks = smooth_chunks(13, 5)
    with pytest.raises(ValueError, match=r"coefficients span \d+ values.*more than 20 tokens"):
        FastTokenizer.train(chunks, vocab_size=20)
    # so fine a scale that characters would be halves of surrogate pairs, which no text may hold
    with pytest.raises(ValueError, match="expected at most 55296"):
        FastTokenizer.train(chunks, vocab_size=10**6, scale=10_000.0)
    with pytest.raises(ValueError, match="no token for any coefficient"):
        dataclasses.replace(tokenizer, min_token=-0xD850)
