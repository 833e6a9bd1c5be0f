"""The operations of the admin port: the API dispatches by this table, and `/openapi.json` describes it. No I/O here."""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

from aiohttp import hdrs
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from bucketfront.admin import (
    archives,
    configuration,
    dashboard,
    entries,
    events,
    explanations,
    exports,
    figures,
    fills,
    jobs,
    probes,
    purges,
    reloading,
    warming,
    webhook,
)
from bucketfront.admin.operation import FAILURE, Body, Failure, Media, Operation

_REF = "#/components/schemas/{model}"

OPERATIONS: Mapping[str, Operation] = {
    **probes.OPERATIONS,
    **figures.OPERATIONS,
    **fills.OPERATIONS,
    **entries.OPERATIONS,
    **explanations.OPERATIONS,
    **configuration.OPERATIONS,
    **purges.OPERATIONS,
    **webhook.OPERATIONS,
    **warming.OPERATIONS,
    **jobs.OPERATIONS,
    **exports.OPERATIONS,
    **archives.OPERATIONS,
    **reloading.OPERATIONS,
    **events.OPERATIONS,
    **dashboard.OPERATIONS,
    "/openapi.json": Operation(hdrs.METH_GET, "This document", {200: (Body(Media.JSON),)}),
}

# What a request gets that `AdminApplication` does not admit.
_REFUSALS = {
    400: "The request is malformed",
    401: "A token is needed, or another one",
    403: "A page of another origin may not use the admin port",
    421: "The name in `Host` is not served here",
    429: "Too many wrong tokens",
    503: "Too many requests at once",
}
# What a request with a body gets that `read_json` does not take.
_BODY_REFUSALS = (408, 413, 415)
_TITLES = {
    200: "Done",
    202: "It has begun",
    404: "There is nothing of that name",
    408: "The body was late",
    409: "A change needs a restart",
    413: "The body is too large",
    414: "The query is too long",
    415: "The body is not plain JSON, or encoded",
    422: "The configuration is invalid",
    500: "It failed",
    503: "Requests are not served",
    504: "The purge goes on",
}


@functools.cache  # the schemas of all models take tens of milliseconds, in which the event loop does nothing else
def document(version: str) -> Mapping[str, Any]:
    """Return the OpenAPI document of this version of bucketfront. It is the same value each time."""
    bodies = [body for each in OPERATIONS.values() for several in each.responses.values() for body in several]
    models = {body.model for body in bodies if body.model is not None} | {Failure}
    models |= {each.request for each in OPERATIONS.values() if each.request is not None}
    ordered = sorted(models, key=lambda model: model.__name__)
    _, schemas = models_json_schema([(model, "validation") for model in ordered], ref_template=_REF)
    return {
        "openapi": "3.1.0",
        "info": {"title": "bucketfront, admin port", "version": version},
        "paths": {path: _path(path, operation) for path, operation in OPERATIONS.items()},
        "components": {
            "schemas": schemas["$defs"],
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer", "description": "`admin.token`"}},
        },
    }


def _path(path: str, operation: Operation) -> dict[str, Any]:
    """Return the item of one path, which has HEAD beside GET, and its variables."""
    item: dict[str, Any] = {method.lower(): _operation(operation, method) for method in operation.methods}
    names = [segment[1:-1] for segment in path.split("/") if segment.startswith("{")]
    if names:
        item["parameters"] = [
            {"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in names
        ]
    return item


def _operation(operation: Operation, method: str) -> dict[str, Any]:
    own = {status: _response(_TITLES[status], bodies, method) for status, bodies in operation.responses.items()}
    refused = {status: _response(title, FAILURE, method) for status, title in _REFUSALS.items()}
    if operation.request is not None:
        refused |= {status: _response(_TITLES[status], FAILURE, method) for status in _BODY_REFUSALS}
    if operation.query is not None:
        refused[414] = _response(_TITLES[414], FAILURE, method)
    if operation.is_probe:
        refused = {400: refused[400]}
    if operation.is_page:
        refused = {status: refusal for status, refusal in refused.items() if status not in (401, 429)}
    described: dict[str, Any] = {
        "summary": operation.summary,
        "responses": {str(status): response for status, response in sorted({**refused, **own}.items())},
    }
    if not (operation.is_probe or operation.is_page):
        described["security"] = [{"token": []}, {}]
    if operation.query is not None:
        described["parameters"] = _parameters(operation.query)
    if operation.request is not None:
        content = {Media.JSON.value: {"schema": _reference(operation.request)}}
        described["requestBody"] = {"required": True, "content": content}
    if operation.takes is not None:
        described["requestBody"] = {"required": True, "content": {operation.takes.value: {}}}
    return described


def _parameters(model: type[BaseModel]) -> list[dict[str, Any]]:
    schema = model.model_json_schema(ref_template=_REF)
    required = schema.get("required", ())
    return [
        {"name": name, "in": "query", "required": name in required, "schema": each}
        for name, each in schema["properties"].items()
    ]


def _response(title: str, bodies: Sequence[Body], method: str) -> dict[str, Any]:
    if method == hdrs.METH_HEAD:
        return {"description": title}
    content = {body.media.value: {} if body.model is None else {"schema": _reference(body.model)} for body in bodies}
    return {"description": title, "content": content}


def _reference(model: type[BaseModel]) -> dict[str, str]:
    return {"$ref": _REF.format(model=model.__name__)}
