"""A small server of the Kubeflow Pipelines API: keeps what it is told, refuses what is not its.

Requests are read with the models of kfp-server-api and the pipelines with those of kfp; how the real server
answers is taken from its source (backend/src/apiserver of kubeflow/pipelines).
"""

import email
import json
import re
import ssl
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import yaml
from google.protobuf import json_format
from kfp.pipeline_spec import pipeline_spec_pb2
from kfp_models import RefusedError, page, read

TIME = "2026-01-02T03:04:{:02d}Z"
OUTPUTS = {"run_id", "recurring_run_id", "created_at", "finished_at", "state", "run_details", "status"}


class Stub:
    """The server's state, and what was asked of it."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.token = ""
        self.multi_user = False
        self.experiments: dict[str, dict[str, Any]] = {}
        self.runs: dict[str, dict[str, Any]] = {}
        self.schedules: dict[str, dict[str, Any]] = {}
        self.pipelines: dict[str, dict[str, Any]] = {}
        self.versions: dict[str, dict[str, Any]] = {}
        self.workflows: dict[str, str] = {}
        """Argo's Workflow of each run."""
        self.killed: list[str] = []
        """Active runs whose workflow was deleted with their schedule: the real server knows nothing of it."""
        self.logs: dict[str, str] = {}
        """By the ID of the node."""
        self.snapshots: list[dict[str, Any]] = []
        """What a run is at the next looks at it, with its `workflow`; the last one stays."""
        self.requests: list[tuple[str, str]] = []
        self.bodies: list[bytes] = []
        self.troubles: list[tuple[str, Any]] = []
        """What to answer instead, once each, to `METHOD /path` that the pattern matches: a function, or the
        arguments of `send`."""
        stub = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_: Any) -> None:
                pass

            def _handle(self) -> None:
                stub._handle(self)

            do_GET = do_POST = do_DELETE = _handle  # noqa: N815 - the base class asks for these names

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        if tls is not None:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        self.host = f"http{'s' if tls else ''}://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def trouble(self, pattern: str, answer: Any, times: int = 1) -> None:
        self.troubles += [(pattern, answer)] * times

    def _handle(self, handler: BaseHTTPRequestHandler) -> None:
        url = urlsplit(handler.path)
        self.requests.append((handler.command, url.path))
        body = handler.rfile.read(int(handler.headers.get("Content-Length") or 0))
        self.bodies.append(body)
        for pattern, instead in self.troubles:
            if re.search(pattern, f"{handler.command} {url.path}"):
                self.troubles.remove((pattern, instead))
                if callable(instead):
                    instead(handler)
                else:
                    send(handler, *instead)
                return
        try:
            if self.token and handler.headers.get("Authorization") != f"Bearer {self.token}":
                raise RefusedError(401, "Unauthenticated: there is no user identity header")
            query = {key: values[0] for key, values in parse_qs(url.query).items()}
            kind = handler.headers.get("Content-Type", "")
            answer = self._answer(handler.command, url.path, query, body, kind)
        except RefusedError as error:
            document = {"error": str(error), "code": error.code, "message": str(error), "details": []}
            send(handler, error.code, json.dumps(document))
            return
        text = answer if isinstance(answer, str) else json.dumps(answer)
        send(handler, 200, text, kind="text/plain" if isinstance(answer, str) else "application/json")

    def _answer(self, method: str, path: str, query: dict[str, str], body: bytes, kind: str) -> Any:
        log = re.fullmatch(r"/apis/v1alpha1/runs/([^/]+)/nodes/([^/]+)/log", path)
        if log and method == "GET":
            # with status 200, as the real one
            return self.logs.get(log[2]) or {"error_message": f"NotFound: no log of {log[2]}"}
        old = re.fullmatch(r"/apis/v1beta1/runs/([^/]+)", path)
        if old and method == "GET":
            run = {"id": old[1], "name": self._one(self.runs, old[1], "run")["display_name"]}
            return {"run": run, "pipeline_runtime": {"workflow_manifest": self.workflows.get(old[1], "")}}
        found = re.fullmatch(r"/apis/v2beta1/(\w+)((?:/[^/:]+)*)(?::(\w+))?", path)
        if found is None:
            raise RefusedError(404, "Not Found")
        match (method, found[1], *filter(None, found[2].split("/")), found[3]):
            case ("GET", "healthz", None):
                return {"multi_user": self.multi_user}
            case ("GET", "experiments", None):
                rows = [e for e in self.experiments.values() if e["namespace"] == query.get("namespace", "")]
                return page(rows, "experiments", query)
            case ("POST", "experiments", None):
                return self._new_experiment(read(body, "V2beta1Experiment"))
            case ("GET", "runs", None):
                scope = query.get("experiment_id")
                rows = [one for one in self.runs.values() if scope in (None, one["experiment_id"])]
                return page(rows[::-1], "runs", query)
            case ("POST", "runs", None):
                return self._new_run(read(body, "V2beta1Run"))
            case ("GET", "runs", identity, None):
                run = self._one(self.runs, identity, "run")
                if self.snapshots:
                    self.workflows[identity] = self.snapshots[0].get("workflow", "")
                    run |= {key: value for key, value in self.snapshots[0].items() if key != "workflow"}
                    del self.snapshots[: 1 if len(self.snapshots) > 1 else 0]
                return run
            case ("POST", "runs", identity, "terminate"):
                return self._terminate(self._one(self.runs, identity, "run"))
            case (_, "recurringruns", *rest):
                return self._schedules(method, rest, query, body)
            case (_, "pipelines", *rest):
                return self._pipelines(method, rest, query, body, kind)
        raise RefusedError(501, "Method Not Allowed")

    def _terminate(self, run: dict[str, Any]) -> dict[str, Any]:
        if run["run_id"] in self.killed:
            raise RefusedError(500, "workflow not found")
        if run["state"] in ("SUCCEEDED", "FAILED"):
            raise RefusedError(400, "Row not found")
        run["state"] = "CANCELING"
        return {}

    def _schedules(self, method: str, rest: list[Any], query: dict[str, str], body: bytes) -> Any:
        match (method, *rest):
            case ("GET", None):
                rows = [o for o in self.schedules.values() if o["experiment_id"] == query["experiment_id"]]
                return page(rows, "recurringRuns", query)
            case ("POST", None):
                return self._new_schedule(read(body, "V2beta1RecurringRun"))
            case ("POST", identity, "disable"):
                self._one(self.schedules, identity, "recurring run")["status"] = "DISABLED"
                return {}
            case ("DELETE", identity, None):
                self._one(self.schedules, identity, "recurring run")
                del self.schedules[identity]
                ended = ("SUCCEEDED", "FAILED")
                mine = [one for one in self.runs.values() if one.get("recurring_run_id") == identity]
                self.killed += [one["run_id"] for one in mine if one["state"] not in ended]
                return {}
        raise RefusedError(501, "Method Not Allowed")

    def _pipelines(self, method: str, rest: list[Any], query: dict[str, str], body: bytes, kind: str) -> Any:
        match (method, *rest):
            case ("GET", None):
                rows = [o for o in self.pipelines.values() if o["namespace"] == query.get("namespace", "")]
                return page(rows, "pipelines", query)
            case ("POST", None):
                given = read(body, "V2beta1Pipeline")
                identity = f"pipeline-{len(self.pipelines)}"
                self.pipelines[identity] = {"namespace": "", **given, "pipeline_id": identity}
                return self.pipelines[identity]
            case ("GET", parent, "versions", None):
                self._one(self.pipelines, parent, "pipeline")
                rows = [one for one in self.versions.values() if one["pipeline_id"] == parent]
                return page(rows[::-1], "pipeline_versions", query)
            case ("POST", "upload_version", None):
                return self._new_version(query, body, kind)
        raise RefusedError(501, "Method Not Allowed")

    def _new_version(self, query: dict[str, str], body: bytes, kind: str) -> dict[str, Any]:
        parent = self._one(self.pipelines, query["pipelineid"], "pipeline")["pipeline_id"]
        message = email.message_from_bytes(b"Content-Type: " + kind.encode() + b"\r\n\r\n" + body)
        (part,) = (one for one in message.walk() if one.get_param("name", header="content-disposition"))
        assert part.get_param("name", header="content-disposition") == "uploadfile"
        spec, *platforms = yaml.safe_load_all(part.get_payload(decode=True))
        try:
            json_format.ParseDict(spec, pipeline_spec_pb2.PipelineSpec())
            for one in platforms:
                json_format.ParseDict(one, pipeline_spec_pb2.PlatformSpec())
        except json_format.ParseError as error:
            raise RefusedError(400, f"Invalid input error: {error}") from error
        identity = f"version-{len(self.versions)}"
        documents = {"pipeline_spec": spec, "platform_spec": platforms[0]} if platforms else spec
        self.versions[identity] = {
            "pipeline_id": parent,
            "pipeline_version_id": identity,
            "display_name": query["name"],
            "description": query.get("description", ""),
            "tags": json.loads(query["tags"]),
            "pipeline_spec": documents,
        }
        return self.versions[identity]

    def _one(self, group: dict[str, Any], identity: str, what: str) -> Any:
        if identity not in group:
            raise RefusedError(404, f"ResourceNotFoundError: {what} {identity} not found")
        return group[identity]

    def _new_experiment(self, given: dict[str, Any]) -> dict[str, Any]:
        key = (given.get("display_name"), given.get("namespace", ""))
        if not key[0]:
            raise RefusedError(400, "Experiment name is empty")
        if key in {(one["display_name"], one["namespace"]) for one in self.experiments.values()}:
            raise RefusedError(409, f"Already exist error: experiment {key[0]}")
        identity = f"experiment-{len(self.experiments)}"
        made = {"experiment_id": identity, "namespace": "", "storage_state": "AVAILABLE", **given}
        self.experiments[identity] = made
        return made

    def _new_run(self, given: dict[str, Any]) -> dict[str, Any]:
        self._check_job(given)
        identity = f"run-{len(self.runs)}"
        self.runs[identity] = {**given, "run_id": identity, "state": "PENDING", "created_at": TIME.format(0)}
        return self.runs[identity]

    def _new_schedule(self, given: dict[str, Any]) -> dict[str, Any]:
        self._check_job(given)
        if not 1 <= int(given.get("max_concurrency", 0)) <= 10:
            raise RefusedError(400, "Max concurrency of a recurring run must be at least 1 and at most 10")
        identity = f"schedule-{len(self.requests)}"
        status = "ENABLED" if given.get("mode") == "ENABLE" else "DISABLED"
        self.schedules[identity] = {**given, "recurring_run_id": identity, "status": status}
        return self.schedules[identity]

    def _check_job(self, given: dict[str, Any]) -> None:
        """What runs and recurring runs must have."""
        if not given.get("display_name"):
            raise RefusedError(400, "The name is empty")
        self._one(self.experiments, given.get("experiment_id", ""), "experiment")
        if OUTPUTS & given.keys():
            raise RefusedError(400, f"{OUTPUTS & given.keys()} are outputs")
        reference = given["pipeline_version_reference"]
        version = self._one(self.versions, reference["pipeline_version_id"], "pipeline version")
        assert version["pipeline_id"] == reference["pipeline_id"]
        documents = version["pipeline_spec"]
        documents = documents.get("pipeline_spec", documents)
        spec = json_format.ParseDict(documents, pipeline_spec_pb2.PipelineSpec())
        inputs = spec.root.input_definitions.parameters
        parameters = given["runtime_config"].get("parameters", {})
        kinds = {
            "STRING": str,
            "BOOLEAN": bool,
            "NUMBER_INTEGER": int,
            "NUMBER_DOUBLE": (int, float),
            "STRUCT": dict,
            "LIST": list,
        }
        for name, value in parameters.items():
            if name not in inputs:
                raise RefusedError(400, f"input parameter {name} is not in the pipeline")
            kind = pipeline_spec_pb2.ParameterType.ParameterTypeEnum.Name(inputs[name].parameter_type)
            if not isinstance(value, kinds[kind]):
                raise RefusedError(400, f"input parameter {name} is {value!r}, not a {kind}")
        for name, one in inputs.items():
            if name not in parameters and not one.is_optional:
                raise RefusedError(400, f"input parameter {name} requires type and value")


def send(
    handler: BaseHTTPRequestHandler, code: int, text: str, wait: float = 0.0, kind: str = "application/json"
) -> None:
    """Answer a request."""
    time.sleep(wait)
    data = text.encode()
    try:
        handler.send_response(code)
        handler.send_header("Content-Type", kind)
        handler.send_header("Content-Length", str(len(data)))
        handler.end_headers()
        handler.wfile.write(data)
    except (BrokenPipeError, ConnectionResetError):
        pass  # the client has not waited
