"""Requests of the Kubeflow Pipelines API as the models of kfp-server-api describe them, and its lists."""

import json
import operator
from typing import Any

import kfp_server_api

_OPERATIONS = {"EQUALS": operator.eq, "NOT_EQUALS": operator.ne, "IS_SUBSTRING": operator.contains}


class RefusedError(Exception):
    """An error that the server answers."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


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
    for one in json.loads(query.get("filter") or "{}").get("predicates", []):
        field, text, holds = one["key"], one["stringValue"], _OPERATIONS[one["operation"]]
        rows = [o for o in rows if holds(o.get(field, ""), text)]
    start, size = int(query.get("page_token") or 0), int(query.get("page_size") or 10)
    answer: dict[str, Any] = {"total_size": len(rows)}
    if rows[start : start + size]:
        answer[key] = rows[start : start + size]
    if len(rows) > start + size:
        answer["next_page_token"] = str(start + size)
    return answer
