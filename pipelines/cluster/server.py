"""What we ask of a Kubeflow Pipelines server (API v2beta1), with its errors in words.

kfp.Client 2.17 does the talking, with what it does besides turned off: it asks the health endpoint five times
with pauses, writes a namespace into the user's home, prints links, never times out, and its wait never ends
for a cancelled run.
"""

import json
import logging
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import kfp
import kfp_server_api
import urllib3
from kfp.client import ServiceAccountTokenVolumeCredentials
from kfp_server_api.rest import RESTClientObject

from components.runtime.errors import UserError
from pipelines.cluster.answers import Answers, ExistsError

HOST_VARIABLE = "KF_PIPELINES_ENDPOINT"
TOKEN_VARIABLE = "KF_PIPELINES_SA_TOKEN_PATH"  # noqa: S105 - names where a token lies
MOUNTED_TOKEN = Path("/var/run/secrets/kubeflow/pipelines/token")
"""Where Kubeflow mounts a token for its API into pods."""
_LOG = "/apis/v1alpha1/runs/{run_id}/nodes/{node_id}/log"
_PAGE = 50


@dataclass(frozen=True)
class Connection:
    """Where the Kubeflow Pipelines API is, and who asks."""

    host: str = ""
    """URL of the API, such as http://localhost:8888 after `kubectl port-forward`, or
    http://ml-pipeline.kubeflow.svc:8888 in a pod; KF_PIPELINES_ENDPOINT when not given."""
    namespace: str = ""
    """Your profile's namespace on multi-user Kubeflow; empty for the server's only one."""
    token_file: Path | None = None
    """File with a bearer token, read again for every request; when not given, KF_PIPELINES_SA_TOKEN_PATH, or
    the service account's token where Kubeflow mounted one."""
    ca_file: Path | None = None
    """Certificates (PEM) that the server's is checked against, instead of the public ones."""
    timeout: int = 30
    """Seconds to wait for an answer."""


class _Rest(RESTClientObject):
    """Requests end after a time, also where kfp.Client gives none."""

    def __init__(self, configuration: Any, timeout: int) -> None:
        super().__init__(configuration)
        self.timeout = timeout

    def request(self, *arguments: Any, **options: Any) -> Any:
        """Send a request."""
        options["_request_timeout"] = options.get("_request_timeout") or self.timeout
        return super().request(*arguments, **options)


class _Client(kfp.Client):
    """kfp.Client that asks once, remembers nothing on disk, and has our time limit."""

    seconds = 30

    def get_kfp_healthz(self, sleep_duration: int = 0) -> Any:
        """Ask whether the server is for many users; the constructor does where no namespace is known."""
        return self._healthz_api.healthz_service_get_healthz(_request_timeout=self.seconds)

    def set_user_namespace(self, namespace: str) -> None:
        """Use a namespace, in memory only."""
        self._context_setting["namespace"] = namespace

    def _load_config(self, *arguments: Any) -> Any:
        configuration = super()._load_config(*arguments)
        # a connection that fails is tried again, an answer that does not come is waited for once
        configuration.retries = urllib3.Retry(2, read=0, backoff_factor=0.2)
        return configuration

    def _load_context_setting_or_default(self) -> None:
        self._context_setting = {"namespace": ""}


class Server:
    """A Kubeflow Pipelines server.

    Args:
        connection: where it is, and who asks.

    Raises:
        UserError: no host or no readable token.
        UnavailableError: nobody answers there.
    """

    def __init__(self, connection: Connection) -> None:
        self.host = (connection.host or os.environ.get(HOST_VARIABLE, "")).rstrip("/")
        if not self.host.startswith(("http://", "https://")):
            raise UserError(
                f"--host is {self.host!r}; expected the URL of the Kubeflow Pipelines API, such as "
                "http://localhost:8888 after `kubectl port-forward --namespace kubeflow svc/ml-pipeline "
                f"8888`. The variable {HOST_VARIABLE} does as well"
            )
        token_file = _token_file(connection)
        self._asking = Answers(self.host, connection.namespace, connection.timeout, token_file).asking
        # every attempt would be logged; we say it once
        logging.getLogger("urllib3").setLevel(logging.ERROR)
        with self._asking("ask the server"):
            self.client = _connect(self.host, connection, token_file)
        # in a pod of multi-user Kubeflow the client has found it
        self.namespace = connection.namespace or self.client.get_user_namespace()

    def experiment(self, name: str, *, create: bool) -> str:
        """ID of the experiment of a name.

        Raises:
            UserError: there is none, and `create` is false.
        """
        found = self._experiment(name)
        if found is None and create:
            body = kfp_server_api.V2beta1Experiment(display_name=name, namespace=self.namespace or None)
            try:
                with self._asking(f"create the experiment {name!r}"):
                    self.client.experiments.experiment_service_create_experiment(experiment=body)
            except ExistsError:  # made by somebody else in the meantime
                pass
            found = self._experiment(name)
        if found is None:
            known = ", ".join(str(one.get("display_name")) for one in self._experiments()) or "none"
            raise UserError(f"{self.host} has no experiment {name!r}; it has: {known}. Give --experiment")
        return found

    def submit(
        self, package: Path, arguments: Mapping[str, Any], experiment: str, name: str, account: str
    ) -> str:
        """Start a run of a compiled pipeline.

        Returns:
            The run's ID.
        """
        with self._asking("start a run"):
            started = self.client.run_pipeline(
                experiment_id=experiment,
                job_name=name,
                pipeline_package_path=str(package),
                params=dict(arguments),
                service_account=account or None,
            )
            return _identity(started.run_id)

    def schedule(
        self,
        package: Path,
        arguments: Mapping[str, Any],
        experiment: str,
        name: str,
        account: str,
        cron: str,
    ) -> str:
        """Run a compiled pipeline again and again, one run at a time, without catching up on missed times.

        Args:
            package: the compiled pipeline.
            arguments: its arguments.
            experiment: ID of the experiment.
            name: name of the schedule.
            account: service account of the runs.
            cron: six fields, seconds first.

        Returns:
            The recurring run's ID.
        """
        with self._asking("make a schedule"):
            made = self.client.create_recurring_run(
                experiment_id=experiment,
                job_name=name,
                pipeline_package_path=str(package),
                params=dict(arguments),
                service_account=account or None,
                cron_expression=cron,
                max_concurrency=1,
                no_catchup=True,
            )
            return _identity(made.recurring_run_id)

    def schedules(self, experiment: str) -> list[dict[str, Any]]:
        """The experiment's recurring runs as the API describes them."""
        method = self.client.recurring_runs.recurring_run_service_list_recurring_runs
        return list(self._pages("list schedules", method, "recurringRuns", experiment_id=experiment))

    def unschedule(self, identity: str) -> None:
        """Delete a recurring run; runs that it started go on."""
        with self._asking(f"delete the schedule {identity}"):
            self.client.delete_recurring_run(identity)

    def run(self, identity: str) -> dict[str, Any]:
        """A run as the API describes it.

        Raises:
            UserError: there is no such run.
        """
        return self._read(f"see the run {identity}", self.client.runs.run_service_get_run, run_id=identity)

    def runs(self, experiment: str, count: int) -> list[dict[str, Any]]:
        """The last runs of an experiment, newest first."""
        answer = self._read(
            "list runs",
            self.client.runs.run_service_list_runs,
            experiment_id=experiment,
            page_size=count,
            sort_by="created_at desc",
        )
        return list(answer.get("runs") or [])

    def cancel(self, identity: str) -> None:
        """End a run."""
        with self._asking(f"cancel the run {identity}"):
            self.client.terminate_run(identity)

    def log(self, run: str, node: str) -> str:
        """What the main container of a node of a run wrote."""
        api = self.client.runs.run_service_get_run.__self__.api_client
        with self._asking(f"read the log of {node}"):
            answer = api.call_api(
                _LOG,
                "GET",
                path_params={"run_id": run, "node_id": node},
                auth_settings=["Bearer"],
                _preload_content=False,
                _return_http_data_only=True,
            )
            return str(answer.data.decode("utf-8", "replace"))

    def _experiments(self) -> list[dict[str, Any]]:
        method = self.client.experiments.experiment_service_list_experiments
        options = {"namespace": self.namespace} if self.namespace else {}
        return list(self._pages("list experiments", method, "experiments", **options))

    def _experiment(self, name: str) -> str | None:
        for one in self._experiments():
            if one.get("display_name") == name and one.get("storage_state") != "ARCHIVED":
                return str(one.get("experiment_id"))
        return None

    def _pages(
        self, what: str, method: Callable[..., Any], key: str, **options: Any
    ) -> Iterator[dict[str, Any]]:
        token = ""
        while True:
            answer = self._read(what, method, page_token=token, page_size=_PAGE, **options)
            yield from answer.get(key) or []
            token = answer.get("next_page_token") or ""
            if not token:
                return

    def _read(self, what: str, method: Callable[..., Any], **options: Any) -> dict[str, Any]:
        """An answer as JSON: the client's models drop what newer servers say."""
        with self._asking(what):
            answer = json.loads(method(**options, _preload_content=False).data)
            if not isinstance(answer, dict):
                raise ValueError("not an object")
            return answer


def _identity(found: Any) -> str:
    if not found:
        raise ValueError("no ID in the answer")
    return str(found)


def _token_file(connection: Connection) -> Path | None:
    path = connection.token_file
    if path is None and os.environ.get(TOKEN_VARIABLE):
        path = Path(os.environ[TOKEN_VARIABLE])
    if path is None:
        return MOUNTED_TOKEN if MOUNTED_TOKEN.exists() else None
    try:
        empty = not path.read_text().strip()
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read the token file {path}: {error}") from error
    if empty:
        raise UserError(f"the token file {path} is empty; expected a bearer token")
    return path


def _connect(host: str, connection: Connection, token_file: Path | None) -> _Client:
    _Client.seconds = connection.timeout
    client = _Client(
        host=host,
        namespace=connection.namespace or "kubeflow",
        ssl_ca_cert=None if connection.ca_file is None else str(connection.ca_file),
        credentials=None if token_file is None else ServiceAccountTokenVolumeCredentials(str(token_file)),
    )
    api = client.runs.run_service_get_run.__self__.api_client
    api.rest_client = _Rest(api.configuration, connection.timeout)
    if connection.namespace:
        client.set_user_namespace(connection.namespace)
    return client
