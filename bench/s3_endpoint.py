"""Reads by clients of S3: straight from SeaweedFS, and through the S3 endpoint of bucketfront in front of it.

Warm GETs of boto3 and of a client that does nothing but sign, and a query of DuckDB over a GiB of Parquet. DuckDB
comes from PyPI, in the version of the tests.
"""

import asyncio
import contextlib
import json
import os
import random
import sys
import time
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import processes
from figures import FAILED, OURS, Figure, Goal, median
from processes import BUCKET, HERE, cpu_seconds, program

ROOT = HERE.parent
sys.path += [str(ROOT / "tests"), str(ROOT / "tests" / "outside"), str(ROOT / "tests" / "server")]
sys.path.append(str(ROOT / "tests" / "e2e"))

import boto3  # noqa: E402 - beside the tests' own programs
import installs  # noqa: E402
from client_packages import DUCKDB, HTTPFS  # noqa: E402
from held_port import held_port  # noqa: E402
from seaweed import Seaweed  # noqa: E402
from site_under_test import OriginLog  # noqa: E402

SCENARIO = "S3 clients"
STRAIGHT = "SeaweedFS, straight"
ROUNDS = 3
SECONDS = 3.0
OBJECTS = 8  # of each size
SIZES = {"16 KiB": 16 << 10, "8 MiB": 8 << 20}
CLIENTS = {"boto3": "boto3", "raw": "a client that only signs"}
TABLE_FILES = 8
TABLE_ROWS = 4_000_000  # of each file, 32 bytes each
ACCESS_KEY, SECRET_KEY = "bench", "bench-secret-of-forty-characters-01234567"


@dataclass(frozen=True, slots=True)
class Place:
    """An endpoint of S3 with a key, and the process that serves it."""

    name: str
    url: str
    access_key: str
    secret_key: str
    pid: int


async def measure(folder: Path) -> list[Figure]:
    """Measure all. Returns no figure if SeaweedFS is missing."""
    if not Seaweed.available():
        return []
    with Seaweed(BUCKET) as s3, OriginLog(s3.endpoint_url) as log:
        straight = Place(STRAIGHT, s3.endpoint_url, s3.access_key, s3.secret_key, s3.pid)
        figures = []
        async with _bucketfront(folder, "objects", s3, s3.endpoint_url) as ours:
            figures += await _reads(straight, ours)
        async with _bucketfront(folder, "tables", s3, log.url) as ours:
            figures += await _queries(folder, straight, ours, log)
        return figures


@contextlib.asynccontextmanager
async def _bucketfront(folder: Path, name: str, s3: Seaweed, origin: str) -> AsyncGenerator[Place, None]:
    home = folder / name
    home.mkdir()
    with held_port() as port:
        section = (
            f"s3: {{host: 127.0.0.1, port: {port}, "
            f"keys: [{{id: {ACCESS_KEY}, secret: {SECRET_KEY}, buckets: [{BUCKET}]}}]}}\n"
        )
        keys = (s3.access_key, s3.secret_key)
        origin_port = int(origin.rpartition(":")[2])
        async with processes.bucketfront(home, origin_port, keys=keys, more=section) as subject:
            yield Place(OURS, f"http://127.0.0.1:{port}", ACCESS_KEY, SECRET_KEY, subject.pid)


def _client(place: Place) -> Any:
    return boto3.client(
        "s3",
        endpoint_url=place.url,
        region_name="us-east-1",
        aws_access_key_id=place.access_key,
        aws_secret_access_key=place.secret_key,
    )


# --- warm reads ------------------------------------------------------------------------------------------------


async def _reads(straight: Place, ours: Place) -> list[Figure]:
    dice = random.Random(8)
    stored = _client(straight)
    for size in SIZES.values():
        for number in range(OBJECTS):
            stored.put_object(Bucket=BUCKET, Key=_key(size, number), Body=dice.randbytes(size))
    figures: list[Figure] = []
    async with program(sys.executable, HERE / "s3_client.py", cwd=HERE) as client:
        for label, size in SIZES.items():
            for kind, named in CLIENTS.items():
                figures += await _of_size(client, kind, f"{label}, {named}", size, [ours, straight])
    return figures


def _key(size: int, number: int) -> str:
    return f"object-{size}-{number}"


async def _of_size(
    client: asyncio.subprocess.Process, kind: str, what: str, size: int, places: list[Place]
) -> list[Figure]:
    """Let both take turns. The first round fills the cache, and does not count."""
    rates: dict[str, list[float]] = {place.name: [] for place in places}
    cpus: dict[str, list[float]] = {place.name: [] for place in places}
    details: dict[str, list[Any]] = {place.name: [] for place in places}
    for number in range(ROUNDS + 1):
        for place in places:
            before = cpu_seconds(place.pid)
            done = await _run(client, kind, size, place, SECONDS if number else 0.5)
            if number:
                rates[place.name].append(0.0 if done["error"] else done["requests"] / done["seconds"])
                cpus[place.name].append((cpu_seconds(place.pid) - before) / done["requests"] * 1e6)
                details[place.name].append(done)
    figures = []
    for place in places:
        goal = Goal(1.0, of_peers=True) if place.name == OURS else None
        detail = {"rounds": details[place.name]}
        figures += [
            Figure(SCENARIO, what, "/s", place.name, median(rates[place.name]), "higher", goal, detail=detail),
            Figure(SCENARIO, f"{what}: CPU of the server", "µs", place.name, median(cpus[place.name]), "lower", goal),
        ]
    return figures


async def _run(
    client: asyncio.subprocess.Process, kind: str, size: int, place: Place, seconds: float
) -> dict[str, Any]:
    job = {
        "client": kind,
        "url": place.url,
        "bucket": BUCKET,
        "keys": [_key(size, number) for number in range(OBJECTS)],
        "length": size,
        "access_key": place.access_key,
        "secret_key": place.secret_key,
        "seconds": seconds,
    }
    assert client.stdin is not None
    assert client.stdout is not None
    client.stdin.write(json.dumps(job).encode() + b"\n")
    done: dict[str, Any] = json.loads(await client.stdout.readline())
    return done


# --- a query of a table ----------------------------------------------------------------------------------------

_MAKE = """
import sys
import duckdb
files, rows = int(sys.argv[1]), int(sys.argv[2])
connection = duckdb.connect()
for number in range(files):
    first = number * rows
    connection.execute(
        f"COPY (SELECT i AS number, hash(i) AS noise, hash(i + 1) AS other, hash(i + 2) AS third "
        f"FROM range({first}, {first + rows}) AS r(i)) TO 'table-{number}.parquet' "
        "(FORMAT parquet, COMPRESSION uncompressed, ROW_GROUP_SIZE 122880)"
    )
"""
_QUERY = """
import glob, json, sys, time
import duckdb, duckdb_extension_httpfs
host, access_key, secret_key, table = sys.argv[1:]
connection = duckdb.connect()
connection.execute("SET enable_progress_bar = false")
place = duckdb_extension_httpfs.__path__[0]
connection.execute(f"LOAD '{glob.glob(place + '/extensions/*/httpfs.duckdb_extension')[0]}'")
connection.execute(f"CREATE SECRET (TYPE s3, KEY_ID '{access_key}', SECRET '{secret_key}', ENDPOINT '{host}', "
                   "URL_STYLE 'path', USE_SSL false, REGION 'us-east-1')")
began = time.perf_counter()
found = connection.execute(f"SELECT count(*), sum(noise % 1000), max(number) FROM '{table}' WHERE other % 3 = 0")
rows = found.fetchall()
print(json.dumps({"seconds": time.perf_counter() - began, "rows": str(rows)}))
"""


async def _queries(folder: Path, straight: Place, ours: Place, log: OriginLog) -> list[Figure]:
    """Query two of four columns, each time by a new process of DuckDB. Returns no figure if it cannot be installed."""
    try:
        found = await asyncio.to_thread(lambda: [str(installs.pip(package)) for package in (DUCKDB, HTTPFS)])
    except installs.NotInstallable as why:
        print(f"no query of DuckDB: {why}", file=sys.stderr)
        return []
    path = os.pathsep.join(found)
    await _python(folder, path, _MAKE, str(TABLE_FILES), str(TABLE_ROWS))
    size = await asyncio.to_thread(_stored, folder, straight)
    what = f"DuckDB, two of four columns of {size / (1 << 30):.2f} GiB of Parquet"
    figures = []
    for name, place in (("straight", straight), ("cold", ours), ("warm", ours)):
        mark = log.mark
        arguments = (place.url.removeprefix("http://"), place.access_key, place.secret_key)
        before = cpu_seconds(place.pid)
        done = json.loads(await _python(folder, path, _QUERY, *arguments, f"s3://{BUCKET}/table-*.parquet"))
        cpu = cpu_seconds(place.pid) - before
        seen = log.since(mark)
        detail = {"requests": len(seen), "bytes": sum(each.sent for each in seen), "cpu": cpu, "rows": done["rows"]}
        labels = [f"{what}, {name}"] if place is ours else [f"{what}, cold", f"{what}, warm"]
        figures += [Figure(SCENARIO, label, "s", place.name, done["seconds"], detail=detail) for label in labels]
        if place is ours:
            label = labels[0]
            figures += [
                Figure(SCENARIO, f"{label}: requests to the origin", "", OURS, detail["requests"]),
                Figure(SCENARIO, f"{label}: MiB from the origin", "MiB", OURS, detail["bytes"] / (1 << 20)),
            ]
    same = len({figure.detail["rows"] for figure in figures if "rows" in figure.detail}) == 1
    return [*figures, Figure(SCENARIO, f"{what}: other rows", "", OURS, 0.0 if same else FAILED, goal=Goal(0.0))]


def _stored(folder: Path, straight: Place) -> int:
    """Move the files of the table to S3. Returns their bytes."""
    size = 0
    for file in sorted(folder.glob("table-*.parquet")):
        size += file.stat().st_size
        _client(straight).upload_file(str(file), BUCKET, file.name)
        file.unlink()
    return size


async def _python(folder: Path, path: str, script: str, *arguments: str) -> str:
    began = time.perf_counter()
    async with program(sys.executable, "-c", script, *arguments, cwd=folder, variables={"PYTHONPATH": path}) as process:
        output, _ = await process.communicate()
    if process.returncode:
        raise RuntimeError(f"DuckDB failed after {time.perf_counter() - began:.0f} s")
    return output.decode()
