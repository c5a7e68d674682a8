"""What Kubeflow Pipelines has and does: experiments, runs, schedules, pipelines and their versions."""

import json
import operator
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any
from urllib.parse import quote

from components.errors import UserError
from pipelines.cluster.connection import (
    Api,
    Connection,
    ExistsError,
    MissingError,
    UnavailableError,
    said,
)

Predicate = tuple[str, str, str]
"""What the items of a list must have: an operation, a field and a value."""
_HOLDS: Mapping[str, Callable[[str, str], bool]] = {
    "EQUALS": operator.eq,
    "NOT_EQUALS": operator.ne,
    "IS_SUBSTRING": operator.contains,
}
"""The operations of predicates, as the server does them."""
_ENDED = ("SUCCEEDED", "FAILED", "CANCELED", "SKIPPED")
"""The server's words for the states of runs that have ended."""
_RUNS = 20
"""Runs in a page."""
_UUID = re.compile("[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


@dataclass(frozen=True)
class Job:
    """What is started, now or by a schedule."""

    name: str
    """Display name of the run or recurring run."""
    pipeline: str
    """ID of the pipeline."""
    version: str
    """ID of the pipeline's version."""
    arguments: Mapping[str, Any]
    experiment: str
    """ID of the experiment."""
    account: str
    """Service account of the pods; empty for the server's default."""

    def body(self) -> dict[str, Any]:
        """The request's body, as kfp.Client sends it."""
        return {
            "display_name": self.name,
            "experiment_id": self.experiment,
            "pipeline_version_reference": {"pipeline_id": self.pipeline, "pipeline_version_id": self.version},
            "runtime_config": {"parameters": dict(self.arguments)},
        } | ({"service_account": self.account} if self.account else {})


class Server(Api):
    """A Kubeflow Pipelines server. Every method may raise UnavailableError and UserError.

    Args:
        connection: where it is, and how to log in.

    Raises:
        UserError: no host or no readable token.
    """

    def __init__(self, connection: Connection) -> None:
        super().__init__(connection)
        self._place = {"namespace": self.namespace} if self.namespace else {}

    def experiment(self, name: str, *, create: bool) -> str:
        """ID of the experiment of a name.

        Raises:
            UserError: there is none, and `create` is false.
        """
        if create:
            what, body = f"create the experiment {name!r}", {"display_name": name, **self._place}
            return self._find_or_create(
                lambda: self._experiments().get(name), what, "experiments", "experiment_id", body
            )
        known = self._experiments()
        if name not in known:
            names = ", ".join(known) or "none"
            raise UserError(f"{self.host} has no experiment {name!r}; it has: {names}. Give --experiment")
        return known[name]

    def submit(self, job: Job) -> str:
        """Start a run.

        Returns:
            The run's ID.
        """
        return str(self.json("start a run", "POST", "runs", "run_id", json=job.body())["run_id"])

    def schedule(self, job: Job, cron: str) -> str:
        """Run a pipeline regularly, one run at a time, without catching up on missed times.

        Args:
            job: the pipeline.
            cron: six fields, seconds first.

        Returns:
            The recurring run's ID.
        """
        body = job.body() | {
            "trigger": {"cron_schedule": {"cron": cron}},
            "max_concurrency": 1,
            "no_catchup": True,
            "mode": "ENABLE",
        }
        key = "recurring_run_id"
        return str(self.json("create a schedule", "POST", "recurringruns", key, json=body)[key])

    def schedules(self, experiment: str) -> list[dict[str, Any]]:
        """The experiment's recurring runs as the API describes them."""
        return list(self.pages("list schedules", "recurringruns", "recurringRuns", experiment_id=experiment))

    def disable(self, schedule: str) -> None:
        """Let a recurring run start no more runs; those that it has started go on."""
        path = f"recurringruns/{_quoted(schedule)}:disable"
        self.json(f"disable the schedule {schedule}", "POST", path)

    def unschedule(self, schedule: str) -> None:
        """Delete a recurring run; Kubernetes deletes its runs' workflows and pods too, also active ones."""
        self.json(f"delete the schedule {schedule}", "DELETE", f"recurringruns/{_quoted(schedule)}")

    def run(self, identity: str) -> dict[str, Any]:
        """A run as the API describes it.

        Args:
            identity: its ID, or the beginning of it.

        Raises:
            UserError: there is none, or more than one.
        """
        whole = identity if _UUID.fullmatch(identity) else self._complete(identity)
        try:
            return self.json(f"see the run {whole}", "GET", f"runs/{_quoted(whole)}", "run_id")
        except MissingError as error:
            raise MissingError(
                f"{self.host} does not have the run {whole} (404): it was deleted, or lost with the server's "
                "database, or the ID is wrong"
            ) from error

    def workflow(self, identity: str) -> str:
        """The Argo Workflow of a run as JSON text; empty before there is one."""
        what = f"see the workflow of the run {identity}"
        found = self.json(what, "GET", f"runs/{_quoted(identity)}", version="v1beta1")
        return str((found.get("pipeline_runtime") or {}).get("workflow_manifest") or "")

    def runs(
        self, experiment: str = "", *predicates: Predicate, page_size: int = _RUNS, **equal: str
    ) -> Iterator[dict[str, Any]]:
        """Runs of an experiment or of all, newest first, asked for as they are needed.

        Args:
            experiment: its ID.
            *predicates: what they must have.
            page_size: runs to ask for at once; each comes with all its tasks.
            **equal: fields that must have a value, such as recurring_run_id.
        """
        wanted = (*predicates, *(("EQUALS", key, value) for key, value in equal.items()))
        scope = {"experiment_id": experiment} if experiment else self._place
        query = {**scope, "sort_by": "created_at desc", **_filter(wanted), "page_size": page_size}
        found = self.pages("list runs", "runs", "runs", **query)
        # a server may not know a filter
        return (one for one in found if all(_HOLDS[how](str(one.get(k) or ""), v) for how, k, v in wanted))

    def active_runs(self) -> Iterator[dict[str, Any]]:
        """Runs that have not ended as the server knows, which does not know of those that are lost."""
        # IN would be shorter, but the server refuses its own token of the second page
        return self.runs("", *(("NOT_EQUALS", "state", one) for one in _ENDED))

    def cancel(self, identity: str) -> None:
        """End a run."""
        self.json(f"cancel the run {identity}", "POST", f"runs/{_quoted(identity)}:terminate")

    def log(self, run: str, names: Sequence[str]) -> bytes:
        """What the main container of a pod of a run wrote.

        Args:
            run: the run's ID.
            names: what the server may know the pod by, the likeliest first.

        Raises:
            UnavailableError: the server gives no answer, under whatever name.
            UserError: it has none.
        """
        errors: list[UserError] = []
        for name in names:
            what, path = f"read the log of {name}", f"runs/{_quoted(run)}/nodes/{_quoted(name)}/log"
            try:
                response = self.request(what, "GET", f"v1alpha1/{path}", accepted=500)
            except UnavailableError:
                raise
            except UserError as error:
                errors.append(error)
                continue
            # of a pod that it does not know, with status 200 or 500, as its version has it
            if re.match(rb'\s*{\s*"error_(message|details)"', response.content):
                errors.append(UserError(f"cannot {what}{said(response)}"))
            elif response.ok:
                return bytes(response.content)
            else:
                raise self.refusal(what, response)
        raise errors[0]

    def pipeline(self, name: str) -> str:
        """ID of the pipeline of a name; it is made if there is none."""

        def found() -> str | None:
            for one in self.pages("list pipelines", "pipelines", "pipelines", **self._place):
                if name in (one.get("name"), one.get("display_name")):
                    return str(one.get("pipeline_id"))
            return None

        body = {"name": name, "display_name": name, **self._place}
        return self._find_or_create(found, f"create the pipeline {name}", "pipelines", "pipeline_id", body)

    def versions(self, pipeline: str) -> Iterator[dict[str, Any]]:
        """A pipeline's versions, newest first, asked for as they are needed."""
        path = f"pipelines/{_quoted(pipeline)}/versions"
        return self.pages("list versions", path, "pipeline_versions", sort_by="created_at desc")

    def upload(self, pipeline: str, package: bytes, name: str, description: str, **tags: str) -> str:
        """Add a version to a pipeline.

        Args:
            pipeline: its ID.
            package: the compiled YAML.
            name: name of the version.
            description: what the UI shows beside it.
            **tags: more of that, for searching.

        Returns:
            The version's ID.
        """
        key, query = "pipeline_version_id", {"pipelineid": pipeline, "name": name, "description": description}
        options: dict[str, Any] = {
            "params": {**query, "tags": json.dumps(tags)},
            "files": {"uploadfile": ("pipeline.yaml", package)},
        }
        return str(self.json("upload a version", "POST", "pipelines/upload_version", key, **options)[key])

    def _complete(self, beginning: str) -> str:
        """The ID that begins so."""
        found = (str(one.get("run_id")) for one in self.runs("", ("IS_SUBSTRING", "run_id", beginning)))
        fitting = (one for one in found if one.startswith(beginning))
        ids = list(islice(fitting, 9)) if beginning else []
        if len(ids) == 1:
            return ids[0]
        if ids:
            raise UserError(
                f"{len(ids)} runs begin with {beginning!r}: {', '.join(ids)}; give more of the ID"
            )
        raise MissingError(
            f"{self.host} has no run whose ID begins with {beginning!r} (see `b1k pipeline status`): it "
            "was deleted, or lost with the server's database, or the ID is wrong"
        )

    def _find_or_create(
        self, find: Callable[[], str | None], what: str, path: str, key: str, body: Mapping[str, Any]
    ) -> str:
        """ID of what is found, else of what is created.

        Args:
            find: looks for it.
            what: names its creation in error messages.
            path: where it is created.
            key: name of its ID.
            body: what it is.
        """
        if found := find():
            return found
        try:
            return str(self.json(what, "POST", path, key, json=dict(body))[key])
        except ExistsError:  # somebody else created it in the meantime
            if found := find():
                return found
            raise

    def _experiments(self) -> dict[str, str]:
        """IDs of the experiments that are not archived, by name."""
        found = self.pages("list experiments", "experiments", "experiments", **self._place)
        return {
            str(one.get("display_name")): str(one.get("experiment_id"))
            for one in found
            if one.get("storage_state") != "ARCHIVED"
        }


_quoted = partial(quote, safe="")


def _filter(wanted: Sequence[Predicate]) -> dict[str, str]:
    """The query of a list for the items that have what is wanted."""
    predicates = [{"operation": how, "key": key, "stringValue": value} for how, key, value in wanted]
    return {"filter": json.dumps({"predicates": predicates})} if predicates else {}
