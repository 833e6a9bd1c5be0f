"""Rows about ranges and conditional requests (RFC 9110 sections 13 and 14)."""

from behaviours_bench import Bench, Group, amount, shown
from behaviours_origin import LAST_MODIFIED
from content import MIB

RANGES = Group("Ranges")
CONDITIONALS = Group("Conditional requests")

MANY = ",".join(f"{at}-{at}" for at in range(0, 400, 2))  # 200 ranges, 1.5 KB
LATER, EARLIER = "Mon, 07 Nov 1994 08:49:37 GMT", "Sat, 05 Nov 1994 08:49:37 GMT"
OVERLAPPING = ",".join(["0-"] * 60)

NO_416 = r"20[06].*"  # a set with a byte that exists does not permit a 416

RANGES.warm("`bytes=0-`", "9110 14.2", None, "Range: bytes=0-")
RANGES.warm("`bytes=0-99`", "9110 14.2", None, "Range: bytes=0-99")
RANGES.warm("`bytes=-100`, a suffix", "9110 14.1.2", None, "Range: bytes=-100")
RANGES.warm("`bytes=-9999` of 4096 bytes", "9110 14.1.2", NO_416, "Range: bytes=-9999")
RANGES.warm("`bytes=0-99,200-299`", "9110 15.3.7.2", NO_416, "Range: bytes=0-99,200-299")
RANGES.warm("`bytes=0-99,50-149`, overlapping", "9110 14.2", NO_416, "Range: bytes=0-99,50-149")
RANGES.warm("`bytes=0-99,9000-`, one beyond the end", "9110 14.1.2", NO_416, "Range: bytes=0-99,9000-")
RANGES.warm("60 times `0-`", "9110 17.15", None, f"Range: bytes={OVERLAPPING}")
RANGES.warm("200 ranges of a byte", "9110 17.15", None, f"Range: bytes={MANY}")
RANGES.warm("`bytes=4096-`, beyond the end", "9110 15.5.17", r"416 \*/4096", "Range: bytes=4096-")
RANGES.warm("`bytes=-0`", "9110 14.1.2", r"416 \*/4096", "Range: bytes=-0")
RANGES.warm("`bytes=5-3`, invalid", "9110 14.1.1", None, "Range: bytes=5-3")
RANGES.warm("`bytes=0-x`, invalid", "9110 14.2", None, "Range: bytes=0-x")
RANGES.warm("`items=0-1`, unknown unit", "9110 14.2", "200", "Range: items=0-1")
RANGES.warm("`bytes=0-` of an empty object", "9110 15.5.17", r"200|416 \*/0", "Range: bytes=0-", size=0)
RANGES.warm("Range on HEAD", "9110 14.2", "200", "Range: bytes=0-99", method="HEAD")
RANGES.warm("If-Range: its ETag", "9110 13.1.5", None, "Range: bytes=0-99", "If-Range: {etag}")
RANGES.warm("If-Range: another ETag", "9110 13.1.5", "200", "Range: bytes=0-99", 'If-Range: "other"')
RANGES.warm("If-Range: its ETag, weak", "9110 13.1.5", "200", "Range: bytes=0-99", "If-Range: W/{etag}")
RANGES.warm("If-Range: its Last-Modified", "9110 13.1.5", None, "Range: bytes=0-99", "If-Range: {date}")
RANGES.warm("If-Range: a later date", "9110 13.1.5", "200", "Range: bytes=0-99", f"If-Range: {LATER}")


@RANGES.row("64 KiB at 900 MiB of a cold 1 GiB object: from the origin", "", alone=True)
async def deep(bench: Bench) -> str:
    thing = bench.has(1024 * MIB)
    start = 900 * MIB
    response = await bench.fetch(f"Range: bytes={start}-{start + 65535}", timeout_s=30)
    await bench.settle()
    words = "" if shown(response, thing) == f"206 {start}-{start + 65535}" else f"{shown(response, thing)}; "
    return words + amount(sum(request.sent for request in bench.counted()))


@RANGES.row("Last 1000 bytes of a cold 64 MiB object: from the origin", "9110 14.1.2")
async def tail(bench: Bench) -> str:
    thing = bench.has(64 * MIB)
    response = await bench.fetch("Range: bytes=-1000")
    await bench.settle()
    words = "" if shown(response, thing) == f"206 {64 * MIB - 1000}-{64 * MIB - 1}" else f"{shown(response, thing)}; "
    return words + amount(sum(request.sent for request in bench.counted()))


@RANGES.row("The whole of 4 MiB, of which a first range has 1 MiB: from the origin in sum", "9111 3.4")
async def completed(bench: Bench) -> str:
    thing = bench.has(4 * MIB)
    await bench.fetch("Range: bytes=0-1048575")
    await bench.settle()
    response = await bench.fetch()
    await bench.settle()
    return f"{shown(response, thing)}, {amount(sum(request.sent for request in bench.counted()))}"


@RANGES.row("A range beyond the end of a cold object", "9110 15.5.17")
async def beyond(bench: Bench) -> str:
    return await bench.summary("Range: bytes=9000-", thing=bench.has())


TAGS = "If-None-Match: "
CONDITIONALS.warm("If-None-Match: its ETag", "9110 13.1.2", "304", TAGS + "{etag}")
CONDITIONALS.warm("If-None-Match: a list with its ETag", "9110 13.1.2", "304", TAGS + '"a", {etag}')
CONDITIONALS.warm("If-None-Match: two fields, its ETag in the second", "9110 5.3", "304", TAGS + '"a"', TAGS + "{etag}")
CONDITIONALS.warm("If-None-Match: its ETag, weak", "9110 13.1.2", "304", TAGS + "W/{etag}")
CONDITIONALS.warm("If-None-Match: `*`", "9110 13.1.2", "304", TAGS + "*")


@CONDITIONALS.row("If-Modified-Since, in the three forms of a date", "9110 5.6.7", "304, 304, 304")
async def dates(bench: Bench) -> str:
    thing = bench.has()
    await bench.warmed(thing)
    forms = (LAST_MODIFIED, "Sunday, 06-Nov-94 08:49:37 GMT", "Sun Nov  6 08:49:37 1994")
    return ", ".join([shown(await bench.fetch(f"If-Modified-Since: {form}"), thing) for form in forms])


CONDITIONALS.warm("If-Modified-Since: a later date", "9110 13.1.3", "304", f"If-Modified-Since: {LATER}")
CONDITIONALS.warm("If-Modified-Since: an earlier date", "9110 13.1.3", "200", f"If-Modified-Since: {EARLIER}")
CONDITIONALS.warm("If-Modified-Since: nonsense", "9110 13.1.3", "200", "If-Modified-Since: yesterday")
CONDITIONALS.warm(
    "If-None-Match: another, If-Modified-Since: same",
    "9110 13.2.2",
    "200",
    TAGS + '"other"',
    f"If-Modified-Since: {LAST_MODIFIED}",
)
# A cache may leave If-Match and If-Unmodified-Since to origins, so there is no `want`.
CONDITIONALS.warm("If-Match: another ETag", "9110 13.1.1", None, 'If-Match: "other"')
CONDITIONALS.warm("If-Match: its ETag, weak", "9110 13.1.1", None, "If-Match: W/{etag}")
CONDITIONALS.warm("If-Unmodified-Since: an earlier date", "9110 13.1.4", None, f"If-Unmodified-Since: {EARLIER}")
CONDITIONALS.warm("If-None-Match: its ETag, with a range", "9110 13.2.2", "304", TAGS + "{etag}", "Range: bytes=0-99")
CONDITIONALS.warm(
    "If-Match: another, with a range beyond the end", "9110 13.2.2", None, 'If-Match: "other"', "Range: bytes=9000-"
)
CONDITIONALS.warm("HEAD with If-None-Match: its ETag", "9110 13.1.2", "304", TAGS + "{etag}", method="HEAD")


@CONDITIONALS.row("If-None-Match: its ETag, cold: status and cost", "9110 13.1.2")
async def cold(bench: Bench) -> str:
    thing = bench.has()
    return await bench.summary(f"If-None-Match: {thing.etag()}", thing=thing)


@CONDITIONALS.row("If-None-Match: `*`, no such object", "9110 13.2.1")
async def nothing(bench: Bench) -> str:
    return shown(await bench.fetch("If-None-Match: *"))


@CONDITIONALS.row("Fields of a 304", "9110 15.4.5")
async def fields_of_304(bench: Bench) -> str:
    thing = bench.has(Vary="Origin")
    await bench.warmed(thing)
    response = await bench.fetch(f"If-None-Match: {thing.etag()}")
    wanted = ("ETag", "Last-Modified", "Cache-Control", "Date", "Vary", "Content-Type", "Content-Length")
    return ", ".join(name for name in wanted if response.get(name) is not None)


@CONDITIONALS.row("HEAD of what GET has cached", "9110 9.3.2")
async def warm_head(bench: Bench) -> str:
    thing = bench.has()
    await bench.warmed(thing)
    return await bench.summary(thing=thing, method="HEAD")


@CONDITIONALS.row("HEAD, cold, of 4 MiB: cost", "9110 9.3.2")
async def cold_head(bench: Bench) -> str:
    return await bench.summary(thing=bench.has(4 * MIB), method="HEAD")
