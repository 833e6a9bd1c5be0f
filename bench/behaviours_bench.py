"""The tools of every row of the table: requests, their cost at the origin, and the texts of the cells."""

import asyncio
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import content
from behaviours_client import SILENCE_TIMEOUT_S, Response, exchange
from behaviours_origin import Origin, OriginRequest, Thing

EXPIRED_AFTER_S = 2.3  # seconds after which `max-age=1` has expired for all proxies: nginx counts whole seconds
SLOW_S = 0.4  # seconds that the origin delays a response if the row shows which request waited for it
BACKGROUND_S = 0.3  # seconds within which a background request has reached the origin
UNITS = {"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}


@dataclass(slots=True)
class Bench:
    """One proxy, its origin, and one row. `name` is a key that no other row uses, so it identifies the row's
    requests.
    """

    port: int
    origin: Origin
    name: str
    _mark: int = 0

    def has(self, size: int = 4096, name: str | None = None, **fields: str) -> Thing:
        """Store an object at the origin, with `Cache-Control: max-age=300` unless `Cache_Control` overrides it."""
        return self.origin.has(name or self.name, size, **{"Cache_Control": "max-age=300", **fields})

    async def fetch(
        self,
        *fields: str,
        method: str = "GET",
        path: str | None = None,
        version: str = "1.1",
        limit: int | None = None,
        timeout_s: float = SILENCE_TIMEOUT_S,
        body: bytes = b"",
    ) -> Response:
        """Send one request on a connection of its own. `fields` are header lines."""
        raw = self.raw(*fields, method=method, path=path, version=version)
        return await exchange(self.port, raw + body, method=method, limit=limit, timeout_s=timeout_s)

    def raw(self, *fields: str, method: str = "GET", path: str | None = None, version: str = "1.1") -> bytes:
        lines = [f"{method} {path or f'/{self.name}'} HTTP/{version}", f"Host: 127.0.0.1:{self.port}", *fields, "", ""]
        return "\r\n".join(lines).encode("latin-1")

    def counted(self) -> list[OriginRequest]:
        """Return the origin's requests since the last call of `counted`."""
        requests = self.requests
        self._mark += len(requests)
        return requests

    @property
    def requests(self) -> list[OriginRequest]:
        """Return the origin's requests since the last call of `counted`, and leave them uncounted."""
        return [request for request in self.origin.requests if self.name in request.target][self._mark :]

    async def warmed(self, thing: Thing) -> None:
        """Read the whole object, so that it is cached as far as the proxy stores it."""
        await self.fetch(path=f"/{thing.name}")
        await self.settle()

    async def sent(self, count: int) -> None:
        """Wait until the origin has sent so many bytes for this row."""
        while sum(request.sent for request in self.requests) < count:  # noqa: ASYNC110 - the account has no event
            await asyncio.sleep(0.01)

    async def settle(self, still: float = 0.15) -> None:
        """Wait until the origin has sent no byte for so many seconds."""
        before = -1
        while (now := sum(request.sent + 1 for request in self.requests)) != before:
            before = now
            await asyncio.sleep(still)

    async def summary(self, *fields: str, thing: Thing, method: str = "GET", path: str | None = None) -> str:
        """Return the client's result and its cost at the origin, as in `200, hit`."""
        self.counted()
        return f"{shown(await self.fetch(*fields, method=method, path=path), thing)}, {await self.cost()}"

    async def cost(self) -> str:
        """Return the cost of the last requests in the terms of the table."""
        await self.settle()
        return cost(self.counted())

    async def later(self, thing: Thing, *fields: str) -> str:
        """Return whether a request for a possibly expired object is a hit, and which requests it waits for."""
        self.counted()
        thing.delay = SLOW_S
        response = await self.fetch(*fields)
        await asyncio.sleep(BACKGROUND_S)
        waited = response.seconds >= SLOW_S
        await self.settle(SLOW_S + 0.1)
        thing.delay = 0.0
        requests = self.counted()
        if not requests:
            return _with_status(response, thing, "hit")
        return _with_status(
            response, thing, cost(requests) if waited else f"stale at once, behind it: {cost(requests)}"
        )


def _with_status(response: Response, thing: Thing, words: str) -> str:
    """Prefix statuses other than 200."""
    return words if shown(response, thing) == "200" else f"{shown(response, thing)}, {words}"


def cost(requests: list[OriginRequest]) -> str:
    """Return `hit`, or the requests at the origin, as in `GET 200, 4 KiB`. Requests of a kind are counted."""
    if not requests:
        return "hit"
    kinds: dict[str, list[OriginRequest]] = {}
    for each in requests:
        kinds.setdefault(f"{each.method} {each.status or 'dropped'}", []).append(each)
    words = []
    for kind, alike in kinds.items():
        times = f"{len(alike)} x " if len(alike) > 1 else ""
        sent = sum(each.sent for each in alike)
        words.append(f"{times}{kind}, {amount(sent)}" if "GET 2" in kind else f"{times}{kind}")
    return "; ".join(words)


def amount(count: int) -> str:
    if count < 1024:
        return f"{count} B"
    unit = next(unit for unit in UNITS if count < UNITS[unit] * 1024)
    value = count / UNITS[unit]
    return f"{value:.0f} {unit}" if value >= 10 or value == int(value) else f"{value:.1f} {unit}"


def shown(response: Response, thing: Thing | None = None) -> str:
    """Return status and relevant body: `206 0-99`, `416 */4096`, `206, 2 parts`, `200, cut after 1 MiB`.

    Bodies are compared with the version that the ETag names; a body that differs is called wrong.
    """
    if response.status is None:
        return {"closed": "connection closed", "silent": "no answer"}.get(response.fault, response.fault)
    words = str(response.status)
    if response.status == 416:
        words += f" {(response.get('content-range') or 'without Content-Range').removeprefix('bytes ')}"
    elif response.status == 206:
        words += _part(response, thing)
    elif (
        response.status == 200
        and thing is not None
        and response.received
        and _is_wrong(response, thing, 0, response.body)
    ):
        words += ", wrong bytes"
    if not response.whole:
        words += f", cut after {amount(response.received)}" if response.fault == "closed" else ", stalls"
    return words


def _part(response: Response, thing: Thing | None) -> str:
    kind = response.get("content-type") or ""
    found = re.search(r"boundary=\"?([^\";]+)", kind)
    if kind.startswith("multipart/byteranges") and found is not None:
        parts = response.body.split(b"--" + found[1].encode())[1:-1]
        wrong = thing is not None and any(_is_part_wrong(response, thing, part) for part in parts)
        return f", {len(parts)} parts{', wrong bytes' if wrong else ''}"
    span = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+)", response.get("content-range") or "")
    if span is None:
        return " without Content-Range"
    words = f" {span[1]}-{span[2]}"
    if thing is not None and _is_wrong(response, thing, int(span[1]), response.body):
        words += ", wrong bytes"
    return words


def _is_part_wrong(response: Response, thing: Thing, part: bytes) -> bool:
    head, _, body = part.partition(b"\r\n\r\n")
    found = re.search(rb"bytes (\d+)-(\d+)/", head)
    body = body.removesuffix(b"\r\n")
    return (
        found is None
        or int(found[2]) - int(found[1]) + 1 != len(body)
        or _is_wrong(response, thing, int(found[1]), body)
    )


def _is_wrong(response: Response, thing: Thing, offset: int, body: bytes) -> bool:
    version = thing.version_of(response.get("etag") or "")
    return version is not None and content.first_wrong(thing.seed(version), offset, memoryview(body)) is not None


def instant(seconds: float) -> str:
    """Return the time with low precision, so that two runs give the same text."""
    return "at once" if seconds < 0.5 else f"after {seconds:.0f} s" if seconds >= 1.5 else "after 1 s"


Experiment = Callable[[Bench], Awaitable[str]]


@dataclass(frozen=True, slots=True)
class Row:
    """One row. `rfc` is the section that defines the behaviour, as in `9110 14.2`, or another source.

    `want` is a pattern of the cells that the section requires, None if it leaves a choice. `alone`: the origin fails in
    the row, or times matter. Such a row runs last and by itself, and the proxy gets time to recover.
    """

    what: str
    rfc: str
    experiment: Experiment
    want: str | None = None
    alone: bool = False

    def is_met(self, cell: str) -> bool:
        return self.want is None or re.fullmatch(self.want, cell) is not None


class Group:
    def __init__(self, title: str) -> None:
        self.title = title
        self.rows: list[Row] = []

    def row(
        self, what: str, rfc: str, want: str | None = None, *, alone: bool = False
    ) -> Callable[[Experiment], Experiment]:
        """Decorate the function that makes the cell."""

        def add(experiment: Experiment) -> Experiment:
            self.rows.append(Row(what, rfc, experiment, want, alone))
            return experiment

        return add

    def warm(self, what: str, rfc: str, want: str | None, *fields: str, method: str = "GET", size: int = 4096) -> None:
        """Add a row with one request for a cached object. `{etag}` and `{date}` in a header are the object's own."""

        async def experiment(bench: Bench) -> str:
            thing = bench.has(size)
            await bench.warmed(thing)
            own = [each.replace("{etag}", thing.etag()).replace("{date}", thing.last_modified) for each in fields]
            return shown(await bench.fetch(*own, method=method), thing)

        self.rows.append(Row(what, rfc, experiment, want))
