"""`/api/v1/reload`: operators have the configuration read again."""

from collections.abc import Awaitable, Callable, Mapping

from aiohttp import hdrs, web
from pydantic import BaseModel, ConfigDict, Field

from bucketfront.admin.operation import Body, Media, Operation
from bucketfront.admin.reloader import ReloadOutcome, ReloadVerdict
from bucketfront.admin.request_body import read_json

CAUSE = "POST /api/v1/reload"

_STATUSES = {
    ReloadVerdict.RELOADED: 200,
    ReloadVerdict.INVALID: 422,
    ReloadVerdict.NEEDS_RESTART: 409,
    ReloadVerdict.FAILED: 500,
    ReloadVerdict.STOPPING: 503,
}


class ReloadRequest(BaseModel):
    """A reload has no choices: `{}`."""

    model_config = ConfigDict(extra="forbid")


class Reload(BaseModel):
    """How a reload ended. Unless `reloaded` is true, the configuration before goes on unchanged."""

    model_config = ConfigDict(extra="forbid")

    reloaded: bool
    result: str = Field(json_schema_extra={"enum": [verdict.value for verdict in ReloadVerdict]})
    changed: list[str]
    """Names of the settings whose values differ."""
    problems: list[str]
    """Lines with the place in the file, the setting, and the cure."""
    warnings: list[str]


_BODIES = (Body(Media.JSON, Reload),)

OPERATIONS: Mapping[str, Operation] = {
    "/api/v1/reload": Operation(
        hdrs.METH_POST,
        "Read the configuration again: all of it applies, or none",
        dict.fromkeys(sorted(_STATUSES.values()), _BODIES),
        ReloadRequest,
    ),
}


class Reloading:
    """Has `reload` called when an operator asks for it."""

    def __init__(self, reload: Callable[[str], Awaitable[ReloadOutcome]]) -> None:
        self._reload = reload
        self.handlers = {"/api/v1/reload": self._respond}

    async def _respond(self, request: web.BaseRequest) -> web.Response:
        await read_json(request, ReloadRequest)
        outcome = await self._reload(CAUSE)
        found = Reload(
            reloaded=outcome.verdict is ReloadVerdict.RELOADED,
            result=outcome.verdict.value,
            changed=list(outcome.changed),
            problems=list(outcome.problems),
            warnings=list(outcome.warnings),
        )
        return web.json_response(found.model_dump(), status=_STATUSES[outcome.verdict])
