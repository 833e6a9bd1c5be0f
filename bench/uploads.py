"""Uploads to SeaweedFS: one large object, compared with `aws s3 cp` without a proxy, and many small ones at once."""

import asyncio
import contextlib
import hashlib
import random
import shutil
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path
from typing import Any

import aiohttp
from aiobotocore.session import get_session
from figures import FAILED, OURS, Figure, Goal, median
from processes import BUCKET, Subject, bucketfront, program, watched

ROOT = Path(__file__).parent.parent
sys.path.append(str(ROOT / "tests"))

from seaweed import Seaweed  # noqa: E402 - the tests' own S3 server

MIB = 1 << 20
ROUNDS = 3
LARGE = 1024 * MIB
COUNT = 200
SMALL = MIB
AWS = "aws s3 cp, straight"
AWS_CLI = "awscli==1.46.3"
AWS_FOLDER = ROOT / ".venv" / "awscli"  # separate, because it needs another version of botocore than aiobotocore
NAME = "uploads to SeaweedFS"


def aws_program() -> str | None:
    executable = AWS_FOLDER / "bin" / "aws"
    return str(executable) if executable.exists() else None


def install() -> None:
    """Install the AWS command line, if that is possible."""
    if aws_program() is not None:
        return
    shutil.rmtree(AWS_FOLDER, ignore_errors=True)
    pip = str(AWS_FOLDER / "bin" / "pip")
    for command in (
        [sys.executable, "-m", "venv", str(AWS_FOLDER)],
        [pip, "install", "--quiet", "--disable-pip-version-check", AWS_CLI],
    ):
        if subprocess.run(command, check=False).returncode:
            print(f"could not install {AWS_CLI}", file=sys.stderr)
            return


async def measure(folder: Path) -> list[Figure]:
    """Measure the uploads. Returns no figure if SeaweedFS or curl is missing."""
    if not Seaweed.available() or shutil.which("curl") is None:
        return []
    source = folder / "source"
    await asyncio.to_thread(_write_source, source)
    with Seaweed(BUCKET) as s3:
        port = int(s3.endpoint_url.rpartition(":")[2])
        home = folder / "ours"
        home.mkdir()
        keys = (s3.access_key, s3.secret_key)
        async with bucketfront(home, port, keys=keys, methods="GET, HEAD, PUT") as subject:
            return [*await _large(s3, subject, source), *await _small(s3, subject)]


def _write_source(path: Path) -> None:
    """Write random bytes, which disks and networks cannot compress."""
    dice = random.Random(6)
    with path.open("wb") as file:
        for _ in range(LARGE // MIB):
            file.write(dice.randbytes(MIB))


# --- one large object ------------------------------------------------------------------------------------------


async def _large(s3: Seaweed, subject: Subject, source: Path) -> list[Figure]:
    rates: dict[str, list[float]] = {OURS: [], AWS: []}
    wrong, growth = 0, []
    wanted = await asyncio.to_thread(_sha256_of_file, source)
    for number in range(ROUNDS):
        async with watched(subject) as memory:
            rates[OURS].append(await _rate("curl", "-sSf", "-T", source, _url(subject, f"large-{number}"), s3=s3))
        growth.append(memory.growth / MIB)
        if aws := aws_program():
            target = f"s3://{BUCKET}/straight-{number}"
            rates[AWS].append(
                await _rate(aws, "--endpoint-url", s3.endpoint_url, "s3", "cp", "--quiet", source, target, s3=s3)
            )
        async with _client(s3) as client:
            wrong += await _sha256_of_object(client, f"large-{number}") != wanted
            # This frees disk space, and leaves SeaweedFS without other work in the next round.
            for key in (f"large-{number}", f"straight-{number}"):
                await client.delete_object(Bucket=BUCKET, Key=key)
    what = "one object of 1 GiB"
    goal = Goal(0.7, of_peers=True, peers=(AWS,))
    return [
        *(
            Figure(NAME, what, "MB/s", name, median(found) / 1e6, "higher", goal if name == OURS else None,
                   detail={"rounds": [round(rate / 1e6, 1) for rate in found]})
            for name, found in rates.items() if found
        ),
        Figure(NAME, f"{what}: memory grows by", "MiB", OURS, max(growth), "lower", Goal(64.0)),
        Figure(NAME, f"{what}: wrong or lost", "", OURS, wrong, "lower", Goal(0.0)),
    ]  # fmt: skip


async def _rate(*arguments: str | Path, s3: Seaweed) -> float:
    """Return bytes a second of a program that uploads the large file, 0 if it failed."""
    variables = {"AWS_ACCESS_KEY_ID": s3.access_key, "AWS_SECRET_ACCESS_KEY": s3.secret_key, "AWS_REGION": s3.region}
    began = time.perf_counter()
    async with program(*arguments, cwd=ROOT, variables=variables) as process:
        _, status = await process.communicate(), process.returncode
    return LARGE / (time.perf_counter() - began) if status == 0 else 0.0


def _sha256_of_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


async def _sha256_of_object(client: Any, key: str) -> str | None:
    """Return the SHA-256 of the object at S3, None if there is none."""
    state = hashlib.sha256()
    try:
        reply = await client.get_object(Bucket=BUCKET, Key=key)
    except client.exceptions.NoSuchKey:
        return None
    async with reply["Body"] as body:
        async for chunk in body.iter_chunks(MIB):
            state.update(chunk)
    return state.hexdigest()


# --- many small ones -------------------------------------------------------------------------------------------


async def _small(s3: Seaweed, subject: Subject) -> list[Figure]:
    dice = random.Random(7)
    bodies = {f"small-{number}": dice.randbytes(SMALL) for number in range(COUNT)}
    connector = aiohttp.TCPConnector(limit=COUNT)
    async with aiohttp.ClientSession(connector=connector) as session, watched(subject) as memory:

        async def put(key: str, body: bytes) -> int:
            async with session.put(_url(subject, key), data=body) as reply:
                return reply.status

        began = time.perf_counter()
        statuses = await asyncio.gather(*(put(key, body) for key, body in bodies.items()))
        seconds = time.perf_counter() - began
    async with _client(s3) as client:
        found = [await _sha256_of_object(client, key) for key in bodies]
    wanted = [hashlib.sha256(body).hexdigest() for body in bodies.values()]
    lost = sum(status != 201 or have != want for status, have, want in zip(statuses, found, wanted, strict=True))
    what = f"{COUNT} objects of 1 MiB at once"
    return [
        Figure(NAME, what, "s", OURS, seconds if not lost else FAILED),
        Figure(NAME, f"{what}: memory grows by", "MiB", OURS, memory.growth / MIB),
        Figure(NAME, f"{what}: wrong or lost", "", OURS, lost, "lower", Goal(0.0),
               detail={"statuses": _counted(statuses)}),
    ]  # fmt: skip


def _counted(statuses: Sequence[int]) -> dict[str, int]:
    return {str(status): statuses.count(status) for status in sorted(set(statuses))}


def _url(subject: Subject, key: str) -> str:
    return f"http://127.0.0.1:{subject.port}{subject.path(key)}"


@contextlib.asynccontextmanager
async def _client(s3: Seaweed) -> AsyncGenerator[Any, None]:
    async with get_session().create_client(
        "s3",
        endpoint_url=s3.endpoint_url,
        region_name=s3.region,
        aws_access_key_id=s3.access_key,
        aws_secret_access_key=s3.secret_key,
    ) as client:
        yield client
