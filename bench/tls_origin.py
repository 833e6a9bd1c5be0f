"""Fills from an origin with TLS, as S3 has it, beside nginx with `proxy_ssl`. Varnish has no TLS of its own."""

import contextlib
import shutil
from collections.abc import Sequence
from pathlib import Path

import cold
import over_tls
import processes
import warm
from figures import Figure
from load import wrk_program
from processes import Subject

SIZES = warm.SIZES[1:2]  # for the hits beside the fills
HITS = "7. hits of 16 KiB beside two cold fills of 1 GiB, origin with TLS"


async def measure(folder: Path, *, with_peers: bool) -> list[Figure]:
    """Run the proxies on an origin of files with TLS, and measure cold objects, and hits beside them."""
    if processes.nginx_program() is None or shutil.which("openssl") is None:
        return []
    root = folder / "root"
    warm.write_files(root, SIZES)
    served = await over_tls.certificate(folder)
    async with contextlib.AsyncExitStack() as stack:
        homes = {name: folder / name for name in ("ours", "nginx")}
        for home in homes.values():
            home.mkdir()
        origin = await stack.enter_async_context(processes.static_origin(folder, root, served))
        subjects = [await stack.enter_async_context(processes.bucketfront(homes["ours"], origin, authority=served))]
        if with_peers:
            peers = processes.nginx(homes["nginx"], origin, authority=served)
            subjects += (await stack.enter_async_context(peers))[:1]
        return await _measured(subjects)


async def _measured(subjects: Sequence[Subject]) -> list[Figure]:
    figures = await cold.unlimited(subjects, "a cold 1 GiB, origin unlimited, with TLS")
    if wrk_program():
        figures += await warm.beside_fills(subjects, HITS)
    return figures
