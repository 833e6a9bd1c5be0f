"""`GET /api/v1/config`: the settings in force, and where each was written."""

import asyncio
import json
from collections.abc import Callable, Mapping
from typing import Any

from aiohttp import hdrs, web
from pydantic import BaseModel, ConfigDict, Field

from bucketfront.admin.operation import Body, Media, Operation
from bucketfront.config.effective import EffectiveSetting
from bucketfront.config.problems import SourceKind


class Setting(BaseModel):
    """A setting in force. Secrets are masked. `place` is a place in the file, a variable or an option."""

    model_config = ConfigDict(extra="forbid")

    key: str
    value: Any
    source: str = Field(json_schema_extra={"enum": [kind.value for kind in SourceKind]})
    place: str | None


class Configuration(BaseModel):
    """All settings, in the order of docs/configuration.md."""

    model_config = ConfigDict(extra="forbid")

    settings: list[Setting]


OPERATIONS: Mapping[str, Operation] = {
    "/api/v1/config": Operation(
        hdrs.METH_GET,
        "The settings in force, and where each was written",
        {200: (Body(Media.JSON, Configuration),)},
    ),
}


Effective = Callable[[], list[EffectiveSetting]]
"""Returns the settings in force now."""


class Configurations:
    """Responds with the settings that `effective` returns. Thousands of rules take a while, so a thread calls it."""

    def __init__(self, effective: Effective) -> None:
        self._effective = effective
        self.handlers = {"/api/v1/config": self._config}

    async def _config(self, _: web.BaseRequest) -> web.Response:
        return web.json_response(body=await asyncio.to_thread(self._body))

    def _body(self) -> bytes:
        return json.dumps({"settings": [setting.as_dict() for setting in self._effective()]}).encode()
