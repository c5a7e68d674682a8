"""A small server of the Kubeflow Pipelines API v2beta1: keeps what it is told, refuses what is not its.

Requests are read with the models of kfp-server-api and the pipelines with those of kfp; how the real server
answers is taken from its source (backend/src/apiserver of kubeflow/pipelines).
"""

import json
import re
import ssl
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import kfp_server_api
from google.protobuf import json_format
from kfp.pipeline_spec import pipeline_spec_pb2

TIME = "2026-01-02T03:04:{:02d}Z"
OUTPUTS = {"run_id", "recurring_run_id", "created_at", "finished_at", "state", "run_details", "status"}


class RefusedError(Exception):
    """An error that the server answers."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


class Stub:
    """The server's state, and what was asked of it."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.token = ""
        self.multi_user = False
        self.experiments: dict[str, dict[str, Any]] = {}
        self.runs: dict[str, dict[str, Any]] = {}
        self.schedules: dict[str, dict[str, Any]] = {}
        self.logs: dict[str, str] = {}
        self.snapshots: list[dict[str, Any]] = []
        """What a run is at the next looks at it; the last one stays."""
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
            answer = self._answer(handler.command, url.path, query, body)
        except RefusedError as error:
            document = {"error": str(error), "code": error.code, "message": str(error), "details": []}
            send(handler, error.code, json.dumps(document))
            return
        text = answer if isinstance(answer, str) else json.dumps(answer)
        send(handler, 200, text, kind="text/plain" if isinstance(answer, str) else "application/json")

    def _answer(self, method: str, path: str, query: dict[str, str], body: bytes) -> Any:
        log = re.fullmatch(r"/apis/v1alpha1/runs/([^/]+)/nodes/([^/]+)/log", path)
        if log and method == "GET":
            # with status 200, as the real one
            return self.logs.get(log[2]) or {"error_message": f"NotFound: no log of {log[2]}"}
        found = re.fullmatch(r"/apis/v2beta1/(\w+)(?:/([^/:]+))?(?::(\w+))?", path)
        if found is None:
            raise RefusedError(404, "Not Found")
        match (method, *found.groups()):
            case ("GET", "healthz", None, None):
                return {"multi_user": self.multi_user}
            case ("GET", "experiments", None, None):
                rows = [e for e in self.experiments.values() if e["namespace"] == query.get("namespace", "")]
                return page(rows, "experiments", query)
            case ("POST", "experiments", None, None):
                return self._new_experiment(read(body, "V2beta1Experiment"))
            case ("GET", "runs", None, None):
                rows = [one for one in self.runs.values() if one["experiment_id"] == query["experiment_id"]]
                return page(rows[::-1], "runs", query)
            case ("POST", "runs", None, None):
                return self._new_run(read(body, "V2beta1Run"))
            case ("GET", "runs", str(identity), None):
                run = self._one(self.runs, identity, "run")
                if self.snapshots:
                    run |= self.snapshots[0]
                    del self.snapshots[: 1 if len(self.snapshots) > 1 else 0]
                return run
            case ("POST", "runs", str(identity), "terminate"):
                self._one(self.runs, identity, "run")["state"] = "CANCELING"
                return {}
            case ("GET", "recurringruns", None, None):
                rows = [o for o in self.schedules.values() if o["experiment_id"] == query["experiment_id"]]
                return page(rows, "recurringRuns", query)
            case ("POST", "recurringruns", None, None):
                return self._new_schedule(read(body, "V2beta1RecurringRun"))
            case ("DELETE", "recurringruns", str(identity), None):
                self._one(self.schedules, identity, "recurring run")
                del self.schedules[identity]
                return {}
        raise RefusedError(501, "Method Not Allowed")

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
        documents = given["pipeline_spec"]
        try:
            documents = documents if "pipeline_spec" in documents else {"pipeline_spec": documents}
            spec = json_format.ParseDict(documents["pipeline_spec"], pipeline_spec_pb2.PipelineSpec())
            json_format.ParseDict(documents.get("platform_spec", {}), pipeline_spec_pb2.PlatformSpec())
        except json_format.ParseError as error:
            raise RefusedError(400, f"Invalid input error: {error}") from error
        inputs = spec.root.input_definitions.parameters
        parameters = given["runtime_config"].get("parameters", {})
        kinds = {"STRING": str, "BOOLEAN": bool, "NUMBER_INTEGER": int, "NUMBER_DOUBLE": (int, float)}
        for name, value in parameters.items():
            if name not in inputs:
                raise RefusedError(400, f"input parameter {name} is not in the pipeline")
            kind = pipeline_spec_pb2.ParameterType.ParameterTypeEnum.Name(inputs[name].parameter_type)
            if not isinstance(value, kinds[kind]):
                raise RefusedError(400, f"input parameter {name} is {value!r}, not a {kind}")
        for name, one in inputs.items():
            if name not in parameters and not one.is_optional:
                raise RefusedError(400, f"input parameter {name} requires type and value")


def read(body: bytes, model: str) -> dict[str, Any]:
    """A request's body, which must have the form of the model, and no more."""
    try:
        document = json.loads(body)
        check(document, getattr(kfp_server_api, model))
    except (ValueError, TypeError) as error:
        raise RefusedError(400, f"{model}: {error}") from error
    return document


def check(document: Any, model: type) -> None:
    """Check a document against a model of kfp-server-api, which itself leaves out what it does not know."""
    known = {model.attribute_map[name]: kind for name, kind in model.openapi_types.items()}
    if not known:
        return  # an enumeration
    unknown = document.keys() - known.keys()
    if unknown:
        raise ValueError(f"unknown fields {unknown}")
    for key, value in document.items():
        inner = getattr(kfp_server_api, known[key], None)
        simple = {"str": str, "bool": bool, "datetime": str, "object": dict}
        if inner is not None and inner.openapi_types:
            check(value, inner)
        elif key == "max_concurrency" and isinstance(value, int):
            pass  # the API writes 64-bit integers as text and takes both
        elif known[key] in simple and not isinstance(value, simple[known[key]]):
            raise ValueError(f"{key} is {value!r}, not {known[key]}")


def page(rows: list[dict[str, Any]], key: str, query: dict[str, str]) -> dict[str, Any]:
    """A page of a list; an empty list has no entry, as protobuf's JSON leaves it out."""
    start, size = int(query.get("page_token") or 0), int(query.get("page_size") or 10)
    answer: dict[str, Any] = {"total_size": len(rows)}
    if rows[start : start + size]:
        answer[key] = rows[start : start + size]
    if len(rows) > start + size:
        answer["next_page_token"] = str(start + size)
    return answer


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


def argo_nodes(**states: str) -> dict[str, Any]:
    """Run details as the server makes them of Argo's nodes: drivers, tasks, and executors with retries.

    Args:
        states: state by task, `_` for `-`; a task with a number after `__` is an iteration of a loop.
    """
    details = [node("root-driver", "SUCCEEDED", 0), node("root", "RUNNING", 0)]
    for second, (key, state) in enumerate(states.items()):
        name, _, _iteration = key.partition("__")
        name = name.replace("_", "-")
        pod = f"node-{key}"
        details.append(node(f"{name}-driver", "SUCCEEDED", second))
        task = node(name, state, second)
        task |= {
            "task_id": f"task-{key}",
            "pod_name": f"dag-{key}",
            "child_tasks": [{"pod_name": f"retry-{key}"}],
        }
        retry = node("executor", state, second)
        retry |= {"pod_name": f"retry-{key}", "child_tasks": [{"pod_name": f"{pod}-0"}]}
        attempt = {**node("executor(0)", state, second), "pod_name": f"{pod}-0"}
        details += [task, retry, attempt]
    return {"run_details": {"task_details": details[::-1]}}


def node(name: str, state: str, second: int) -> dict[str, Any]:
    """One node of a workflow."""
    ended = TIME.format(second + 1) if state in ("SUCCEEDED", "FAILED") else "1970-01-01T00:00:00Z"
    return {
        "run_id": "run-0",
        "task_id": f"{name}-{second}",
        "display_name": name,
        "create_time": TIME.format(0),
        "start_time": TIME.format(second),
        "end_time": ended,
        "state": state,
    }
