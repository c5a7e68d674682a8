"""Profiles compile to what the cluster needs; nothing here talks to one."""

import difflib
import importlib.util
from pathlib import Path
from typing import Any

import pytest
import yaml
from kubernetes.utils import parse_quantity

from components.errors import UserError
from components.settings.checks import Arguments
from components.settings.sections import inputs
from pipelines.definitions.choosing import choose
from pipelines.definitions.compiling import BUILDERS, compile_pipeline
from pipelines.definitions.profiles import PROFILES, load_profile
from pipelines.definitions.profiles.cluster import RTX_PRODUCTS
from pipelines.definitions.profiles.profile import Profile
from pipelines.tree import Tree

REGISTRY = "registry.example.org/robots"
ALL = [(pipe, profile) for pipe in BUILDERS for profile in PROFILES if load_profile(profile).runs(pipe)]
OF_PROFILE = {profile: [pipe for pipe, one in ALL if one == profile] for profile in PROFILES}
STAGE_NODES = [
    "settings",
    "dataset",
    "prepare",
    "statistics",
    "train_common",
    "plan_validation",
    "evaluate_common",
    "group",
    "train_groups",
    "plan_reported",
    "evaluate_groups",
    "leaderboard",
    "trial",
    "confirm",
    "promote",
]


def _tasks(spec: dict[str, Any]) -> dict[str, Any]:
    """The tasks of a pipeline; on a cluster they lie inside its exit handler."""
    tasks: dict[str, Any] = spec["root"]["dag"]["tasks"]
    return spec["components"]["comp-exit-handler-1"]["dag"]["tasks"] if "exit-handler-1" in tasks else tasks


class Compiled:
    """A compiled pipeline by parts."""

    def __init__(self, folder: Path, pipeline: str, profile: str) -> None:
        self.path = folder / f"{pipeline}-{profile}.yaml"
        self.spec: dict[str, Any] = compile_pipeline(pipeline, profile, self.path, registry=REGISTRY)
        documents = list(yaml.safe_load_all(self.path.read_text()))
        platform = documents[1]["platforms"]["kubernetes"] if len(documents) > 1 else {}
        self.kubernetes: dict[str, Any] = platform.get("deploymentSpec", {}).get("executors", {})
        self.executors: dict[str, Any] = self.spec["deploymentSpec"]["executors"]

    def of_stage(self, stage: str) -> list[tuple[dict[str, Any], dict[str, Any]]]:
        """Container and Kubernetes settings of every use of a stage."""
        command = ["python3", "-m", f"components.{stage}"]
        return [
            (executor["container"], self.kubernetes.get(name, {}))
            for name, executor in self.executors.items()
            if executor.get("container", {}).get("command") == command
        ]

    def defaults(self) -> dict[str, Any]:
        """Default values of the pipeline's inputs."""
        inputs = self.spec["root"]["inputDefinitions"]["parameters"]
        return {name: given.get("defaultValue") for name, given in inputs.items()}


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], Compiled]:
    folder = tmp_path_factory.mktemp("compiled")
    return {one: Compiled(folder, *one) for one in ALL}


@pytest.fixture(scope="module")
def h200x8(compiled: dict[tuple[str, str], Compiled]) -> Compiled:
    return compiled["train_and_evaluate", "h200x8"]


def _pvcs(kubernetes: dict[str, Any]) -> dict[str, str]:
    return {mount["mountPath"]: mount["constant"] for mount in kubernetes["pvcMount"]}


def test_training_gets_a_node_of_eight_h200(h200x8: Compiled) -> None:
    uses = h200x8.of_stage("train")
    assert len(uses) == 2
    for container, kubernetes in uses:
        accelerator = container["resources"]["accelerator"]
        assert (accelerator["resourceType"], accelerator["resourceCount"]) == ("nvidia.com/gpu", "8")
        assert container["image"].startswith(f"{REGISTRY}/trainer:")
        assert kubernetes["nodeSelector"]["labels"] == {"nvidia.com/gpu.product": "NVIDIA-H200"}
        assert kubernetes["tolerations"][0]["key"] == "nvidia.com/gpu"
        (memory,) = kubernetes["emptyDirMounts"]
        assert (memory["mountPath"], memory["medium"]) == ("/dev/shm", "Memory")
        assert kubernetes["secretAsEnv"][0]["secretName"] == "b1k-wandb"
        assert _pvcs(kubernetes) == {"/workspace": "b1k-workspace"}


def test_evaluation_gets_nodes_with_ray_tracing(h200x8: Compiled) -> None:
    uses = h200x8.of_stage("evaluate")
    assert len(uses) == 3
    for container, kubernetes in uses:
        assert container["resources"]["accelerator"]["resourceCount"] == "1"
        assert container["image"].startswith(f"{REGISTRY}/evaluator:")
        (rule,) = kubernetes["nodeAffinity"][0]["matchExpressions"]
        assert (rule["key"], rule["operator"]) == ("nvidia.com/gpu.product", "In")
        assert rule["values"] == list(RTX_PRODUCTS)
        assert not any("H200" in product for product in rule["values"])
        assert _pvcs(kubernetes) == {"/workspace": "b1k-workspace", "/dataset": "b1k-dataset"}


def test_cpu_stages_ask_for_no_gpu_and_see_the_workspace(h200x8: Compiled) -> None:
    for stage in ("settings", "dataset", "statistics", "plan", "group", "leaderboard", "trial", "promote"):
        for container, kubernetes in h200x8.of_stage(stage):
            assert "accelerator" not in container["resources"]
            assert container["image"].startswith(f"{REGISTRY}/toolbox:")
            assert _pvcs(kubernetes)["/workspace"] == "b1k-workspace"


def test_the_dataset_stage_has_the_data_and_its_keys(h200x8: Compiled) -> None:
    ((_, kubernetes),) = h200x8.of_stage("dataset")
    assert _pvcs(kubernetes)["/dataset"] == "b1k-dataset"
    secret = kubernetes["secretAsEnv"][0]
    assert secret["secretName"] == "b1k-s3"
    assert {key["envVar"] for key in secret["keyToEnv"]} == {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"}


def test_a_lost_pod_is_replaced_for_as_long_as_all_its_pods_may_run(h200x8: Compiled) -> None:
    def walk(component: dict[str, Any]) -> list[dict[str, Any]]:
        tasks = []
        for task in component["dag"]["tasks"].values():
            inner = h200x8.spec["components"][task["componentRef"]["name"]]
            tasks += walk(inner) if "dag" in inner else [task]
        return tasks

    tasks = walk(h200x8.spec["root"])
    assert len(tasks) == len(STAGE_NODES) + 1
    for task in tasks:
        policy = task["retryPolicy"]
        executor = h200x8.spec["components"][task["componentRef"]["name"]]["executorLabel"]
        seconds = int(h200x8.kubernetes[executor]["activeDeadlineSeconds"])
        assert seconds > 0
        assert policy["maxRetryCount"] >= 2
        assert policy["backoffFactor"] > 1
        assert policy["backoffMaxDuration"] == f"{(policy['maxRetryCount'] + 1) * seconds}s"
        assert not task.get("cachingOptions", {}).get("enableCache", False)


@pytest.mark.parametrize("profile", PROFILES)
def test_pods_of_a_cluster_run_as_our_user_and_start_a_stage_again(
    compiled: dict[tuple[str, str], Compiled], profile: str
) -> None:
    for pipeline in OF_PROFILE[profile]:
        one = compiled[pipeline, profile]
        if load_profile(profile).is_local:
            assert one.kubernetes == {}
            assert all("env" not in executor["container"] for executor in one.executors.values())
            continue
        for name, executor in one.executors.items():
            settings = one.kubernetes[name]
            user = {"runAsUser": "10001", "runAsGroup": "10001", "runAsNonRoot": True}
            assert settings["securityContext"] == user
            assert settings["imagePullSecret"][0]["secretName"] == "b1k-registry"
            variables = {one["name"]: one["value"] for one in executor["container"]["env"]}
            assert int(variables["B1K_ATTEMPTS"]) > 1


def test_no_secret_value_is_in_the_file(h200x8: Compiled) -> None:
    text = h200x8.path.read_text()
    assert "secretName: b1k-s3" in text
    assert "stringData" not in text


@pytest.mark.parametrize("profile", PROFILES)
def test_every_input_is_described_and_has_a_default(
    compiled: dict[tuple[str, str], Compiled], profile: str
) -> None:
    for pipeline in OF_PROFILE[profile]:
        inputs = compiled[pipeline, profile].spec["root"]["inputDefinitions"]["parameters"]
        for name, given in inputs.items():
            assert given.get("description"), f"{pipeline}: {name}"
            assert "defaultValue" in given or name == "policy", f"{pipeline}: {name}"


@pytest.mark.parametrize("profile", PROFILES)
def test_a_profiles_values_reach_the_ir(compiled: dict[tuple[str, str], Compiled], profile: str) -> None:
    for pipeline in OF_PROFILE[profile]:
        one, values = compiled[pipeline, profile], load_profile(profile).of(pipeline)
        assert values.inputs.items() <= one.defaults().items()
        check = _tasks(one.spec)["settings"]["inputs"]["parameters"]
        assert check["profile"]["runtimeValue"]["constant"] == values.settings


@pytest.mark.parametrize("profile", PROFILES)
def test_closed_choices_are_drop_downs_and_settings_have_a_json_editor(
    compiled: dict[tuple[str, str], Compiled], profile: str
) -> None:
    for pipeline in OF_PROFILE[profile]:
        given = compiled[pipeline, profile].spec["root"]["inputDefinitions"]["parameters"]
        assert len(given) <= 16
        assert given["settings"]["parameterType"] == "STRUCT"
        assert given["evaluator"]["literals"] == ["household", "omnigibson"]
        assert given["edition"]["literals"] == ["2025", "2026"]
        assert ("literals" in given.get("model", {})) == (pipeline != "evaluate")


def test_values_are_checked_before_anything_else_runs(compiled: dict[tuple[str, str], Compiled]) -> None:
    for pipeline in OF_PROFILE["h200x8"]:
        tasks = _tasks(compiled[pipeline, "h200x8"].spec)
        first = [name for name, task in tasks.items() if not task.get("dependentTasks")]
        assert first == ["settings"]
        given = tasks["settings"]["inputs"]["parameters"]
        assert given["train_gpus"]["runtimeValue"]["constant"] == 8.0
        assert {*inputs(pipeline), "settings"} <= given.keys()


def test_run_and_task_are_named_by_inputs_and_never_in_arguments(
    compiled: dict[tuple[str, str], Compiled],
) -> None:
    for one in compiled.values():
        assert not any("importer" in executor for executor in one.executors.values())
        for executor in one.executors.values():
            assert "pipeline_" not in " ".join(executor["container"]["args"])
        given = _tasks(one.spec)["settings"]["inputs"]["parameters"]
        assert given["run_id"]["runtimeValue"]["constant"] == "{{$.pipeline_job_uuid}}"
        assert given["task_id"]["runtimeValue"]["constant"] == "{{$.pipeline_task_uuid}}"


def test_nodes_have_names_for_people_in_the_order_of_the_pipeline(h200x8: Compiled) -> None:
    assert [node.name for node in Tree(h200x8.spec).nodes.values()] == [*STAGE_NODES, "notify"]


def test_evaluation_takes_a_policy_by_its_folder(compiled: dict[tuple[str, str], Compiled]) -> None:
    spec = compiled["evaluate", "h200x8"].spec
    names = ["settings", "plan", "evaluate", "leaderboard", "trial", "confirm", "promote", "notify"]
    assert [node.name for node in Tree(spec).nodes.values()] == names
    given = _tasks(spec)["plan"]["inputs"]["parameters"]
    assert given["trained"] == {"componentInputParameter": "pipelinechannel--policy"}


def test_retraining_looks_for_news_and_does_nothing_else_without(
    compiled: dict[tuple[str, str], Compiled],
) -> None:
    retrain = compiled["retrain", "h200x8"]
    assert [node.name for node in Tree(retrain.spec).nodes.values()] == [
        *("settings", "news"),
        *STAGE_NODES[1:],
        "notify",
    ]
    tasks = _tasks(retrain.spec)
    assert tasks.keys() == {"settings", "news", "condition-2"}
    policy = tasks["condition-2"]["triggerPolicy"]
    assert policy == {"condition": "inputs.parameter_values['pipelinechannel--news-Output'] == 'yes'"}
    ((container, kubernetes),) = retrain.of_stage("news")
    assert "accelerator" not in container["resources"]
    assert _pvcs(kubernetes) == {"/workspace": "b1k-workspace", "/dataset": "b1k-dataset"}
    assert kubernetes["secretAsEnv"][0]["secretName"] == "b1k-s3"


def test_retraining_trains_on_the_new_version_from_what_the_news_say(
    compiled: dict[tuple[str, str], Compiled],
) -> None:
    spec = compiled["retrain", "h200x8"].spec
    outer = spec["components"]["comp-condition-2"]["dag"]["tasks"]["train-and-evaluate"]["inputs"][
        "parameters"
    ]
    assert outer["revision"] == {"componentInputParameter": "pipelinechannel--news-commit"}
    assert outer["initial_checkpoint"] == {"componentInputParameter": "pipelinechannel--news-checkpoint"}
    tasks = spec["components"]["comp-train-and-evaluate"]["dag"]["tasks"]
    for task, name in (("dataset", "revision"), ("train", "initial_checkpoint")):
        given = tasks[task]["inputs"]["parameters"][name]
        assert given == {"componentInputParameter": name}


def test_retraining_has_values_of_its_own(compiled: dict[tuple[str, str], Compiled]) -> None:
    retrain, whole = (compiled[name, "h200x8"].defaults() for name in ("retrain", "train_and_evaluate"))
    assert retrain.keys() == whole.keys()
    assert retrain["steps"] < whole["steps"]


def _golden() -> Any:
    spec = importlib.util.spec_from_file_location("golden_ir", Path(__file__).parent / "golden_ir.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


golden = _golden()


@pytest.mark.parametrize(("pipeline", "profile"), golden.CASES)
def test_the_ir_is_the_recorded_one(pipeline: str, profile: str) -> None:
    path = golden.place(pipeline, profile)
    recorded, now = path.read_text().splitlines(), golden.render(pipeline, profile).splitlines()
    changes = "\n".join(difflib.unified_diff(recorded, now, str(path.name), "compiled now", lineterm=""))
    assert not changes, f"the IR has changed; if it should, run: {golden.COMMAND}\n{changes}"


def test_given_values_become_defaults_of_the_file(tmp_path: Path) -> None:
    given = choose("evaluate", "laptop", [("workers=3",), ("team=We", "execute=9")], complete=False)
    spec = compile_pipeline("evaluate", "laptop", tmp_path / "p.yaml", given=given)
    inputs_ = spec["root"]["inputDefinitions"]["parameters"]
    assert inputs_["workers"]["defaultValue"] == 3.0
    settings = {"leaderboard": {"team": "We"}, "plan": {"policy": {"execute": 9.0}}}
    assert inputs_["settings"]["defaultValue"] == settings


def test_unknown_names_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="expected one of laptop"):
        compile_pipeline("train_and_evaluate", "h100", tmp_path / "p.yaml")
    with pytest.raises(UserError, match="expected one of train_and_evaluate"):
        compile_pipeline("retrian", "laptop", tmp_path / "p.yaml")


def test_a_demo_collects_first_and_needs_little_of_a_cluster(
    compiled: dict[tuple[str, str], Compiled],
) -> None:
    demo = compiled["demo", "cluster_small"]
    assert [node.name for node in Tree(demo.spec).nodes.values()] == [
        *("settings", "collect"),
        *STAGE_NODES[1:],
        "notify",
    ]
    given = _tasks(demo.spec)["dataset"]["inputs"]["parameters"]
    assert given["revision"]["taskOutputParameter"] == {
        "outputParameterKey": "commit",
        "producerTask": "collect",
    }
    assert "revision" not in demo.defaults()
    assert demo.defaults()["repository"] == "/dataset/demonstrations"
    images = {executor["container"]["image"].partition(":")[0] for executor in demo.executors.values()}
    assert images == {f"{REGISTRY}/household"}
    secrets = [one["secretAsEnv"] for one in demo.kubernetes.values()]
    assert all(one["optional"] for given in secrets for one in given)
    assert all(given[-1]["secretName"] == "b1k-signing" for given in secrets)
    assert [one["secretName"] for given in secrets for one in given[:-1]] == ["b1k-webhook"]
    profile = load_profile("cluster_small")
    at_once = {"evaluate": profile.evaluations, "train": profile.trainings}
    for stage, step in profile.steps.items():
        pods = at_once.get(stage, 1)
        assert step.gpus == 0
        assert pods * parse_quantity(step.cpu) <= 4
        assert pods * parse_quantity(step.memory) <= parse_quantity("16Gi")


def test_the_last_task_of_a_run_on_a_cluster_tells_how_the_others_ended(
    compiled: dict[tuple[str, str], Compiled],
) -> None:
    for (_, profile), one in compiled.items():
        tasks = one.spec["root"]["dag"]["tasks"]
        if load_profile(profile).is_local:
            assert "notify" not in tasks
            continue
        assert tasks.keys() == {"exit-handler-1", "notify"}
        given = tasks["notify"]["inputs"]["parameters"]
        assert given["status"] == {"taskFinalStatus": {"producerTask": "exit-handler-1"}}
        assert given["run_id"]["runtimeValue"]["constant"] == "{{$.pipeline_job_uuid}}"
        assert tasks["notify"]["triggerPolicy"]["strategy"] == "ALL_UPSTREAM_TASKS_COMPLETED"
        ((_, kubernetes),) = one.of_stage("notify")
        secret, _ = kubernetes["secretAsEnv"]
        assert secret["keyToEnv"] == [{"envVar": "B1K_WEBHOOK_URL", "secretKey": "B1K_WEBHOOK_URL"}]


def test_a_pipeline_is_compiled_for_profiles_that_have_all_its_steps(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="lacks stages of the pipeline demo; expected laptop, smoke, cluster"):
        compile_pipeline("demo", "h200x8", tmp_path / "p.yaml")


def test_pods_with_gpus_carry_the_label_of_the_queue_that_admits_them(tmp_path: Path) -> None:
    path = tmp_path / "p.yaml"
    spec = compile_pipeline("train_and_evaluate", "h200x8", path, queue="b1k-gpus")
    pods = list(yaml.safe_load_all(path.read_text()))[1]["platforms"]["kubernetes"]["deploymentSpec"]
    waiting = {
        name.removeprefix("exec-").rstrip("-0123456789")
        for name, pod in pods["executors"].items()
        if pod.get("podMetadata", {}).get("labels", {}).get("kueue.x-k8s.io/queue-name") == "b1k-gpus"
    }
    asking = {
        name.removeprefix("exec-").rstrip("-0123456789")
        for name, one in spec["deploymentSpec"]["executors"].items()
        if "accelerator" in one["container"].get("resources", {})
    }
    assert waiting == asking == {"train", "evaluate"}


def test_a_profile_with_a_wrong_value_cannot_be_made() -> None:
    values = Arguments({"model": "huge"}, {"train": {"stepz": 1}})
    with pytest.raises(UserError, match="2 mistakes"):
        Profile("wrong", values=values)
