"""Builds pipelines: adds a task by the name of its stage."""

import inspect
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from kfp import dsl

from components.notify.config import DECLARATION as NOTIFY
from components.runtime.declaration import LOOP, Declaration
from components.runtime.executor import PROFILE, RUN_ID, SECTIONS, TASK_ID
from components.settings.config import DECLARATION as CHECK
from components.settings.sections import DECLARATIONS
from pipelines.definitions.applying import apply_profile
from pipelines.definitions.component import (
    component,
    notify_component,
    pipeline_documentation,
    pipeline_inputs,
    settings_component,
)
from pipelines.definitions.profiles.profile import Profile


class Flow:
    """A pipeline under construction."""

    def __init__(self, pipeline: str, profile: Profile, *, checked: bool = False) -> None:
        """Begin the pipeline of a name in `b1k`; `checked`: one that contains it checks the values."""
        self.profile = profile
        self.pipeline = pipeline
        self.given: dict[str, Any] = {}
        """The pipeline's inputs, while its body runs."""
        self._values = profile.of(pipeline)
        self._checked = checked
        self._check: Any = None

    def pipeline_of(
        self, body: Callable[[], None], name: str, label: str, summary: str
    ) -> dsl.graph_component.GraphComponent:
        """Make the pipeline: `body` adds its tasks, and no stage may have its `name` in Kubeflow."""
        parameters = pipeline_inputs(self.pipeline, self._values.inputs)

        def build(*values: Any) -> None:
            self.given = {one.name: value for one, value in zip(parameters, values, strict=True)}
            if self._checked:
                body()
                return
            with self._told(label):
                made = settings_component(self.pipeline, self.profile.workspace)
                known = {
                    **self.given,
                    "pipeline": self.pipeline,
                    "train_gpus": self.profile.place().train_gpus,
                    PROFILE: dict(self._values.settings),
                    SECTIONS: "",
                }
                self._check = self._add(made, CHECK, "Settings", known)
                body()

        build.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        build.__doc__ = summary if self._checked else pipeline_documentation(self.pipeline, summary)
        return dsl.pipeline(name=name, display_name=label, description=summary)(build)

    def _told(self, label: str) -> AbstractContextManager[Any]:
        """Where the profile has a step for it, people are told how the tasks inside ended."""
        if NOTIFY.name not in self.profile.steps:
            return nullcontext()
        told = self._add(notify_component(self.profile.workspace), NOTIFY, "Notify", {SECTIONS: ""})
        return dsl.ExitHandler(told, name=label)

    def task(
        self, stage: str, label: str, *, sections: tuple[str, ...] = (), **given: Any
    ) -> dsl.PipelineTask:
        """Add a task.

        Args:
            stage: the stage's name.
            label: the task's name in the UI and in our own display.
            sections: its sections of the settings; the stage's when not given.
            given: its artifacts, what differs from the pipeline's inputs, and fields of this task alone.
        """
        declaration = DECLARATIONS[stage]
        made = component(declaration, self.profile.workspace)
        sections = sections or (stage,)
        known = {
            **self.given,
            PROFILE: {name: v for name in sections if (v := self._values.settings.get(name))},
            SECTIONS: " ".join(sections),
            **given,
        }
        return self._add(made, declaration, label, known)

    def promotion(self, leaderboard: Any, plan: Any) -> None:
        """Add the trial of a leaderboard's policies, its rollouts, and the promotion."""
        given = {"leaderboard": leaderboard, "plan": plan}
        drawn = self.task("trial", "Trial", **given)
        with dsl.ParallelFor(
            drawn.outputs[LOOP], name="Confirm", parallelism=self.profile.evaluations
        ) as share:
            confirmed = self.task("evaluate", "Confirm", plan=drawn.outputs["trial"], worker=share.worker)
        self.task(
            "promote",
            "Promote",
            **given,
            trial=drawn.outputs["trial"],
            confirmation=dsl.Collected(confirmed.outputs["rollouts"]),
        )

    def _add(
        self, made: Any, declaration: Declaration[Any, Any], label: str, known: Mapping[str, Any]
    ) -> dsl.PipelineTask:
        # as constant inputs the placeholders are replaced on a cluster, inside of arguments they are not
        ids = {RUN_ID: dsl.PIPELINE_JOB_ID_PLACEHOLDER, TASK_ID: dsl.PIPELINE_TASK_ID_PLACEHOLDER}
        takes = made.component_spec.inputs or {}
        takes_artifacts = any(name in known for name in declaration.artifacts())
        task: dsl.PipelineTask = made(**{name: v for name, v in {**known, **ids}.items() if name in takes})
        apply_profile(self.profile, task, declaration.name, label)
        if self._check is not None and not takes_artifacts:
            task.after(self._check)  # the others wait for tasks that wait for it
        return task
