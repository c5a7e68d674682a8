"""Asks an MLflow server. Source: MLflow's REST API 2.0.

Address and login come from the environment, by the names that MLflow's own client and Kubeflow's plugin use:
MLFLOW_TRACKING_URI, MLFLOW_TRACKING_TOKEN or MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD,
MLFLOW_WORKSPACE. They are written nowhere.
"""

import base64
import json
import os
import urllib.error
import urllib.request
from http.client import HTTPException
from typing import Any

from components.errors import PassingError, UserError

ADDRESS = "MLFLOW_TRACKING_URI"
_TIMEOUT = 30.0


def call(
    address: str, path: str, body: dict[str, Any] | None = None, *, known: str = "", timeout: float = _TIMEOUT
) -> dict[str, Any]:
    """Ask the server at an address.

    Args:
        address: http(s)://HOST.
        path: below /api/2.0/mlflow/.
        body: what is sent; None asks with GET.
        known: an error code that is no failure, such as RESOURCE_ALREADY_EXISTS.
        timeout: longest wait for an answer, in seconds.

    Returns:
        The answer; empty for the known error.

    Raises:
        UserError: the server refuses it, or is no MLflow server.
        PassingError: it cannot be reached.
    """
    url = f"{address.rstrip('/')}/api/2.0/mlflow/{path}"
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})  # noqa: S310
    if login := _login():
        request.add_header("Authorization", login)
    if workspace := os.environ.get("MLFLOW_WORKSPACE"):
        request.add_header("X-MLFLOW-WORKSPACE", workspace)
    try:
        with urllib.request.urlopen(request, timeout=timeout) as answer:  # noqa: S310
            found: dict[str, Any] = json.loads(answer.read() or b"{}")
            return found
    except urllib.error.HTTPError as error:
        text = error.read().decode(errors="replace")
        if known and known in text:
            return {}
        kind = PassingError if error.code == 429 or error.code >= 500 else UserError
        raise kind(
            f"MLflow at {address} answers {path.split('?')[0]} with {error.code}: {text[:500]}"
        ) from error
    except ValueError as error:
        raise UserError(f"{address} is no MLflow server: {error}") from error
    except (OSError, HTTPException) as error:
        raise PassingError(f"MLflow at {address} cannot be reached: {error}") from error


def _login() -> str:
    """The header that tells the server who asks; empty where nothing says it."""
    if token := os.environ.get("MLFLOW_TRACKING_TOKEN"):
        return f"Bearer {token}"
    if name := os.environ.get("MLFLOW_TRACKING_USERNAME"):
        pair = f"{name}:{os.environ.get('MLFLOW_TRACKING_PASSWORD', '')}"
        return f"Basic {base64.b64encode(pair.encode()).decode()}"
    return ""
