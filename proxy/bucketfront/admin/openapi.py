"""The operations of the admin port: the API dispatches by this table, and `/openapi.json` describes it. No I/O here."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from enum import Enum
from typing import Annotated, Any

from aiohttp import hdrs
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, create_model
from pydantic.json_schema import models_json_schema

from bucketfront.admin.health import Phase
from bucketfront.cache import Statistics

MAX_PATHS = 10_000  # of one purge request; a prefix purges more

_REF = "#/components/schemas/{model}"
_Path = Annotated[str, StringConstraints(min_length=1, max_length=8192)]


class PurgeRequest(BaseModel):
    """The body of a purge. `paths` and `prefix` are percent-encoded request paths, as clients send them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    paths: Annotated[tuple[_Path, ...], Field(max_length=MAX_PATHS)] = ()
    prefix: _Path | None = None
    soft: bool = False


class Purged(BaseModel):
    """How many entries were removed, or with `soft` marked stale."""

    model_config = ConfigDict(extra="forbid")

    purged: int


class Failure(BaseModel):
    """Why a request was refused, in a sentence."""

    model_config = ConfigDict(extra="forbid")

    error: str


class Reason(BaseModel):
    """A kind of failure that lasts."""

    model_config = ConfigDict(extra="forbid")

    reason: str
    name: str
    seconds: int


class Readiness(BaseModel):
    """Whether requests are served, and what is degraded."""

    model_config = ConfigDict(extra="forbid")

    status: str = Field(json_schema_extra={"enum": ["ready", "degraded", *(phase.value for phase in Phase)]})
    ready: bool
    reasons: list[Reason]


_STATISTICS: dict[str, Any] = {
    field.name: (dict[str, int] if field.name == "endings" else field.type, ...) for field in fields(Statistics)
}
Stats: type[BaseModel] = create_model(
    "Stats", __doc__=Statistics.__doc__, __config__=ConfigDict(extra="forbid"), version=(str, ...), **_STATISTICS
)


class Media(Enum):
    JSON = "application/json"
    TEXT = "text/plain"


@dataclass(frozen=True, slots=True)
class Body:
    """A body of that type. Without a `model`, only the type is promised."""

    media: Media
    model: type[BaseModel] | None = None


@dataclass(frozen=True, slots=True)
class Operation:
    """What one path does. A GET is a HEAD as well. `responses` are those of its own, by status, without refusals.

    `is_probe` is True if it needs no token, no name and no place, because an orchestrator's probe has none of them.
    """

    method: str
    summary: str
    responses: Mapping[int, tuple[Body, ...]]
    request: type[BaseModel] | None = None
    is_probe: bool = False

    @property
    def methods(self) -> tuple[str, ...]:
        return (hdrs.METH_GET, hdrs.METH_HEAD) if self.method == hdrs.METH_GET else (self.method,)


_FAILURE = (Body(Media.JSON, Failure),)
_READINESS = (Body(Media.TEXT), Body(Media.JSON, Readiness))

OPERATIONS: Mapping[str, Operation] = {
    "/healthz": Operation(
        hdrs.METH_GET, "Whether the process runs its event loop", {200: (Body(Media.TEXT),)}, is_probe=True
    ),
    "/readyz": Operation(
        hdrs.METH_GET, "Whether requests are served", {200: _READINESS, 503: _READINESS}, is_probe=True
    ),
    "/metrics": Operation(hdrs.METH_GET, "Metrics for Prometheus", {200: (Body(Media.TEXT),)}),
    "/openapi.json": Operation(hdrs.METH_GET, "This document", {200: (Body(Media.JSON),)}),
    "/api/v1/stats": Operation(hdrs.METH_GET, "The cache in figures", {200: (Body(Media.JSON, Stats),)}),
    "/api/v1/purge": Operation(
        hdrs.METH_POST,
        "Remove objects from the cache, or mark them stale",
        {
            200: (Body(Media.JSON, Purged),),
            **dict.fromkeys((408, 413, 415, 500, 504), _FAILURE),
        },
        PurgeRequest,
    ),
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
_TITLES = {
    200: "Done",
    408: "The body was late",
    413: "The body is too large",
    415: "The body is not plain JSON",
    500: "The disk failed",
    503: "Requests are not served",
    504: "The purge goes on",
}


def document(version: str) -> dict[str, Any]:
    """Return the OpenAPI document of this version of bucketfront."""
    bodies = [body for each in OPERATIONS.values() for several in each.responses.values() for body in several]
    models = {body.model for body in bodies if body.model is not None} | {Failure}
    models |= {each.request for each in OPERATIONS.values() if each.request is not None}
    ordered = sorted(models, key=lambda model: model.__name__)
    _, schemas = models_json_schema([(model, "validation") for model in ordered], ref_template=_REF)
    return {
        "openapi": "3.1.0",
        "info": {"title": "bucketfront, admin port", "version": version},
        "paths": {path: _path(operation) for path, operation in OPERATIONS.items()},
        "components": {
            "schemas": schemas["$defs"],
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer", "description": "`admin.token`"}},
        },
    }


def _path(operation: Operation) -> dict[str, Any]:
    """Return the item of one path, which has HEAD beside GET."""
    return {method.lower(): _operation(operation, method) for method in operation.methods}


def _operation(operation: Operation, method: str) -> dict[str, Any]:
    own = {status: _response(_TITLES[status], bodies, method) for status, bodies in operation.responses.items()}
    refused = {status: _response(title, _FAILURE, method) for status, title in _REFUSALS.items()}
    if operation.is_probe:
        refused = {400: refused[400]}
    described: dict[str, Any] = {
        "summary": operation.summary,
        "responses": {str(status): response for status, response in sorted({**refused, **own}.items())},
    }
    if not operation.is_probe:
        described["security"] = [{"token": []}, {}]
    if operation.request is not None:
        content = {Media.JSON.value: {"schema": _reference(operation.request)}}
        described["requestBody"] = {"required": True, "content": content}
    return described


def _response(title: str, bodies: Sequence[Body], method: str) -> dict[str, Any]:
    if method == hdrs.METH_HEAD:
        return {"description": title}
    content = {body.media.value: {} if body.model is None else {"schema": _reference(body.model)} for body in bodies}
    return {"description": title, "content": content}


def _reference(model: type[BaseModel]) -> dict[str, str]:
    return {"$ref": _REF.format(model=model.__name__)}
