"""Rows about freshness, stale responses, revalidation (RFC 9111, 5861, 9213) and an origin that fails."""

import asyncio
import time
from email.utils import formatdate

from behaviours_bench import EXPIRED_AFTER_S, Bench, Group, instant, shown
from behaviours_origin import Thing

FRESHNESS = Group("Freshness: a second request, right after the first")
STALE = Group("Stale objects: `max-age=1`, asked again after 2 s, the origin well")
REVALIDATION = Group("Revalidation")
OUTAGE = Group("An origin that fails")

FAR_PAST = "Sun, 06 Nov 1994 08:49:37 GMT"


REQUESTS_FIRST = r"(?!hit|stale).*"  # requests the origin before the response
NOT_FRESH = r"(?!hit).*"


def _second(what: str, rfc: str, want: str | None = None, **fields: str) -> None:
    async def experiment(bench: Bench) -> str:
        thing = bench.has(4096, None, **fields)
        await bench.warmed(thing)
        return await bench.later(thing)

    FRESHNESS.row(what, rfc, want)(experiment)


_second("`max-age=300`", "9111 5.2.2.1")
_second("`max-age=0`", "9111 5.2.2.1", NOT_FRESH, Cache_Control="max-age=0")
_second("`s-maxage=300, max-age=0`", "9111 5.2.2.10", Cache_Control="s-maxage=300, max-age=0")
_second("`no-store`", "9111 5.2.2.5", REQUESTS_FIRST, Cache_Control="no-store")
_second("`private`", "9111 5.2.2.7", REQUESTS_FIRST, Cache_Control="private, max-age=300")
_second("`no-cache`", "9111 5.2.2.4", REQUESTS_FIRST, Cache_Control="no-cache")
_second("`max-age=300, no-cache`", "9111 5.2.2.4", REQUESTS_FIRST, Cache_Control="max-age=300, no-cache")
_second('`max-age="300"`', "9111 5.2", Cache_Control='max-age="300"')
_second("Expires in an hour", "9111 5.3", Cache_Control="", Expires=formatdate(time.time() + 3600, usegmt=True))
_second("Expires in the past", "9111 5.3", NOT_FRESH, Cache_Control="", Expires=FAR_PAST)
_second("`Expires: 0`", "9111 5.3", NOT_FRESH, Cache_Control="", Expires="0")
_second("`max-age=300` and Expires in the past", "9111 5.3", Expires=FAR_PAST)
_second("`max-age=300` and `Age: 400`", "9111 4.2.3", NOT_FRESH, Age="400")
_second("Nothing said, Last-Modified long ago", "9111 4.2.2", Cache_Control="")
_second("`CDN-Cache-Control: max-age=300`, `no-store` for others", "9213 2.2", Cache_Control="no-store",
        CDN_Cache_Control="max-age=300")  # fmt: skip
_second("`CDN-Cache-Control: no-store`, `max-age=300` for others", "9213 2.2", CDN_Cache_Control="no-store")
_second("`Surrogate-Control: max-age=300`, `no-store` for others", "Edge Architecture 1.0", Cache_Control="no-store",
        Surrogate_Control="max-age=300")  # fmt: skip
_second("`Set-Cookie` in the origin's answer", "9111 7.3", Set_Cookie="a=b")
_second("`Vary: *`", "9111 4.1", REQUESTS_FIRST, Vary="*")


def _with_field(what: str, rfc: str, want: str | None, request_field: str) -> None:
    async def experiment(bench: Bench) -> str:
        thing = bench.has()
        await bench.fetch(request_field)
        await bench.settle()
        return await bench.later(thing, request_field)

    FRESHNESS.row(what, rfc, want)(experiment)


_with_field("Both requests with a `Cookie`", "6265", None, "Cookie: session=1")
_with_field("Both requests with `Authorization`", "9111 3.5", REQUESTS_FIRST, "Authorization: Basic YTpi")


@FRESHNESS.row("`Vary: Accept-Language`, another language", "9111 4.1", REQUESTS_FIRST)
async def vary(bench: Bench) -> str:
    thing = bench.has(Vary="Accept-Language")
    await bench.fetch("Accept-Language: en")
    await bench.settle()
    return await bench.later(thing, "Accept-Language: de")


@FRESHNESS.row("404 of the origin", "9111 4; 9110 15.5.5")
async def absent(bench: Bench) -> str:
    await bench.fetch()
    return await bench.summary(thing=Thing(bench.name, 0))


@FRESHNESS.row("404 of the origin, then the object is made there: asked a second later", "")
async def appeared(bench: Bench) -> str:
    await bench.fetch()
    thing = bench.has()
    await asyncio.sleep(1)
    return await bench.summary(thing=thing)


@FRESHNESS.row("403 of the origin", "9110 15.5.4")
async def forbidden(bench: Bench) -> str:
    thing = bench.has()
    thing.status = 403
    await bench.fetch()
    await bench.settle()
    return await bench.summary(thing=thing)


@FRESHNESS.row("500 of the origin, then it is well", "9110 15.6.1", alone=True)
async def broken(bench: Bench) -> str:
    thing = bench.has()
    thing.status = 500
    first = shown(await bench.fetch())
    await bench.settle()
    thing.status = 200
    return f"{first}, then {await bench.summary(thing=thing)}"


# --- stale, with a healthy origin ----------------------------------------------------------------------------------


def _stale(what: str, rfc: str, want: str | None, control: str) -> None:
    async def experiment(bench: Bench) -> str:
        thing = bench.has(Cache_Control=control)
        await bench.warmed(thing)
        await asyncio.sleep(EXPIRED_AFTER_S)
        return await bench.later(thing)

    STALE.row(what, rfc, want)(experiment)


_stale("nothing else said", "9111 4.2.4", None, "max-age=1")
_stale("`stale-while-revalidate=60`", "5861 3", None, "max-age=1, stale-while-revalidate=60")
_stale("`stale-while-revalidate=0`", "5861 3", REQUESTS_FIRST, "max-age=1, stale-while-revalidate=0")
_stale("`must-revalidate`", "9111 5.2.2.2", REQUESTS_FIRST, "max-age=1, must-revalidate")
_stale("`proxy-revalidate`", "9111 5.2.2.8", REQUESTS_FIRST, "max-age=1, proxy-revalidate")
_stale("`s-maxage=1` in place of `max-age`", "9111 5.2.2.10", REQUESTS_FIRST, "s-maxage=1")


@STALE.row("the object has changed: versions that four requests see, 0.4 s apart", "9111 4.3.3")
async def changed(bench: Bench) -> str:
    thing = bench.has(Cache_Control="max-age=1")
    await bench.warmed(thing)
    await asyncio.sleep(EXPIRED_AFTER_S)
    thing.version = 2
    seen = []
    for _ in range(4):
        response = await bench.fetch()
        seen.append({1: "old", 2: "new"}.get(thing.version_of(response.get("ETag") or "") or 0, shown(response, thing)))
        await bench.settle()
        await asyncio.sleep(0.1)
    return ", ".join(seen)


@STALE.row("the object is gone: three requests, 0.4 s apart", "9111 4.3.3")
async def gone(bench: Bench) -> str:
    thing = bench.has(Cache_Control="max-age=1")
    await bench.warmed(thing)
    await asyncio.sleep(EXPIRED_AFTER_S)
    del bench.origin.things[bench.name]
    seen = []
    for _ in range(3):
        seen.append(shown(await bench.fetch(), thing))
        await bench.settle()
        await asyncio.sleep(0.1)
    return ", ".join(seen)


@STALE.row("403 now: three requests, 0.4 s apart", "9111 4.2.4")
async def closed_off(bench: Bench) -> str:
    thing = bench.has(Cache_Control="max-age=1")
    await bench.warmed(thing)
    await asyncio.sleep(EXPIRED_AFTER_S)
    thing.status = 403
    seen = []
    for _ in range(3):
        seen.append(shown(await bench.fetch(), thing))
        await bench.settle()
        await asyncio.sleep(0.1)
    return ", ".join(seen)


# --- revalidation --------------------------------------------------------------------------------------------------


def _asked_by_client(what: str, rfc: str, request_field: str) -> None:
    async def experiment(bench: Bench) -> str:
        thing = bench.has()
        await bench.warmed(thing)
        return await bench.later(thing, request_field)

    REVALIDATION.row(what, rfc)(experiment)


@REVALIDATION.row("4 MiB, stale and unchanged: bytes of the origin", "9111 4.3.3")
async def unchanged(bench: Bench) -> str:
    thing = bench.has(4 << 20, Cache_Control="max-age=1, stale-while-revalidate=0")
    await bench.warmed(thing)
    await asyncio.sleep(EXPIRED_AFTER_S)
    return await bench.summary(thing=thing)


@REVALIDATION.row(
    "Copied onto itself with `max-age=300` in place of 1, so the same ETag: revalidated, asked again after 2 s",
    "9111 4.3.4",
    "hit, max-age=300",
)
async def renewed(bench: Bench) -> str:
    thing = bench.has(Cache_Control="max-age=1, stale-while-revalidate=0")
    await bench.warmed(thing)
    await asyncio.sleep(EXPIRED_AFTER_S)
    # S3 does it so: the ETag stays, Last-Modified is that of the copy, and a 304 carries the new values.
    thing.fields["Cache-Control"], thing.last_modified = "max-age=300", "Mon, 07 Nov 1994 08:49:37 GMT"
    await bench.fetch()
    await bench.settle()
    await asyncio.sleep(EXPIRED_AFTER_S)
    bench.counted()
    response = await bench.fetch()
    return f"{await bench.cost()}, {response.get('cache-control') or 'no Cache-Control'}"


_asked_by_client("Client says `Cache-Control: no-cache`, object fresh", "9111 5.2.1.4", "Cache-Control: no-cache")
_asked_by_client("Client says `Cache-Control: max-age=0`, object fresh", "9111 5.2.1.1", "Cache-Control: max-age=0")
_asked_by_client("Client says `Pragma: no-cache`, object fresh", "9111 5.4", "Pragma: no-cache")


@REVALIDATION.row("Client says `only-if-cached`, cold", "9111 5.2.1.7", "504.*")
async def only_if_cached(bench: Bench) -> str:
    return await bench.summary("Cache-Control: only-if-cached", thing=bench.has())


# --- an origin that fails ------------------------------------------------------------------------------------------


def _in_outage(what: str, rfc: str, want: str | None, control: str) -> None:
    async def experiment(bench: Bench) -> str:
        thing = bench.has(Cache_Control=control)
        await bench.warmed(thing)
        await asyncio.sleep(EXPIRED_AFTER_S)
        await bench.origin.stop()
        response = await bench.fetch()
        return f"{_stale_or(shown(response, thing))} {instant(response.seconds)}"

    OUTAGE.row(what, rfc, want, alone=True)(experiment)


def _stale_or(words: str) -> str:
    return "stale" if words == "200" else words


def _on_500(what: str, rfc: str, want: str | None, control: str) -> None:
    async def experiment(bench: Bench) -> str:
        thing = bench.has(Cache_Control=control)
        await bench.warmed(thing)
        await asyncio.sleep(EXPIRED_AFTER_S)
        thing.status = 500
        seen = []
        for _ in range(2):
            seen.append(_stale_or(shown(await bench.fetch(), thing)))
            await bench.settle()
        return ", ".join(seen)

    OUTAGE.row(what, rfc, want, alone=True)(experiment)


@OUTAGE.row("Unreachable, object fresh", "9111 4", alone=True)
async def fresh(bench: Bench) -> str:
    thing = bench.has()
    await bench.warmed(thing)
    await bench.origin.stop()
    return shown(await bench.fetch(), thing)


ALLOWED = "max-age=1, stale-while-revalidate=0, stale-if-error=60"
FORBIDDEN = "max-age=1, stale-while-revalidate=0, stale-if-error=0"
STRICT = "max-age=1, must-revalidate"
ERROR = r"5.*"  # an error, never a stale body
_in_outage("Unreachable, object stale, nothing said", "9111 4.2.4", None, "max-age=1")
_in_outage("Unreachable, stale, `stale-while-revalidate=0, stale-if-error=60`", "5861 4", None, ALLOWED)
_in_outage("Unreachable, stale, `stale-while-revalidate=0, stale-if-error=0`", "5861 4", None, FORBIDDEN)
_in_outage("Unreachable, stale, `must-revalidate`", "9111 5.2.2.2", ERROR, STRICT)
_in_outage("Unreachable, stale, `s-maxage=1`", "9111 5.2.2.10", ERROR, "s-maxage=1")


@OUTAGE.row("Unreachable, nothing cached", "9110 15.6.3", alone=True)
async def miss(bench: Bench) -> str:
    bench.has()
    await bench.origin.stop()
    response = await bench.fetch()
    retry = response.get("Retry-After")
    return f"{shown(response)} {instant(response.seconds)}, {'no ' if retry is None else ''}Retry-After"


@OUTAGE.row("Unreachable, twelve misses one after the other: the last one fails", "", alone=True)
async def misses(bench: Bench) -> str:
    await bench.origin.stop()
    for number in range(11):
        await bench.fetch(path=f"/{bench.name}-{number}")
    response = await bench.fetch()
    within = next((f"within {limit} ms" for limit in (50, 1000) if response.seconds * 1000 < limit), "later")
    return f"{shown(response)} {within}"


_on_500("500, object stale, nothing said: two requests", "9111 4.2.4", None, "max-age=1")
_on_500("500, stale, `stale-while-revalidate=0, stale-if-error=60`: two requests", "5861 4", None, ALLOWED)
_on_500("500, stale, `must-revalidate`: two requests", "9111 5.2.2.2", r"5.., 5..", STRICT)


@OUTAGE.row("503 once, cold", "9110 15.6.4", alone=True)
async def slow_down(bench: Bench) -> str:
    thing = bench.has()
    thing.status, thing.failures = 503, 1
    return await bench.summary(thing=thing)


@OUTAGE.row("The connection closes without an answer once, cold", "9110 9.2.2", alone=True)
async def dropped(bench: Bench) -> str:
    thing = bench.has()
    thing.drops = 1
    return await bench.summary(thing=thing)


@OUTAGE.row("The body breaks off once, at 600 KiB of 4 MiB", "9112 8", alone=True)
async def truncated(bench: Bench) -> str:
    thing = bench.has(4 << 20)
    thing.cut = 600 << 10
    task = asyncio.create_task(bench.fetch())
    await bench.sent(1)
    await asyncio.sleep(0.05)
    thing.cut = None
    return shown(await task, thing)


@OUTAGE.row("The body breaks off each time, at 600 KiB of 4 MiB: two clients", "9112 8", alone=True)
async def always_truncated(bench: Bench) -> str:
    thing = bench.has(4 << 20)
    thing.cut = 600 << 10
    return "; ".join([shown(await bench.fetch(), thing) for _ in range(2)])


@OUTAGE.row("The object changes between two ranges of it, both cold, fresh; then all of it", "9110 13.1.1", alone=True)
async def changed_between(bench: Bench) -> str:
    thing = bench.has(8 << 20)
    await bench.fetch("Range: bytes=0-99")
    await bench.settle()
    thing.version = 2
    parts = []
    for fields in (("Range: bytes=8000000-8000099",), ()):
        response = await bench.fetch(*fields)
        version = {1: "old", 2: "new"}.get(thing.version_of(response.get("ETag") or "") or 0, "no")
        parts.append(f"{shown(response, thing).replace(' 8000000-8000099', '')} of the {version} version")
    return "; ".join(parts)


@OUTAGE.row("The object changes during a slow download of it", "9110 13.1.1", alone=True)
async def changed_during(bench: Bench) -> str:
    thing = bench.has(48 << 20)
    thing.rate = 12e6
    task = asyncio.create_task(bench.fetch())
    await bench.sent(1)
    await asyncio.sleep(0.3)
    thing.version = 2
    thing.rate = 0
    response = await task
    version = {1: "old", 2: "new"}.get(thing.version_of(response.get("ETag") or "") or 0, "no")
    cut = ", cut" if not response.whole else ", whole"
    words = shown(response, thing).partition(", cut")[0]
    return f"{words}{cut}, {version} version"
