"""Hits over TLS 1.3, beside nginx with the same certificate. Varnish has no TLS of its own."""

import contextlib
import shutil
from collections.abc import Sequence
from pathlib import Path

import processes
import warm
from figures import Figure, Goal
from load import Load, wrk
from processes import Certificate, Subject

SCENARIO = "TLS: hits, 32 connections, varying heads"
SIZES = warm.SIZES[:4]
GOAL = Goal(0.8, of_peers=True)
WITH_GOAL = ("16 KiB", "1 MiB")


async def certificate(folder: Path) -> Certificate:
    """Make a certificate of its own signature, with the key that most authorities issue today."""
    made = Certificate(folder / "chain.pem", folder / "key.pem")
    arguments = (
        "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "90",
        "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1",
        "-keyout", made.key, "-out", made.chain,
    )  # fmt: skip
    async with processes.program(*arguments, cwd=folder, log=folder / "openssl.log") as process:
        if await process.wait():
            raise RuntimeError("openssl made no certificate")
    return made


async def measure(folder: Path, *, with_peers: bool) -> list[Figure]:
    """Run the proxies with TLS on an origin of files, and measure their hits."""
    if processes.nginx_program() is None or shutil.which("openssl") is None:
        return []
    root = folder / "root"
    warm.write_files(root, SIZES, has_big=False)
    served = await certificate(folder)
    async with contextlib.AsyncExitStack() as stack:
        homes = {name: folder / name for name in ("ours", "nginx")}
        for home in homes.values():
            home.mkdir()
        origin = await stack.enter_async_context(processes.static_origin(folder, root))
        ours = processes.bucketfront(homes["ours"], origin, certificate=served)
        subjects = [await stack.enter_async_context(ours)]
        if with_peers:
            subjects += (await stack.enter_async_context(processes.nginx(homes["nginx"], origin, served)))[:1]
        return await _hits(subjects)


async def _hits(subjects: Sequence[Subject]) -> list[Figure]:
    figures = []
    for size in SIZES:
        for subject in subjects:
            await warm.filled(subject, size.keys)
        loads: dict[str, list[Load]] = {subject.name: [] for subject in subjects}
        for _ in range(warm.ROUNDS):
            for subject in subjects:
                paths = [subject.path(key) for key in size.keys]
                loads[subject.name].append(
                    await wrk(subject, "get", size.length, paths, connections=32, seconds=warm.SECONDS,
                              body_length=size.length)
                )  # fmt: skip
        figures += warm.rates(SCENARIO, size.label, loads, GOAL if size.label in WITH_GOAL else None)
    return figures
