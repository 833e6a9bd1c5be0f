"""Rows about several clients at once, and about clients that leave or jump."""

import asyncio

from behaviours_bench import Bench, Group, amount, instant, shown
from behaviours_client import Connection
from content import MIB

CROWDS = Group("Several clients, one cold object")

CLIENTS = 20
RATE = 4e6  # bytes a second of each connection of the origin


def _origin(bench: Bench) -> str:
    requests = [each for each in bench.counted() if each.status]
    plural = "" if len(requests) == 1 else "s"
    return f"{len(requests)} request{plural}, {amount(sum(each.sent for each in requests))}"


@CROWDS.row(f"{CLIENTS} clients, 4 MiB in 1 s: origin", "9111 4", alone=True)
async def crowd(bench: Bench) -> str:
    thing = bench.has(4 * MIB)
    thing.rate = RATE
    responses = await asyncio.gather(*(bench.fetch() for _ in range(CLIENTS)))
    await bench.settle()
    right = sum(shown(response, thing) == "200" for response in responses)
    return _origin(bench) + ("" if right == CLIENTS else f"; {right} whole answers")


@CROWDS.row(f"{CLIENTS} clients, 4 KiB, the origin takes 6 s: origin", "9111 4", alone=True)
async def slow_crowd(bench: Bench) -> str:
    thing = bench.has()
    thing.delay = 6
    responses = await asyncio.gather(*(bench.fetch(timeout_s=20) for _ in range(CLIENTS)))
    await bench.settle()
    right = sum(shown(response, thing) == "200" for response in responses)
    return _origin(bench) + ("" if right == CLIENTS else f"; {right} whole answers")


@CROWDS.row(f"{CLIENTS} clients, no such object: origin", "9111 4", alone=True)
async def absent_crowd(bench: Bench) -> str:
    await asyncio.gather(*(bench.fetch() for _ in range(CLIENTS)))
    count = len(bench.counted())
    return f"{count} request{'' if count == 1 else 's'}"


@CROWDS.row(
    f"{CLIENTS} clients, `no-store`, 4 KiB, the origin takes 0.4 s: origin, all served",
    "9111 5.2.2.5",
    r"20 requests.*",
    alone=True,
)
async def uncached_crowd(bench: Bench) -> str:
    thing = bench.has(Cache_Control="no-store")
    thing.delay = 0.4
    responses = await asyncio.gather(*(bench.fetch() for _ in range(CLIENTS)))
    await bench.settle()
    slowest = max(response.seconds for response in responses)
    return f"{_origin(bench)}, {instant(slowest - 0.4)}"


@CROWDS.row("A second client joins a download of 16 MiB at 4 MB/s: its first byte", "", alone=True)
async def joiner(bench: Bench) -> str:
    return await _second(bench)


@CROWDS.row("A seek to the last MiB during that download: its first byte", "", alone=True)
async def seeker(bench: Bench) -> str:
    return await _second(bench, f"Range: bytes={15 * MIB}-{16 * MIB - 1}")


async def _second(bench: Bench, *fields: str) -> str:
    """Measure a client that joins once 2 MiB have arrived."""
    thing = bench.has(16 * MIB)
    thing.rate = RATE
    first = asyncio.create_task(bench.fetch())
    await bench.sent(2 * MIB)
    second = await bench.fetch(*fields, limit=1000)
    whole = await first
    words = shown(second, thing).partition(" ")[0].rstrip(",")
    fault = "" if shown(whole, thing) == "200" else f"; the first one {shown(whole, thing)}"
    return f"{words} {instant(second.first_byte)}{fault}"


@CROWDS.row("The only client leaves after 1 MiB of 8: the origin sends, in the end", "", alone=True)
async def leaver(bench: Bench) -> str:
    thing = bench.has(8 * MIB)
    thing.rate = RATE
    connection = await Connection.to(bench.port)
    connection.send(bench.raw())
    await connection.receive(limit=MIB)
    connection.close()
    await bench.settle(0.5)
    sent = sum(request.sent for request in bench.counted())
    after = await bench.summary(thing=thing)
    share = next((f"at most {limit} MiB" for limit in (2, 4, 7) if sent <= limit * MIB), "all")
    again = "hit" if after == "200, hit" else "fetched again"
    return f"{share}; the next client: {again}"
