"""A small server of the Kubernetes API: objects that the schemas accept, logs, reviews of access, a proxy."""

import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs

import kubernetes_validate

PLURALS = {
    "Node": "nodes",
    "PersistentVolumeClaim": "persistentvolumeclaims",
    "Secret": "secrets",
    "ConfigMap": "configmaps",
    "ServiceAccount": "serviceaccounts",
    "Deployment": "deployments",
    "Pod": "pods",
}


class Stub:
    """The server's state."""

    def __init__(self) -> None:
        self.objects: dict[tuple[str, str, str], dict[str, Any]] = {}
        """By plural, namespace (empty for nodes) and name."""
        self.version = "1.36"
        self.health: bytes | None = b'{"multi_user":false,"pipeline_store":"database"}'
        """What ml-pipeline says; None where there is no such service."""
        self.denied: set[tuple[str, str, str]] = set()
        """(who, verb, resource) that are denied; who is `me` or the name of a service account."""
        self.forbidden: set[str] = set()
        """Resources that may not be read."""
        self.logs: dict[str, str] = {}
        """What the containers `main` of pods wrote; one that is not here has not started."""
        self.broken: set[str] = set()
        """Pods to which the connection breaks while their logs are read."""
        self.asked: list[str] = []
        """Paths that were asked for."""
        self.token = "token-of-the-test"
        stub = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_: Any) -> None:
                pass

            def _handle(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                body = json.loads(self.rfile.read(length)) if length else {}
                code, answer = stub.answer(self.command, self.path, self.headers.get("Authorization"), body)
                data = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
                self.send_response(code)
                self.send_header("Content-Type", "application/json")
                if any(f"/pods/{pod}/log" in self.path for pod in stub.broken):
                    self.send_header("Transfer-Encoding", "chunked")
                    self.end_headers()
                    self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))  # and no end
                    return
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            do_GET = do_POST = _handle  # noqa: N815 - the base class asks for these names

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.host = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def put(self, one: dict[str, Any]) -> None:
        """Keep an object, which must be one that Kubernetes accepts."""
        kubernetes_validate.validate(one, "1.36", strict=True)
        metadata = one["metadata"]
        self.objects[PLURALS[one["kind"]], metadata.get("namespace", ""), metadata["name"]] = one

    def kubeconfig(self) -> dict[str, Any]:
        return {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "here",
            "contexts": [{"name": "here", "context": {"cluster": "stub", "user": "me"}}],
            "clusters": [{"name": "stub", "cluster": {"server": self.host}}],
            "users": [{"name": "me", "user": {"token": self.token}}],
        }

    def answer(self, method: str, path: str, token: str | None, body: dict[str, Any]) -> tuple[int, Any]:
        """The answer to a request: status and document."""
        if token != f"Bearer {self.token}":
            return _status(401, "Unauthorized", "Unauthorized")
        path, _, query = path.partition("?")
        self.asked.append(path)
        asked = {key: values[0] for key, values in parse_qs(query).items()}
        if path == "/version/":
            major, minor = self.version.split(".")
            return 200, {
                "major": major,
                "minor": minor,
                "gitVersion": f"v{self.version}.0",
                "gitCommit": "0" * 40,
                "gitTreeState": "clean",
                "buildDate": "2026-04-22T00:00:00Z",
                "goVersion": "go1.26",
                "compiler": "gc",
                "platform": "linux/amd64",
            }
        if path.endswith("/proxy/apis/v2beta1/healthz"):
            assert "/services/http:ml-pipeline:8888/" in path
            if self.health is None:
                return _status(404, "NotFound", 'services "ml-pipeline" not found')
            return 200, self.health
        if method == "POST":
            return self._review(path, body)
        log = re.fullmatch(r"/api/v1/namespaces/[^/]+/pods/([^/]+)/log", path)
        if log:
            return self._log(log[1], asked)
        found = re.fullmatch(r"/(?:api|apis/apps)/v1/(?:namespaces/([^/]+)/)?(\w+)(?:/([^/]+))?", path)
        assert found, path
        namespace, plural, name = found[1] or "", found[2], found[3]
        if plural in self.forbidden:
            return _status(403, "Forbidden", f"{plural} is forbidden")
        if name is None:
            label, _, value = asked.get("labelSelector", "").partition("=")
            items = [
                one
                for (kind, place, _), one in self.objects.items()
                if (kind, place) == (plural, namespace)
                and (not label or one["metadata"].get("labels", {}).get(label) == value)
            ]
            return 200, {"apiVersion": "v1", "kind": "NodeList", "metadata": {}, "items": items}
        one = self.objects.get((plural, namespace, name))
        return (200, one) if one else _status(404, "NotFound", f'{plural} "{name}" not found')

    def _log(self, pod: str, asked: dict[str, str]) -> tuple[int, Any]:
        assert asked["container"] == "main"
        if pod not in self.logs:
            return _status(400, "BadRequest", "container main is waiting to start: ContainerCreating")
        lines = self.logs[pod].splitlines(keepends=True)
        return 200, "".join(lines[-int(asked.get("tailLines", len(lines))) :]).encode()

    def _review(self, path: str, body: dict[str, Any]) -> tuple[int, Any]:
        kind = path.rpartition("/")[2]
        if kind in self.forbidden:
            return _status(403, "Forbidden", f"{kind} is forbidden")
        kubernetes_validate.validate(body | _TYPES[kind], "1.36", strict=True)
        spec = body["spec"]
        who = spec["user"].split(":")[-1] if "user" in spec else "me"
        asked = spec["resourceAttributes"]
        known = _GROUPS[asked["resource"]] == asked.get("group", "")
        allowed = known and (who, asked["verb"], asked["resource"]) not in self.denied
        return 201, body | _TYPES[kind] | {"status": {"allowed": allowed}}


_GROUPS = {
    "experiments": "pipelines.kubeflow.org",
    "runs": "pipelines.kubeflow.org",
    "jobs": "pipelines.kubeflow.org",
    "pipelines": "pipelines.kubeflow.org",
    "workflowtaskresults": "argoproj.io",
    "configmaps": "",
    "pods": "",
}
"""The API group of each resource; a rule for one group allows nothing in another."""
_TYPES = {
    "selfsubjectaccessreviews": {"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview"},
    "localsubjectaccessreviews": {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "LocalSubjectAccessReview",
    },
}


def _status(code: int, reason: str, message: str) -> tuple[int, dict[str, Any]]:
    return code, {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": message,
        "reason": reason,
        "code": code,
    }
