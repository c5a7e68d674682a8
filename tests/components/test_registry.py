"""Champions in a model registry: a real MLflow server from the package index, on loopback."""

import dataclasses
import json
import shutil
import socket
import urllib.request

import pytest

from components.errors import PassingError, UserError
from components.evaluation.champion import Champion
from components.evaluation.records import Conditions, Reference, ServedPolicy
from components.evaluation.registry import Registry
from components.store.artifact import Artifact
from pi_behavior.policy.config import PolicyConfig
from pipelines.tools import champion as command


def ask(mlflow, path):
    with urllib.request.urlopen(f"{mlflow}/api/2.0/mlflow/{path}") as answer:
        return json.load(answer)


def versions(mlflow, model):
    return ask(mlflow, f"model-versions/search?filter=name%3D%27{model}%27").get("model_versions", [])


def alias(mlflow, model):
    found = ask(mlflow, f"registered-models/alias?name={model}&alias=champion")
    return found["model_version"]["version"]


@pytest.fixture
def champions(factory):
    """The records of two champions, whose policies are in the workspace."""
    found = []
    for number, seed in enumerate("ab"):
        model = factory.model("common", ("turning_on_radio",), seed=seed)
        served = ServedPolicy(f"../{model.uri}/checkpoint", ("turning_on_radio",), model.uri, model.digest)
        record = Champion(
            conditions=Conditions("2026", "household", 224, true_stage=False),
            leaderboard=Reference(f"artifacts/leaderboard/{seed}", f"sha256:{seed * 64}"),
            checkpoints={"common": served},
            policy=PolicyConfig(),
            action_chunk_size=0,
            validation={},
            # 1/2 and 1 make 0.75, and with the other task's 0.25 a mean of 0.5
            reported={
                "turning_on_radio": {"0_0": 0.5, "1_0": 1.0},
                "picking_up_trash": {"0_0": 0.25 + number / 2},
            },
            promoted=f"2026-01-0{number + 1}T00:00:00+00:00",
            format=4,
        )
        found.append(record)
    return found


@pytest.mark.slow
def test_a_champion_is_registered_once_with_its_lineage_and_scores(mlflow, champions):
    registry, (first, second) = Registry(mlflow, "once"), champions
    for _ in range(2):
        registry.publish(first)
    (version,) = versions(mlflow, "once")
    tags = {one["key"]: one["value"] for one in version["tags"]}
    assert tags["leaderboard_digest"] == first.leaderboard.digest
    assert (tags["q"], tags["q_turning_on_radio"], tags["q_picking_up_trash"]) == (
        "0.5000",
        "0.7500",
        "0.2500",
    )
    assert tags["policy_common"].split() == [
        first.checkpoints["common"].uri,
        first.checkpoints["common"].digest,
    ]
    assert version["source"] == "b1k://artifacts/leaderboard/a"
    registry.publish(second)
    assert (len(versions(mlflow, "once")), alias(mlflow, "once")) == (2, "2")
    registry.publish(first)
    assert (len(versions(mlflow, "once")), alias(mlflow, "once")) == (2, "1")


@pytest.mark.slow
@pytest.mark.parametrize("calls", range(4))
def test_killed_between_any_two_calls(mlflow, champions, monkeypatch, calls):
    """Killed after so many requests, of which the server has done the last one."""
    registry, real, left = Registry(mlflow, f"killed-{calls}"), Registry._call, [calls]

    def call(self, *given, **known):
        if not left[0]:
            raise KeyboardInterrupt
        left[0] -= 1
        return real(self, *given, **known)

    with monkeypatch.context() as patch:
        patch.setattr(Registry, "_call", call)
        with pytest.raises(KeyboardInterrupt):
            registry.publish(champions[0])
    registry.publish(champions[0])
    assert (len(versions(mlflow, registry.model)), alias(mlflow, registry.model)) == (1, "1")


@pytest.mark.slow
def test_roll_back_moves_file_and_alias(mlflow, champions, factory, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    registry, (first, second), folder = Registry(mlflow, "back"), champions, factory.workspace / "champion"
    first.replace(None, folder)
    second.replace(first, folder)
    registry.publish(second)
    back = command.Rollback(to=1, by="A. Person", why="it drops cups", folder=folder, registry=registry)
    for _ in range(2):  # the second time it finds the work done
        assert command.run(back) == 0
    now = Champion.load(folder)
    assert (now.leaderboard, now.forced.by, now.forced.why) == (
        first.leaderboard,
        "A. Person",
        "it drops cups",
    )
    assert Champion.former(folder) == [first, second]
    assert (len(versions(mlflow, "back")), alias(mlflow, "back")) == (2, "2")
    assert "A. Person: it drops cups" in capsys.readouterr().out


def test_list_and_refusals(champions, factory, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    (first, second), folder = champions, factory.workspace / "champion"
    with pytest.raises(UserError, match="there is no champion in"):
        command.run(command.List(folder))
    first.replace(None, folder)
    second.replace(first, folder)
    assert command.run(command.List(folder)) == 0
    words = capsys.readouterr().out.split()
    assert [words[words.index(f"artifacts/leaderboard/{name}") - 4] for name in "ab"] == ["0.500", "0.750"]
    back = command.Rollback(to=3, by="A. Person", why="why", folder=folder)
    with pytest.raises(UserError, match="--to 3: expected 1 to 2"):
        command.run(back)
    with pytest.raises(UserError, match="expected who decides and why"):
        command.run(dataclasses.replace(back, to=1, why=" "))
    shutil.rmtree(Artifact.load(factory.workspace / first.checkpoints["common"].uri).path)
    with pytest.raises(UserError, match="is not there any more, or of other weights"):
        command.run(dataclasses.replace(back, to=1))
    assert Champion.load(folder) == second


def test_a_server_that_does_not_answer_is_tried_again(champions):
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"http://127.0.0.1:{free.getsockname()[1]}"
    with pytest.raises(PassingError, match="cannot be reached"):
        Registry(address).publish(champions[0])
    with pytest.raises(ValueError, match="expected an address that begins with https"):
        Registry("mlflow.example.org")
    Registry().publish(champions[0])
