"""Requests to a Kubeflow Pipelines server, and in words what went wrong and what to do about it."""

import logging
import os
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests
import urllib3
from requests.adapters import HTTPAdapter
from requests.exceptions import ChunkedEncodingError, SSLError

from components.errors import UserError

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


class MissingError(UserError):
    """The server does not have what is asked for."""


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


class Api:
    """The HTTP API of a server. Every request may raise UnavailableError and UserError.

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
        if not self.namespace and self.json("ask the server", "GET", "healthz").get("multi_user"):
            try:
                self.namespace = POD_NAMESPACE.read_text().strip()
            except FileNotFoundError as error:  # not in a pod
                raise UserError(
                    f"{self.host} is a Kubeflow of many users, and no --namespace is given; give the "
                    "namespace of your profile, which the Kubeflow UI shows"
                ) from error

    def pages(self, what: str, path: str, key: str, **query: Any) -> Iterator[dict[str, Any]]:
        """The items of a list, asked for page by page as they are needed."""
        token = None
        while token != "":
            page = self.json(what, "GET", path, params={"page_size": _PAGE, **query, "page_token": token})
            yield from page.get(key) or []
            token = page.get("next_page_token") or ""

    def json(
        self,
        what: str,
        method: str,
        path: str,
        required: str = "",
        *,
        version: str = "v2beta1",
        **options: Any,
    ) -> dict[str, Any]:
        """The answer to a request, which must be an object and have the required entry."""
        response = self.request(what, method, f"{version}/{path}", **options)
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

    def request(self, what: str, method: str, path: str, *, accepted: int = 200, **options: Any) -> Any:
        """Send a request.

        Args:
            what: names it in error messages, such as "start a run".
            method: the HTTP method.
            path: below `/apis/`.
            accepted: a status that is no error here.
            **options: more for requests.

        Returns:
            The answer.
        """
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
        if not response.ok and response.status_code != accepted:
            raise self.refusal(what, response)
        return response

    def refusal(self, what: str, response: Any) -> UserError:
        """The error that an answer is."""
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
        kind = UnavailableError if failed else {404: MissingError, 409: ExistsError}.get(status, UserError)
        return kind(problems.get(status, problem + advice) + said(response))


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


def said(response: Any) -> str:
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
