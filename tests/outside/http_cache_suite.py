"""The public HTTP cache test suite, npm's `http-cache-tests`, against a cache of S3.

The suite tests caches of any web server, and here the web server is S3. `s3_shim.mjs` presents the suite's responses as
objects in a bucket. This module names the tests that no S3 can cause, and those that bucketfront does not pass, with
the reasons.
"""

import asyncio
import json
import re
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import installs
from http_caches import BUCKET, Cache

HERE = Path(__file__).parent
PACKAGE = "http-cache-tests@0.4.5"
FETCH = "node-fetch@2.7.0"  # the suite's HTTP client
RUN_TIMEOUT_S = (
    400.0  # seconds, on a slow machine; each test waits at most 3 s, and the dozen that cut connections run one by one
)
TRIES = 3
LINE_LIMIT = 4 << 20

# Patterns of the tests that do not apply to a cache of S3 -> why.
NOT_OF_S3 = {
    r"status-(?!200-).*": "S3 sends an object with the status 200 or 206. Other statuses are errors without an object.",
    r"heuristic-(?!200-)\d+-.*": "S3 sends an object with the status 200 or 206. Other statuses are errors.",
    r"vary-.*|conditional-etag-vary-headers": "An object of S3 is the same for all requests, and has no `Vary`.",
    r".*-(M-SEARCH|POST)(-.*)?": "S3 has no such method for an object: its POST is a form, or names an operation.",
    r"invalidate-.*-(location|cl)": "The response of S3 to a write names no other object.",
    r"other-authorization.*": (
        "To S3, `Authorization` is the signature of one request. bucketfront signs its own requests, so what S3 "
        "sends does not depend on the client's field."
    ),
    r".*Set-Cookie2?": "An object of S3 sets no cookies.",
    r"partial-store-partial-.*": "The origin responds with another range than the requested one. S3 never does.",
    r"headers-store-Transfer-Encoding": "The transfer coding is unknown, so the message is malformed (RFC 9112, 6.1).",
    r"(headers-store|304-etag-update-response)-Content-Range": (
        "A 200 or 304 has a `Content-Range`. S3 sends the field with a 206 and 416 only, and bucketfront refuses it "
        "elsewhere, because such a response may have a part of the object only."
    ),
    r"304-etag-update-response-ETag": (
        "A 304 of S3 names the ETag that S3 compared. bucketfront refuses one with another ETag, which says "
        "nothing about the stored version."
    ),
    r"conditional-lm-fresh-no-lm": "An object of S3 always has a `Last-Modified`.",
    r"stale-close-(must|proxy|no|s).*": (
        "No cache can pass: the origin cuts the connection, and the test wants its 200. bucketfront responds with 502, "
        "and with no stale byte."
    ),
}

# Tests that bucketfront does not pass on purpose -> the reason.
CHOICES = {
    "heuristic-200-cached": "There is no heuristic freshness: operators configure `freshness` instead.",
    "invalidate-(PUT|DELETE)-failed": "A 500 of S3 is a 502 of the gateway. The cached object stays.",
    "age-parse-.*": (
        "RFC 9111, section 5.1, is newer than this version of the suite: the first member of a list counts, and an "
        "invalid `Age` is ignored. Later versions of the suite give no verdict here."
    ),
    "query-args-different": (
        "S3 ignores parameters that it does not know, so both requests name one object. `mounts[].query: refuse` "
        "responds with 400."
    ),
}


@dataclass(frozen=True, slots=True)
class Case:
    """A test of the suite. `failure` is the suite's message, None if the test passed or did not run."""

    id: str
    name: str
    kind: str
    suite: str
    is_run: bool
    failure: str | None


def reason(case: Case, *tables: dict[str, str]) -> str | None:
    """Return why a test is in one of these tables, or None."""
    return next((why for table in tables for pattern, why in table.items() if re.fullmatch(pattern, case.id)), None)


def install() -> Path:
    """Install the suite and return its folder. Raises installs.NotInstallable."""
    return installs.npm(PACKAGE, FETCH) / "node_modules" / "http-cache-tests"


async def run(suite: Path, cache: Cache, folder: Path) -> list[Case]:
    """Run the tests that apply to S3, each against a new cache below `folder`.

    A failed test gets further tries: the suite compares ages and dates to the second, and a busy machine has others.
    """
    cases: dict[str, Case] = {}
    failed: list[str] | None = None
    for number in range(TRIES):
        (folder / str(number)).mkdir()
        tried = await _run_once(suite, cache, folder / str(number), failed)
        cases = {case.id: case if case.is_run else cases.get(case.id, case) for case in tried}
        failed = [case.id for case in cases.values() if case.failure is not None]
        if not failed:
            break
    return list(cases.values())


async def _run_once(suite: Path, cache: Cache, folder: Path, only: list[str] | None) -> list[Case]:
    async with asyncio.timeout(RUN_TIMEOUT_S), _node(suite) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        origin = json.loads(await process.stdout.readline())["origin"]
        async with cache(folder, origin) as url:
            order = {"cache": url, "leave": list(NOT_OF_S3), "only": only}
            process.stdin.write(json.dumps(order).encode() + b"\n")
            told = json.loads(await process.stdout.readline())
    return [Case(**case) for case in told["tests"]]


@asynccontextmanager
async def _node(suite: Path) -> AsyncGenerator[asyncio.subprocess.Process, None]:
    process = await asyncio.create_subprocess_exec(
        "node",
        "--no-warnings",
        str(HERE / "http_cache_suite.mjs"),
        str(suite),
        BUCKET,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=LINE_LIMIT,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
