"""Published checkpoints, written by Orbax as training runs write them: import, export, mistakes."""

import contextlib
import dataclasses
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import ml_dtypes
import numpy as np
import orbax.checkpoint as ocp
import pytest
from flax import nnx, traverse_util

from pi_behavior import checkpoint
from pi_behavior.checkpoint_description import CheckpointError, read_config
from pi_behavior.config import ModelConfig, VisionConfig
from pi_behavior.correlation import correlation_matrix
from pi_behavior.fast import FastTokenizer
from pi_behavior.network import PiBehavior
from pi_behavior.policy.config import PolicyConfig
from pi_behavior.policy.interface import NoiseId, Request
from pi_behavior.policy.predictor import JaxPredictor
from pi_behavior.published_exchange import export_published, import_published, open_tensors
from pi_behavior.published_layout import BASE_NAMES, NAMES, infer_config, published_shapes
from pi_behavior.statistics import Statistics
from pi_behavior.tensors import flat_parameters
from pi_behavior.training.config import TrainConfig
from pi_behavior.training.sharding import make_mesh
from pi_behavior.training.state import create_state

GOLDEN = Path(__file__).parents[1] / "golden"
MICRO = ModelConfig(
    vision=VisionConfig(image_size=28, patch=14, width=16, depth=3, heads=2, mlp=24),
    width=32,
    mlp=40,
    depth=2,
    heads=4,
    kv_heads=2,
    head_dim=10,
    expert_width=20,
    expert_mlp=36,
    vocabulary=256,
    fast_vocabulary=300,
)


def published_facts(name: str) -> dict[str, tuple[int, ...]]:
    document = json.loads((GOLDEN / f"checkpoint-{name}.json").read_text())
    return {tensor: tuple(shape) for tensor, shape in document.items()}


def random_tensors(names=NAMES) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(5)
    shapes = published_shapes(MICRO)
    return {n: (rng.normal(size=shapes[n]) * 0.1).astype(np.float32) for n in sorted(names.values())}


def statistics() -> Statistics:
    rng = np.random.default_rng(3)

    def vector(low, high, *shape):
        return rng.uniform(low, high, shape or (23,)).astype(np.float32)

    mixing = rng.normal(size=(690, 690)) * 0.03 + np.eye(690)
    cholesky = np.linalg.cholesky(correlation_matrix(mixing @ mixing.T, np.ones(690)))
    chunks = np.cumsum(rng.normal(size=(50, 30, 23)) * 0.05, axis=1).clip(-1, 1)
    return Statistics(
        **{f"{kind}_mean": vector(-1, 1) for kind in ("state", "action")},
        **{f"{kind}_std": vector(0.5, 1) for kind in ("state", "action")},
        **{f"{kind}_q01": vector(-2, -1) for kind in ("state", "action")},
        **{f"{kind}_q99": vector(1, 2) for kind in ("state", "action")},
        action_step_mean=vector(-1, 1, 30, 23),
        action_step_std=vector(0.5, 1, 30, 23),
        action_step_q01=vector(-2, -1, 30, 23),
        action_step_q99=vector(1, 2, 30, 23),
        correlation_cholesky=cholesky.astype(np.float32),
        fast=FastTokenizer.train(chunks.astype(np.float32), vocab_size=300),
    )


STATISTICS = statistics()


def write_published(
    folder: Path, tensors, *, wrapped: bool = False, dtype=np.float32, asset: str = "maker/demos"
) -> Path:
    """A checkpoint as openpi's training writes it."""
    flat = {
        (*name.split("/"), "value") if wrapped else tuple(name.split("/")): np.asarray(tensor, dtype)
        for name, tensor in tensors.items()
    }
    with ocp.PyTreeCheckpointer() as checkpointer:
        checkpointer.save(folder / "params", {"params": traverse_util.unflatten_dict(flat)})
    if asset:
        STATISTICS.save(folder / "assets" / asset)
        # published statistics have nothing but this entry
        file = folder / "assets" / asset / "norm_stats.json"
        file.write_text(json.dumps({"norm_stats": json.loads(file.read_text())["norm_stats"]}))
        (folder / "train_state").mkdir()
    return folder


def parameters(folder: Path) -> dict[str, np.ndarray]:
    with ocp.StandardCheckpointer() as checkpointer:
        return {k: np.asarray(v) for k, v in checkpointer.restore(folder.absolute() / "params").items()}


def same_statistics(one: Statistics, other: Statistics) -> bool:
    return all(
        np.array_equal(getattr(one, f.name), getattr(other, f.name))
        if isinstance(getattr(one, f.name), np.ndarray)
        else getattr(one, f.name) == getattr(other, f.name)
        for f in dataclasses.fields(Statistics)
    )


def test_full_size_has_the_published_names_and_shapes() -> None:
    facts = published_facts("pi_behavior")
    assert published_shapes(ModelConfig()) == facts
    assert len(facts) == 74
    assert infer_config(facts) == ModelConfig()


def test_the_base_has_51_of_them() -> None:
    facts = published_facts("pi05_base")
    assert len(facts) == 51
    shapes = published_shapes(ModelConfig())
    assert {name: shapes[name] for name in BASE_NAMES.values()} == facts
    assert infer_config(facts) == ModelConfig()


def test_sizes_follow_from_shapes_also_without_any_one_tensor() -> None:
    shapes = published_shapes(MICRO)
    assert infer_config(shapes) == MICRO
    only_one = {"PaliGemma/llm/embedder/input_embedding", "PaliGemma/img/pos_embedding"}
    for missing in shapes.keys() - only_one - {"PaliGemma/img/embedding/kernel"}:
        assert infer_config({k: v for k, v in shapes.items() if k != missing}) == MICRO, missing


@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize("dtype", [np.float32, ml_dtypes.bfloat16])
def test_a_policy_is_imported_whole(tmp_path: Path, wrapped: bool, dtype) -> None:
    tensors = random_tensors()
    source = write_published(tmp_path / "source", tensors, wrapped=wrapped, dtype=dtype)
    seen: list[tuple[int, int]] = []
    made = import_published(source, tmp_path / "out", on_tensor=lambda *now: seen.append(now))
    assert (made.kind, made.config, made.initialised) == ("policy", MICRO, {})
    assert seen[-1] == (74, 74)
    ours = parameters(tmp_path / "out")
    for path, name in NAMES.items():
        np.testing.assert_array_equal(ours[path], tensors[name].astype(dtype).astype(np.float32))
        assert ours[path].dtype == np.float32
    assert same_statistics(checkpoint.read_statistics(tmp_path / "out"), STATISTICS)
    assert read_config(tmp_path / "out") == (MICRO, 0)


def test_an_imported_policy_is_served(tmp_path: Path) -> None:
    source = write_published(tmp_path / "source", random_tensors())
    import_published(source / "params", tmp_path / "out")
    predictor = JaxPredictor.load(tmp_path / "out", PolicyConfig(num_steps=2), [1])
    rng = np.random.default_rng(0)
    images = {c: rng.integers(0, 255, (28, 28, 3), np.uint8) for c in ("head", "left_wrist", "right_wrist")}
    state = rng.normal(size=23).astype(np.float32)
    (answer,) = predictor.predict(
        [Request(images, state, task=3, stage=1, saved=None, noise=NoiseId(0, 0, 0))]
    )
    assert answer.chunk.shape == (30, 23)
    assert np.isfinite(answer.chunk).all()


def test_export_and_import_give_the_same_bits(tmp_path: Path) -> None:
    source = write_published(tmp_path / "source", random_tensors())
    import_published(source, tmp_path / "ours")
    export_published(tmp_path / "ours", tmp_path / "published", asset_id="a/b")
    import_published(tmp_path / "published", tmp_path / "again")
    first, second = parameters(tmp_path / "ours"), parameters(tmp_path / "again")
    assert first.keys() == second.keys()
    for name, array in first.items():
        np.testing.assert_array_equal(second[name], array)
    assert same_statistics(checkpoint.read_statistics(tmp_path / "again"), STATISTICS)


def test_published_readers_read_an_export(tmp_path: Path) -> None:
    tensors = random_tensors()
    import_published(write_published(tmp_path / "source", tensors), tmp_path / "ours")
    export_published(tmp_path / "ours", tmp_path / "published", asset_id="a/b")
    with ocp.PyTreeCheckpointer() as checkpointer:
        tree = checkpointer.restore(tmp_path / "published" / "params")["params"]
    flat = {"/".join(path): array for path, array in traverse_util.flatten_dict(tree).items()}
    assert flat.keys() == tensors.keys()
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(flat[name], tensor)
    assets = tmp_path / "published" / "assets" / "a" / "b"
    assert json.loads((assets / "norm_stats.json").read_text())["norm_stats"].keys() == {"state", "actions"}
    assert (assets / "fast_tokenizer" / "processor_config.json").is_file()


def test_the_base_gets_new_parameters_as_training_makes_them(tmp_path: Path) -> None:
    tensors = random_tensors(BASE_NAMES)
    # assets of other robots do not matter
    source = write_published(tmp_path / "source", tensors)
    (source / "assets" / "maker" / "demos" / "norm_stats.json").write_text("{}")
    made = import_published(source, tmp_path / "out", seed=7)
    # defaults where the base has no size, and 1024 FAST tokens
    config = dataclasses.replace(MICRO, fast_vocabulary=1024)
    assert (made.kind, made.config) == ("base", config)
    assert made.initialised.keys() == NAMES.keys() - BASE_NAMES.keys()
    assert len(made.initialised) == 23
    assert made.initialised["task_embeddings"] == (50, 32)
    ours = parameters(tmp_path / "out")
    for path, name in BASE_NAMES.items():
        np.testing.assert_array_equal(ours[path], tensors[name])
    state = create_state(config, TrainConfig(seed=7), make_mesh(1, jax.devices()[:1]))[1]
    fresh = flat_parameters(state.parameters)
    for path in made.initialised:
        np.testing.assert_allclose(ours[path], fresh[path], rtol=1e-5, atol=1e-7, err_msg=path)
    assert np.ptp(ours["task_embeddings"]) > 0
    with pytest.raises(CheckpointError, match=r"has no statistics/: .*Train it first"):
        checkpoint.load(tmp_path / "out")
    with pytest.raises(CheckpointError, match=r"has no statistics/"):
        export_published(tmp_path / "out", tmp_path / "published")
    target = nnx.split(nnx.eval_shape(lambda: PiBehavior(config, nnx.Rngs(0))))[1]
    checkpoint.restore_parameters(tmp_path / "out", target)
    np.testing.assert_array_equal(flat_parameters(target)["time_in.bias"], ours["time_in.bias"])


def test_all_differences_are_in_one_error(tmp_path: Path) -> None:
    tensors = random_tensors()
    query = "PaliGemma/llm/layers/attn/q_einsum/w"
    del tensors["gate_task/kernel"], tensors["PaliGemma/img/pos_embedding"]
    tensors[query] = tensors[query][..., 0]  # another rank, where sizes come from
    tensors["action_in_proj/bias"] = np.zeros(5, np.float32)
    tensors["stranger/kernel"] = np.zeros((2, 3), np.float32)
    source = write_published(tmp_path / "source", tensors)
    with pytest.raises(CheckpointError) as error:
        import_published(source, tmp_path / "out")
    assert str(error.value).splitlines()[1:] == [
        f"  {query} has the shape (2, 4, 32), expected (2, 4, 32, 10)",
        "  action_in_proj/bias has the shape (5,), expected (20,)",
        "  missing PaliGemma/img/pos_embedding",
        "  missing gate_task/kernel",
        "  unknown stranger/kernel",
    ]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["source"]


def test_no_wrong_tensor_ends_in_a_traceback() -> None:
    shapes = published_shapes(MICRO)
    for name, shape in shapes.items():
        for wrong in ((), (0, *shape[1:]), (*shape, 1), tuple(n + 1 for n in shape)):
            with contextlib.suppress(CheckpointError):  # anything else is a defect
                infer_config({**shapes, name: wrong})
    name = "PaliGemma/llm/layers/attn/kv_einsum/w"
    for wrong in ((), (2, 0, 2, 32, 10), (2, 2, 2, 32, 10, 1), (3, 3, 3, 33, 11)):
        assert infer_config({**shapes, name: wrong}) == MICRO
    heads = {n: (*s[:-2], 5, s[-1]) if s[-2:] == (2, 8) else s for n, s in shapes.items()}
    query = "PaliGemma/img/Transformer/encoderblock/MultiHeadDotProductAttention_0/query/kernel"
    assert heads[query] == (3, 16, 5, 8)
    with pytest.raises(CheckpointError, match="do not fit each other: width is 16; expected a mul"):
        infer_config({n: s for n, s in heads.items() if "/out/" not in n})


def test_mistakes_say_what_to_do(tmp_path: Path) -> None:
    source = write_published(tmp_path / "source", random_tensors())

    def refused(message: str, folder: Path, out: Path = tmp_path / "out", **options: str) -> None:
        with pytest.raises(CheckpointError, match=message):
            import_published(folder, out, **options)
        assert not (tmp_path / "out").exists()

    refused("nowhere is not a folder", tmp_path / "nowhere")
    (tmp_path / "taken").mkdir()
    refused("taken is there already", source, tmp_path / "taken")
    refused("taken holds no arrays", tmp_path / "taken")
    STATISTICS.save(source / "assets" / "other")
    refused("statistics of maker/demos, other; give one of them", source)
    refused("not 'third'", source, asset_id="third")
    shutil.rmtree(source / "assets")
    refused(r"assets has no <asset id>/norm_stats.json", source)
    STATISTICS.save(source / "assets" / "other")
    (source / "assets" / "other" / "norm_stats.json").write_text('{"norm_stats": {}}')
    refused("has no entry 'state'", source)


@pytest.mark.parametrize("damage", ["data", "manifest", "metadata", "truncated"])
def test_a_damaged_folder_is_named(tmp_path: Path, damage: str) -> None:
    source = write_published(tmp_path / "source", random_tensors())
    params = source / "params"
    if damage == "manifest":
        (params / "manifest.ocdbt").unlink()
    elif damage == "metadata":
        (params / "_METADATA").write_text("{")
    for file in [f for f in params.rglob("*") if f.is_file() and f.parent.name == "d"]:
        if damage == "data":
            file.unlink()
        elif damage == "truncated":
            file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    # in a process of its own: reads that TensorStore gives up on complain later, in whatever test runs then
    command = [sys.executable, "-m", "pipelines.cli", "checkpoint", "import", str(source)]
    answer = subprocess.run([*command, str(tmp_path / "out")], capture_output=True, text=True, check=False)
    assert answer.returncode == 2, answer.stderr
    assert re.search(f"{re.escape(str(params))}.*(cannot be read|lacks|no arrays)", answer.stderr)
    assert not (tmp_path / "out").exists()


def test_only_published_networks_are_exported(tmp_path: Path) -> None:
    config = ModelConfig.presets["tiny"]
    shapes = flat_parameters(nnx.split(nnx.eval_shape(lambda: PiBehavior(config, nnx.Rngs(0))))[1])
    zeros = {path: np.zeros(leaf.shape, np.float32) for path, leaf in shapes.items()}
    checkpoint.save(tmp_path / "tiny", zeros, config=config, statistics=STATISTICS, step=1)
    with pytest.raises(CheckpointError) as error:
        export_published(tmp_path / "tiny", tmp_path / "out")
    for part in (
        "parameter state_projection.kernel has no published name",
        "there is no parameter for fast_token_proj/kernel",
        "prediction is 'clean'; published is 'velocity'",
        "steps_per_token is 5; published is 1",
    ):
        assert part in str(error.value)
    with pytest.raises(CheckpointError, match=r"asset id is '\.\./x'"):
        export_published(tmp_path / "tiny", tmp_path / "out", asset_id="../x")
    assert not (tmp_path / "out").exists()


def test_metadata_is_read_without_arrays(tmp_path: Path) -> None:
    source = write_published(tmp_path / "source", random_tensors(), wrapped=True, dtype=ml_dtypes.bfloat16)
    found = open_tensors(source).metadata
    assert {name: tuple(leaf.shape) for name, leaf in found.items()} == published_shapes(MICRO)
    assert {np.dtype(leaf.dtype) for leaf in found.values()} == {np.dtype(ml_dtypes.bfloat16)}


def test_a_policy_of_50_tasks_becomes_one_of_100(tmp_path):
    tensors = random_tensors()
    source = write_published(tmp_path / "published", tensors)
    made = import_published(source, tmp_path / "ours", seed=4, edition="2026")
    assert (made.config.tasks, sum(made.config.stage_counts), made.initialised) == (100, 1120, {})
    assert made.extended == {"task_embeddings": (50, 100), "stage_fusion.stage_embeddings": (596, 1120)}
    assert read_config(tmp_path / "ours")[0] == made.config
    ours = parameters(tmp_path / "ours")
    for path, name in NAMES.items():
        known = made.extended.get(path, (len(tensors[name]),))[0]
        np.testing.assert_array_equal(ours[path][:known], tensors[name], path)
    for path, (start, stop) in made.extended.items():
        new = ours[path][start:]
        assert len(ours[path]) == stop
        assert 0.5 < new.std() * np.sqrt(new.shape[-1]) < 2, "as a new network has them"
    # out and in again: the number of tasks tells the edition
    export_published(tmp_path / "ours", tmp_path / "again")
    back = import_published(tmp_path / "again", tmp_path / "back")
    assert (back.config, back.extended) == (made.config, {})
    with pytest.raises(CheckpointError, match="knows 100 tasks"):
        import_published(tmp_path / "again", tmp_path / "less", edition="2025")


def test_base_for_100_tasks(tmp_path):
    source = write_published(tmp_path / "base", random_tensors(BASE_NAMES), asset="")
    made = import_published(source, tmp_path / "ours", edition="2026")
    assert made.initialised["task_embeddings"] == (100, 32)
    assert made.extended == {}
