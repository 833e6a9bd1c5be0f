"""The rule by which an app beside bucketfront decides on each request."""

import asyncio
import hashlib
import logging
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from bucketfront.config.access_settings import ForwardSettings
from bucketfront.errors import AccessUnavailable
from bucketfront.fair_share import Client, Shares
from bucketfront.fair_slots import FairSlots, Wait
from bucketfront.server.access.http_client import MAX_CONNECTIONS, HttpClient, shown
from bucketfront.server.access.networks import client_of
from bucketfront.server.access.rule import AccessRequest, Denial, Grant, RuleVerdict, Scope

MAX_REMEMBERED = 10_000
REPORT_INTERVAL_S = 60.0  # between two warnings: the log stays readable while the app fails

_SENT = ("authorization", "cookie", "user-agent")
_GRANT = Grant(Scope.PATH)

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Remembered:
    verdict: RuleVerdict
    until: float


class ForwardRule:
    """Holds for requests that the app permits. `elapsed` is a clock in seconds.

    Decisions that wait for a connection to the app queue by client, so that one client does not delay the others.
    """

    scope = Scope.PATH
    challenge = None

    def __init__(self, settings: ForwardSettings, elapsed: Callable[[], float]) -> None:
        self._settings = settings
        self._elapsed = elapsed
        self._client = HttpClient(settings.timeout)
        self._slots = FairSlots(Shares(MAX_CONNECTIONS))
        self._remembered: OrderedDict[bytes, _Remembered] = OrderedDict()
        self._running: dict[bytes, asyncio.Task[RuleVerdict]] = {}
        self._reported_at: float | None = None

    async def examine(self, request: AccessRequest) -> RuleVerdict:
        described = _description(request)
        if not all(value.isprintable() for value in described.values()):
            return Denial("a field of the request cannot be passed on")
        client = None if request.address is None else client_of(str(request.address))
        if not self._settings.remember:
            return await self._ask(described, client)
        # A hash, so that memory holds no credential.
        name = hashlib.sha256(repr(sorted(described.items())).encode("utf-8", "surrogateescape")).digest()
        known = self._remembered.get(name)
        if known is not None and self._elapsed() < known.until:
            return known.verdict
        task = self._running.get(name)
        if task is None:
            task = self._running[name] = asyncio.create_task(self._ask_and_remember(name, described, client))
            task.add_done_callback(lambda _: self._running.pop(name, None))
        return await asyncio.shield(task)

    async def close(self) -> None:
        for task in list(self._running.values()):
            task.cancel()
        await self._client.close()

    async def _ask_and_remember(self, name: bytes, described: dict[str, str], client: Client) -> RuleVerdict:
        verdict = await self._ask(described, client)
        self._remembered[name] = _Remembered(verdict, self._elapsed() + self._settings.remember)
        self._remembered.move_to_end(name)
        while len(self._remembered) > MAX_REMEMBERED:
            self._remembered.popitem(last=False)
        return verdict

    async def _ask(self, described: dict[str, str], client: Client) -> RuleVerdict:
        """Return the app's verdict. Raises AccessUnavailable."""
        try:
            status = await self._status(described, client)
        except AccessUnavailable as error:
            self._report(str(error))
            raise
        if 200 <= status < 300:
            return _GRANT
        if status in (401, 403):
            return Denial("the app refuses the request")
        self._report(f"{shown(self._settings.url)} responded {status}")
        raise AccessUnavailable("the app that decides on access failed")

    async def _status(self, described: dict[str, str], client: Client) -> int:
        """Return the status of the app's response. Raises AccessUnavailable."""
        wait = Wait(client)
        try:
            async with asyncio.timeout(self._settings.timeout):
                await self._slots.acquire(wait)
        except TimeoutError:
            raise AccessUnavailable(f"{shown(self._settings.url)} has too many requests to decide") from None
        try:
            status, _ = await self._client.get(self._settings.url, described, 0)
        finally:
            self._slots.release(wait.client)
        return status

    def _report(self, reason: str) -> None:
        """Warn that requests cannot be decided, at most once in REPORT_INTERVAL_S."""
        now = self._elapsed()
        if self._reported_at is None or now - self._reported_at >= REPORT_INTERVAL_S:
            self._reported_at = now
            log.warning("access cannot be decided: %s", reason)


def _description(request: AccessRequest) -> dict[str, str]:
    """Return the fields of the GET to the app."""
    fields = {name: value for name in _SENT if (value := request.field(name)) is not None}
    target = f"{request.path}?{request.query}" if request.query else request.path
    fields |= {"x-forwarded-method": request.method, "x-forwarded-uri": target}
    if (host := request.field("host")) is not None:
        fields["x-forwarded-host"] = host
    if request.address is not None:
        fields["x-forwarded-for"] = str(request.address)
    return fields
