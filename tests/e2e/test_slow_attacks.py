"""slowhttptest's attacks by slow headers, slow bodies and slow reads, while honest clients read (I20, I21, I34)."""

import asyncio
import contextlib
import re
import resource
import signal
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from bucketfront_process import Running
from case import Case
from edge_site import until
from fakes import object_bytes
from programs import installed
from site_under_test import MOUNTS, Origin, Site, running_site
from stopwatch import HANG_S
from wire import connected

CONNECTIONS = 1000
RATE = 500  # new connections a second
LONGEST_S = 300  # an attack is ended before
HONEST = 8  # clients
READS = 60  # of each of them
CLIENT = "127.0.0.2"  # the honest clients; the attack comes from 127.0.0.1
HELD = CONNECTIONS // 10  # connections that the attack has open when the honest clients begin
GROWTH_S = 1.0  # in which a growing attack opens a connection
DESCRIPTORS = 4 * CONNECTIONS
MODES = {
    "slow headers": ("-H", "-i", "1", "-x", "24"),
    "slow bodies": ("-B", "-i", "1", "-s", "8192", "-x", "10", "-t", "PUT"),
    "slow reads": ("-X", "-w", "512", "-y", "1024", "-n", "1", "-z", "32", "-k", "3"),
}


@pytest.fixture(scope="module")
def descriptors() -> Iterator[None]:
    """Let programs open enough descriptors, as a service would."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(DESCRIPTORS, hard), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.fixture(scope="module")
def site_of_all(descriptors: None, origin: Origin, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with running_site(origin, tmp_path_factory.mktemp("bucketfront"), MOUNTS, "slow") as site:
        yield site
        assert "Traceback" not in site.running.printed(), site.running.printed()


def connections_of(running: Running) -> int:
    """Return the number of open connections of clients."""
    with urllib.request.urlopen(f"{running.admin_url}/metrics", timeout=HANG_S) as response:
        found = re.search(r"^bucketfront_connections (\S+)", response.read().decode(), re.MULTILINE)
    assert found is not None
    return int(float(found[1]))


def grown(running: Running) -> int:
    """Wait until the attack opens no further connections, and return their number."""
    before, now = -1, connections_of(running)
    while now > before:
        time.sleep(GROWTH_S)
        before, now = now, connections_of(running)
    return now


async def honest_reads(url: str, path: str, data: bytes) -> float:
    """Read the object again and again, on new and on old connections. Return the 99th percentile of the seconds."""

    async def client() -> list[float]:
        taken = []
        for _ in range(READS // 6):
            began = time.perf_counter()
            async with asyncio.timeout(HANG_S), connected(url, local=CLIENT) as connection:
                for _ in range(6):
                    response = await connection.request("GET", path)
                    assert (response.status, response.body) == (200, data)
                    taken.append(time.perf_counter() - began)
                    began = time.perf_counter()
        return taken

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(client()) for _ in range(HONEST)]
    taken = sorted(value for task in tasks for value in task.result())
    return taken[int(len(taken) * 0.99)]


@contextlib.contextmanager
def attack(command: list[str], folder: Path) -> Iterator["subprocess.Popen[bytes]"]:
    with (folder / "output").open("wb") as output:
        process = subprocess.Popen(command, cwd=folder, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()


@pytest.mark.parametrize("mode", MODES)
async def test_slow_attack(
    mode: str, site_of_all: Site, tmp_path: Path, case: Case, trial: Callable[..., None]
) -> None:
    """While a client holds all the connections it can, slowly, others have each of their reads served (I34).

    The times are recorded and not asserted, because they are also those of the attacking program on the same machine.
    """
    program = installed("slowhttptest", version=("-h",))
    case.of(program, f"{CONNECTIONS} connections with {mode}, while others read")
    small, large = object_bytes(4000), object_bytes(4 << 20)
    site_of_all.store("small", small, CacheControl="max-age=3600")
    site_of_all.store("large", large, CacheControl="max-age=3600")
    assert site_of_all.send("GET", "large").body == large
    url, path = site_of_all.running.url, f"/{site_of_all.folder}/small"
    alone = await honest_reads(url, path, small)
    target = site_of_all.url_of("large" if mode == "slow reads" else f"written-{mode.replace(' ', '-')}")
    command = [program.path, "-u", target, "-c", str(CONNECTIONS), "-r", str(RATE), "-l", str(LONGEST_S), "-p", "60"]
    with attack([*command, *MODES[mode]], tmp_path) as process:
        until(lambda: process.poll() is not None or connections_of(site_of_all.running) >= HELD, "the attack runs")
        assert process.poll() is None, (tmp_path / "output").read_text(errors="replace")[-1000:]
        arriving = await honest_reads(url, path, small)
        held = grown(site_of_all.running)
        attacked = await honest_reads(url, path, small)
    until(lambda: connections_of(site_of_all.running) == 0, "all connections are gone")
    assert await honest_reads(url, path, small) > 0
    assert all(site_of_all.stored(name) is None for name in site_of_all.names() if name.startswith("written"))
    reads = HONEST * READS
    seen = (
        f"{2 * reads} honest reads served; p99 {alone * 1e3:.1f} ms before, {arriving * 1e3:.1f} ms while the attack"
        f" connects, then {attacked * 1e3:.1f} ms (factor {attacked / alone:.1f}) with {held} connections held"
    )
    trial("slow clients", f"slowhttptest {program.version}, {mode}", CONNECTIONS, seen)
