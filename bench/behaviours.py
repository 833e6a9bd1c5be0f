"""Measure how bucketfront, nginx and Varnish behave: `make behaviours`, or `bench/behaviours.py [--only WORD]`.

The program starts each of them on loopback with an origin of its own, and sends all of them the same requests over
plain sockets. It prints the results as Markdown, writes them into docs/http.md, and ends all it started. Exit status 0:
every row was measured; 1: an experiment failed, and its cell names the error.
"""

import argparse
import asyncio
import re
import signal
import sys
import tempfile
import time
import traceback
from pathlib import Path

import behaviours_page as page
from behaviours_bench import Bench, Group, Row
from behaviours_client import exchange
from behaviours_crowds import CROWDS
from behaviours_freshness import FRESHNESS, OUTAGE, REVALIDATION, STALE
from behaviours_origin import Origin
from behaviours_proxies import PROXIES, varnish_program, version
from behaviours_reads import CONDITIONALS, RANGES
from behaviours_requests import BROWSERS, KEYS, METHODS
from processes import nginx_program

GROUPS = [RANGES, CONDITIONALS, FRESHNESS, STALE, REVALIDATION, OUTAGE, CROWDS, METHODS, KEYS, BROWSERS]
FAILED = "experiment failed"
ROW_TIMEOUT_S = 40.0  # seconds for one row
RECOVERY_TIMEOUT_S = 30.0  # seconds within which a proxy uses a recovered origin again
PARALLEL_ROWS = 6  # rows of a proxy that run at once


def chosen(word: str | None) -> list[Group]:
    """Return the groups with the rows whose text or title contains this word."""
    if word is None:
        return GROUPS
    groups = []
    for group in GROUPS:
        part = Group(group.title)
        part.rows = [row for row in group.rows if word.lower() in f"{group.title} {row.what}".lower()]
        groups += [part] if part.rows else []
    return groups


async def measure(proxy: str, groups: list[Group], folder: Path, cells: page.Cells) -> None:
    """Fill this proxy's cells; rows in which the origin fails come last."""
    origin = Origin()
    await origin.start()
    rows = [(group, row, f"n{number:03}") for number, (group, row) in enumerate(_rows(groups))]
    slots = asyncio.Semaphore(PARALLEL_ROWS)

    async def fill(port: int, group: Group, row: Row, name: str) -> None:
        async with slots:
            cells[group.title, row.what][proxy] = await _cell(row, Bench(port, origin, name))
        print(".", end="", file=sys.stderr, flush=True)

    try:
        async with PROXIES[proxy](folder, origin.port) as port:
            await asyncio.gather(*(fill(port, group, row, name) for group, row, name in rows if not row.alone))
            for group, row, name in rows:
                if row.alone:
                    await fill(port, group, row, name)
                    await _recovered(port, origin, name)
    finally:
        await origin.stop()


def _rows(groups: list[Group]) -> list[tuple[Group, Row]]:
    return [(group, row) for group in groups for row in group.rows]


async def _cell(row: Row, bench: Bench) -> str:
    try:
        async with asyncio.timeout(ROW_TIMEOUT_S):
            return await row.experiment(bench)
    except Exception:  # noqa: BLE001 - one row must not end the others
        print(f"\n{row.what}:\n{traceback.format_exc()}", file=sys.stderr)
        return FAILED


async def _recovered(port: int, origin: Origin, row: str) -> None:
    """Wait until the origin is healthy again and the proxy uses it."""
    await origin.start()
    until = time.monotonic() + RECOVERY_TIMEOUT_S
    for attempt in range(1000):
        name = f"well-again-{row[1:]}-{attempt}"
        origin.has(name, 16, Cache_Control="max-age=300")
        response = await exchange(port, f"GET /{name} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
        if response.status == 200 or time.monotonic() > until:
            return
        await asyncio.sleep(0.2)


async def run(groups: list[Group], proxies: list[str], home: Path) -> page.Cells:
    cells: page.Cells = {(group.title, row.what): {} for group, row in _rows(groups)}
    async with asyncio.TaskGroup() as tasks:
        for proxy in proxies:
            folder = home / re.sub("[^a-z0-9]+", "-", proxy.lower())
            folder.mkdir()
            tasks.create_task(measure(proxy, groups, folder, cells))
    print(file=sys.stderr)
    return cells


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--only", metavar="WORD", help="rows with this word; docs/http.md stays as it is")
    parser.add_argument("--proxy", action="append", choices=list(PROXIES), help="this one; repeatable; ditto")
    given = parser.parse_args()
    # SIGTERM unwinds like Ctrl-C, so that every process started here is ended.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    versions = {"nginx": version(nginx_program(), "-v"), "Varnish": version(varnish_program(), "-V")}
    runnable = [proxy for proxy in PROXIES if versions.get(proxy.partition(",")[0], "") is not None]
    proxies = [proxy for proxy in runnable if given.proxy is None or proxy in given.proxy]
    groups = chosen(given.only)
    started = time.time()
    with tempfile.TemporaryDirectory(prefix="bucketfront-behaviours-") as home:
        cells = asyncio.run(run(groups, proxies, Path(home)))
    tables = page.table(groups, cells, list(PROXIES))
    names = ", ".join(f"{name} {found or 'not run'}" for name, found in versions.items())
    date = time.strftime("%Y-%m-%d", time.gmtime(started))
    facts = f"Measured on {date}: bucketfront of this checkout, {names}."
    print(f"{facts} {time.time() - started:.0f} s.\n\n{tables}")
    if given.only is None and given.proxy is None:
        page.write(facts, tables)
    return 1 if any(FAILED in row.values() for row in cells.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
