"""Client of a Kubeflow Pipelines server (API v2beta1) that says what went wrong and what to do about it."""

import logging
import os
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

import requests
import urllib3
from requests.adapters import HTTPAdapter
from requests.exceptions import ChunkedEncodingError, SSLError

from components.runtime.errors import UserError

HOST_VARIABLE = "KF_PIPELINES_ENDPOINT"
TOKEN_VARIABLE = "KF_PIPELINES_SA_TOKEN_PATH"  # noqa: S105 - the name of a variable with a path
MOUNTED_TOKEN = Path("/var/run/secrets/kubeflow/pipelines/token")
"""Where Kubeflow mounts a token for its API into pods."""
POD_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
"""Where Kubernetes tells a pod its namespace."""
_PAGE = 50
_MESSAGE = 300
"""Characters of the server's own message that are shown."""
_RUNNING = "is it running, and is `kubectl port-forward` or the ingress in place? See --host"


class UnavailableError(UserError):
    """The server gives no answer, or an error of its own: another try may succeed."""


class ExistsError(UserError):
    """The object to be created exists already."""


@dataclass(frozen=True)
class Connection:
    """Where the Kubeflow Pipelines API is, and how to log in."""

    host: str = ""
    """URL of the API, such as http://localhost:8888 after `kubectl port-forward`, or
    http://ml-pipeline.kubeflow.svc:8888 in a pod; KF_PIPELINES_ENDPOINT when not given."""
    namespace: str = ""
    """Your profile's namespace on multi-user Kubeflow; in a pod of such a server its own when not given."""
    token_file: Path | None = None
    """File with a bearer token, read again for every request; when not given, KF_PIPELINES_SA_TOKEN_PATH, or
    the service account's token where Kubeflow mounted one."""
    ca_file: Path | None = None
    """Certificates (PEM) that the server's is checked against, instead of the public ones."""
    timeout: int = 30
    """Seconds to wait for an answer."""


@dataclass(frozen=True)
class Job:
    """A compiled pipeline to be run once or regularly."""

    name: str
    """Display name of the run or recurring run."""
    documents: Sequence[Mapping[str, Any]]
    """The compiled pipeline, and its Kubernetes settings if it has any."""
    arguments: Mapping[str, Any]
    experiment: str
    """ID of the experiment."""
    account: str
    """Service account of the pods; empty for the server's default."""

    def body(self) -> dict[str, Any]:
        """The request's body, as kfp.Client sends it."""
        spec, *platforms = self.documents
        return {
            "display_name": self.name,
            "experiment_id": self.experiment,
            "pipeline_spec": {"pipeline_spec": spec, "platform_spec": platforms[0]} if platforms else spec,
            "runtime_config": {"parameters": dict(self.arguments)},
        } | ({"service_account": self.account} if self.account else {})


class Server:
    """A Kubeflow Pipelines server. Every method may raise UnavailableError and UserError.

    Args:
        connection: where it is, and how to log in.

    Raises:
        UserError: no host or no readable token.
    """

    def __init__(self, connection: Connection) -> None:
        self.host = (connection.host or os.environ.get(HOST_VARIABLE, "")).rstrip("/")
        if not self.host.startswith(("http://", "https://")):
            raise UserError(
                f"--host is {self.host!r}; expected the URL of the Kubeflow Pipelines API, such as "
                "http://localhost:8888 after `kubectl port-forward --namespace kubeflow svc/ml-pipeline "
                f"8888`. The variable {HOST_VARIABLE} does as well"
            )
        self._token_file = _token_file(connection)
        self._timeout = connection.timeout
        self._session = requests.Session()
        self._session.trust_env = False  # no proxies, and no ~/.netrc, which would replace the token
        self._session.verify = True if connection.ca_file is None else str(connection.ca_file)
        # Connecting is tried again; a request that was sent is not, since the server may have acted on it.
        retries = urllib3.Retry(2, read=False, respect_retry_after_header=False, backoff_factor=0.2)
        for scheme in ("http://", "https://"):
            self._session.mount(scheme, HTTPAdapter(max_retries=retries))
        logging.getLogger("urllib3").setLevel(logging.ERROR)  # it warns of every failed attempt
        self.namespace = connection.namespace
        if not self.namespace and self._json("ask the server", "GET", "healthz").get("multi_user"):
            with suppress(FileNotFoundError):  # not in a pod
                self.namespace = POD_NAMESPACE.read_text().strip()

    def experiment(self, name: str, *, create: bool) -> str:
        """ID of the experiment of a name.

        Raises:
            UserError: there is none, and `create` is false.
        """
        known = self._experiments()
        if name not in known and create:
            body = {"display_name": name} | ({"namespace": self.namespace} if self.namespace else {})
            try:
                what, key = f"create the experiment {name!r}", "experiment_id"
                return str(self._json(what, "POST", "experiments", key, json=body)[key])
            except ExistsError:  # somebody else created it in the meantime
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
        return str(self._json("start a run", "POST", "runs", "run_id", json=job.body())["run_id"])

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
        return str(self._json("create a schedule", "POST", "recurringruns", key, json=body)[key])

    def schedules(self, experiment: str) -> list[dict[str, Any]]:
        """The experiment's recurring runs as the API describes them."""
        return self._list("list schedules", "recurringruns", "recurringRuns", experiment_id=experiment)

    def unschedule(self, identity: str) -> None:
        """Delete a recurring run; Kubernetes ends the runs that it has started and that still run."""
        self._json(f"delete the schedule {identity}", "DELETE", f"recurringruns/{_quoted(identity)}")

    def run(self, identity: str) -> dict[str, Any]:
        """A run as the API describes it."""
        return self._json(f"see the run {identity}", "GET", f"runs/{_quoted(identity)}")

    def runs(self, experiment: str, count: int) -> list[dict[str, Any]]:
        """The last runs of an experiment, newest first."""
        query = {"experiment_id": experiment, "page_size": count, "sort_by": "created_at desc"}
        return list(self._json("list runs", "GET", "runs", params=query).get("runs") or [])

    def cancel(self, identity: str) -> None:
        """End a run."""
        self._json(f"cancel the run {identity}", "POST", f"runs/{_quoted(identity)}:terminate")

    def log(self, run: str, node: str) -> str:
        """What the main container of a node of a run wrote."""
        what = f"read the log of {node}"
        response = self._request(what, "GET", f"v1alpha1/runs/{_quoted(run)}/nodes/{_quoted(node)}/log")
        if response.content.startswith(b'{"error_message"'):  # with status 200
            raise UserError(f"cannot {what}{_message(response)}")
        return str(response.content.decode("utf-8", "replace"))

    def _experiments(self) -> dict[str, str]:
        """IDs of the experiments that are not archived, by name."""
        found = self._list("list experiments", "experiments", "experiments", namespace=self.namespace or None)
        return {
            str(one.get("display_name")): str(one.get("experiment_id"))
            for one in found
            if one.get("storage_state") != "ARCHIVED"
        }

    def _list(self, what: str, path: str, key: str, **query: Any) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        token = None
        while token != "":
            page = self._json(what, "GET", path, params={**query, "page_size": _PAGE, "page_token": token})
            found += page.get(key) or []
            token = page.get("next_page_token") or ""
        return found

    def _json(self, what: str, method: str, path: str, required: str = "", **options: Any) -> dict[str, Any]:
        """The answer to a request, which must be an object and have the required entry."""
        response = self._request(what, method, f"v2beta1/{path}", **options)
        answer: Any = None
        with suppress(ValueError):
            answer = response.json()
        if not isinstance(answer, dict) or (required and not answer.get(required)):
            raise UserError(
                f"what answers at {self.host} is not the Kubeflow Pipelines API v2beta1, or its login page: "
                f"cannot {what}. Give the URL of the API (service ml-pipeline), and a --token-file if it "
                "asks for a login"
            )
        return answer

    def _request(self, what: str, method: str, path: str, **options: Any) -> Any:
        """Send a request; `what` names it in error messages, such as "start a run"."""
        headers = {"Authorization": f"Bearer {_token(self._token_file)}"} if self._token_file else {}
        options |= {"headers": headers, "timeout": self._timeout}
        try:
            response = self._session.request(method, f"{self.host}/apis/{path}", **options)
        except requests.Timeout as error:
            problem = f"{self.host} gave no answer within {self._timeout} s"
            raise UnavailableError(f"{problem}; {_RUNNING}") from error
        except (requests.ConnectionError, ChunkedEncodingError) as error:
            reason = getattr(error.args[0], "reason", error)
            if isinstance(error, SSLError):
                raise UserError(f"{self.host}: {reason}. Give its certificates with --ca-file") from error
            raise UnavailableError(f"no server answers at {self.host} ({reason}); {_RUNNING}") from error
        except OSError as error:  # an invalid URL, or no such file of certificates
            raise UserError(f"cannot {what}: {error}") from error
        if not response.ok:
            raise self._refusal(what, response)
        return response

    def _refusal(self, what: str, response: Any) -> UserError:
        status = response.status_code
        failed = status == 429 or status >= 500
        who = f"the token in {self._token_file}" if self._token_file else "no token"
        where = f" in the namespace {self.namespace}" if self.namespace else ""
        problems = {
            401: f"{self.host} does not accept {who} (401); give a valid --token-file",
            403: f"not allowed to {what}{where} (403); ask for the role kubeflow-edit there, or give the "
            "--token-file of an account that has it",
            404: f"cannot {what}: {self.host} does not have it (404); is this the address of the Kubeflow "
            "Pipelines API, and the ID right?",
            409: f"cannot {what}: it exists already (409)",
        }
        problem = f"cannot {what}: the server {'failed' if failed else 'refuses'} ({status})"
        advice = "; try again, and see the log of the deployment ml-pipeline" if failed else ""
        kind = UnavailableError if failed else ExistsError if status == 409 else UserError
        return kind(problems.get(status, problem + advice) + _message(response))


_quoted = partial(quote, safe="")


def _token_file(connection: Connection) -> Path | None:
    variable = os.environ.get(TOKEN_VARIABLE)
    path = connection.token_file or (Path(variable) if variable else None)
    if path is None:
        return MOUNTED_TOKEN if MOUNTED_TOKEN.exists() else None
    _token(path)  # a mistake is found before the first request
    return path


def _token(path: Path) -> str:
    try:
        token = path.read_text().strip()
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read the token file {path}: {error}") from error
    if not re.fullmatch("[!-~]+", token):
        raise UserError(f"the token file {path} is empty or more than a token; expected a bearer token")
    return token


def _message(response: Any) -> str:
    """The server's own words, short and without the token."""
    text = response.text
    with suppress(ValueError, AttributeError):
        answer = response.json()
        text = str(answer.get("message") or answer.get("error") or answer.get("error_message") or "")
    if "<html" in text.lower():
        return ""
    token = response.request.headers.get("Authorization", "").removeprefix("Bearer ")
    text = " ".join(text.replace(token or "\0", "***").split())
    return f". It says: {text[:_MESSAGE]}" if text else ""
