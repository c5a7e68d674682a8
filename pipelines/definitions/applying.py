"""Gives a task what its profile says: image, resources, place, mounts, tries."""

from collections.abc import Sequence

from kfp import dsl, kubernetes

from components.runtime import attempts
from pipelines.definitions.profiles.profile import USER, Profile, Secret, Step


def apply_profile(profile: Profile, task: dsl.PipelineTask, stage: str, display_name: str) -> None:
    """Give a task its name, its image and what it needs, at compile time.

    Args:
        profile: what it needs, by stages.
        task: the task in the pipeline under construction.
        stage: name of its stage.
        display_name: name in the Kubeflow UI and in our own display.
    """
    task.set_display_name(display_name)
    # the stages have their own cache, keyed by content and code; KFP's would miss changed data
    task.set_caching_options(False)
    step = profile.steps.get(stage, Step())
    if step.image:
        task.set_container_image(step.image)
    if profile.is_local:
        return
    _resources(task, step)
    _placement(task, step)
    _mounts(task, step, profile.secrets)
    for key, value in step.pod_labels.items():
        kubernetes.add_pod_label(task, key, value)
    _tries(task, step)
    # the pod security standard "restricted" asks for it; some runtimes would take group 0
    kubernetes.set_security_context(task, run_as_user=USER, run_as_group=USER, run_as_non_root=True)
    if profile.pull_secret:
        kubernetes.set_image_pull_secrets(task, [profile.pull_secret])


def _tries(task: dsl.PipelineTask, step: Step) -> None:
    seconds = round(step.hours * 3600)
    kubernetes.set_timeout(task, seconds)
    # only for lost pods: Kubeflow tries no program again that failed. The time counts from the first start
    task.set_retry(step.pods - 1, "30s", 2.0, f"{step.pods * seconds}s")
    task.set_env_variable(attempts.MOST, str(step.attempts))


def _resources(task: dsl.PipelineTask, step: Step) -> None:
    if step.cpu:
        task.set_cpu_request(step.cpu)
    if step.memory:
        task.set_memory_request(step.memory)
        task.set_memory_limit(step.memory)
    if step.gpus:
        task.set_accelerator_type("nvidia.com/gpu")
        task.set_accelerator_limit(step.gpus)
    if step.shared_memory:
        kubernetes.empty_dir_mount(task, "shm", "/dev/shm", medium="Memory", size_limit=step.shared_memory)  # noqa: S108


def _placement(task: dsl.PipelineTask, step: Step) -> None:
    for key, value in step.node_labels.items():
        kubernetes.add_node_selector(task, key, value)
    if step.gpu_products:
        kubernetes.add_node_affinity(
            task,
            match_expressions=[
                {"key": "nvidia.com/gpu.product", "operator": "In", "values": list(step.gpu_products)}
            ],
        )
    for toleration in step.tolerations:
        kubernetes.add_toleration(
            task,
            key=toleration.key,
            operator=toleration.operator,
            value=toleration.value,
            effect=toleration.effect,
        )


def _mounts(task: dsl.PipelineTask, step: Step, secrets: Sequence[Secret]) -> None:
    for volume in step.volumes:
        kubernetes.mount_pvc(task, volume.claim, volume.path)
    for secret in (*step.secrets, *secrets):
        kubernetes.use_secret_as_env(task, secret.name, {key: key for key in secret.keys}, secret.optional)
    for settings in step.settings:
        keys = {key: key for key in settings.keys}
        kubernetes.use_config_map_as_env(task, settings.name, keys, optional=True)
    for name, value in step.environment.items():
        task.set_env_variable(name, value)
