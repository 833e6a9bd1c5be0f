"""`/healthz` and `/readyz`: what an orchestrator and a load balancer want to know."""

from collections.abc import Mapping

from aiohttp import hdrs, web
from pydantic import BaseModel, ConfigDict, Field

from bucketfront.admin.health import Health, Phase
from bucketfront.admin.operation import Body, Media, Operation
from bucketfront.cache import CacheMode


class LastingFailure(BaseModel):
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
    cache_mode: str = Field(json_schema_extra={"enum": [*CacheMode]})
    reasons: list[LastingFailure]


_READINESS = (Body(Media.TEXT), Body(Media.JSON, Readiness))

OPERATIONS: Mapping[str, Operation] = {
    "/healthz": Operation(
        hdrs.METH_GET, "Whether the process runs its event loop", {200: (Body(Media.TEXT),)}, is_probe=True
    ),
    "/readyz": Operation(
        hdrs.METH_GET, "Whether requests are served", {200: _READINESS, 503: _READINESS}, is_probe=True
    ),
}


class Probes:
    """Responds to probes. They need no token, so the responses have neither keys nor the names of buckets."""

    def __init__(self, health: Health, mode: CacheMode) -> None:
        self._health = health
        self._mode = mode
        self.handlers = {"/healthz": self._healthz, "/readyz": self._readyz}

    async def _healthz(self, _: web.BaseRequest) -> web.Response:
        return web.Response(text="ok\n")

    async def _readyz(self, request: web.BaseRequest) -> web.Response:
        """Respond with 200 while requests are served, also if the proxy is degraded, and with 503 before and after.

        The first line of the text stays the same for probes that compare it.
        """
        health = self._health
        is_ready = health.phase is Phase.SERVING
        troubles = [
            (trouble.kind.reason.value, trouble.kind.name, health.lasted(trouble)) for trouble in health.troubles
        ]
        status = 200 if is_ready else 503
        if "application/json" in request.headers.get("Accept", ""):
            state = health.phase.value if not is_ready else "degraded" if troubles else "ready"
            reasons = [{"reason": reason, "name": name, "seconds": round(lasted)} for reason, name, lasted in troubles]
            facts = {"status": state, "ready": is_ready, "cache_mode": self._mode.value, "reasons": reasons}
            return web.json_response(facts, status=status)
        lines = ["ready"] if is_ready else ["not ready", health.phase.value]
        lines += [f"degraded: {reason} ({name}), for {lasted:.0f} s" for reason, name, lasted in troubles]
        if self._mode is not CacheMode.SERVE:
            lines.append(f"cache.mode is {self._mode}")
        return web.Response(status=status, text="\n".join((*lines, "")))
