"""A whole proxy on a disk that is full, missing, slow or corrupt: it serves right bytes and soon caches again."""

import contextlib
import hashlib
import os
import shutil
import sqlite3
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from disk_child import body_of
from disk_proxy import BLOCK, PARALLEL, PART, Forks, Proxy, space
from evidence import Evidence
from stopwatch import on_this_machine
from syscalls import FALLIBLE, Strace, names_of, need_strace

from bucketfront.cache.storage import file_storage

MIB = 1 << 20
RECOVERY_TIMEOUT_S = 30.0  # seconds after which a recovered disk is used again, on a slow machine
START_TIMEOUT_S = 2.0  # seconds (I14)
TRIES = 4  # of what has a bound on time, because another process may delay one
SAMPLING_INTERVAL_S = 0.1  # seconds between two samples of the space taken
CLIENTS = 4
RUNNING_BYTES = CLIENTS * PARALLEL * PART  # bytes of all part fetches that may be running
WARM = ("warm1-200001", "warm2-70000", "warm3-327680")

Mount = Callable[[str], Path]


@pytest.fixture(scope="module")
def forks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forks]:
    with Forks(tmp_path_factory.mktemp("forks") / "stderr") as running:
        yield running


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Mount]:
    """Mount a tmpfs with these options for the cache alone. It is unmounted after the test."""
    where = tmp_path / "disk"
    where.mkdir()

    def mounted(options: str) -> Path:
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "bucketfront-test", where],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            pytest.skip(f"not run: cannot mount a tmpfs: {done.stderr.strip()}")
        return where

    yield mounted
    if where.is_mount():
        # Lazily, because a proxy may have files open until the last test has ended.
        subprocess.run(["umount", "-l", where], check=True)


@pytest.fixture
def retry_after(is_soak: bool) -> float:
    """Return the seconds without disk access after a disk error. The long run has the production value."""
    return file_storage.FAILURE_PAUSE_S if is_soak else 1.0


class Client:
    """Sends requests and checks the responses."""

    def __init__(self, proxy: Proxy, evidence: Evidence) -> None:
        self._proxy = proxy
        self._evidence = evidence

    def get(self, key: str, start: int = 0, *, may_be_cut: bool = False) -> bool:
        """Send a GET and check the response (I1, I3, I16). Returns whether it was a hit."""
        right = body_of(key)[start:]
        response = self._proxy.get(key, start) if start else self._proxy.get(key)
        assert response.status in (200, 206) or (may_be_cut and not response.status), f"{key}: {response.status}"
        assert response.body == right[: len(response.body)], f"{key}: wrong bytes"
        assert len(response.body) == len(right) or (may_be_cut and response.is_cut), (
            f"{key}: {len(response.body)} bytes"
        )
        self._evidence.add("bytes checked", len(response.body))
        return response.is_hit

    def all_works(self, name: str) -> None:
        """Check new objects, whole and in part, writes, and the objects stored before."""
        for number in range(4):
            self.get(f"{name}{number}-{3 * BLOCK + number}")
            self.get(f"{name}{number}-{3 * BLOCK + number}", BLOCK + 1)
        written = f"{name}-written-{BLOCK}"
        assert self._proxy.put(written, body_of(written)).status == 201
        self.get(written)
        for key in WARM:
            self.get(key)
        assert self._proxy.is_up()

    def wait_cached(self, name: str) -> None:
        """Wait until a newly requested object is cached; fail after RECOVERY_TIMEOUT_S."""
        began = time.monotonic()
        while not self.get(f"{name}-70001"):
            assert time.monotonic() - began < RECOVERY_TIMEOUT_S, (
                f"nothing is cached {RECOVERY_TIMEOUT_S:g} s after the disk's recovery"
            )
            time.sleep(0.05)
        self._evidence.add("recoveries of a disk")


def started(
    forks: Forks, tmp_path: Path, evidence: Evidence, folder: Path | None = None, **changes: Any
) -> tuple[Proxy, Client]:
    proxy = forks.start(tmp_path, folder=folder, **changes)
    client = Client(proxy, evidence)
    for key in WARM:
        client.get(key)
    proxy.do("rest")
    proxy.do("flush")
    return proxy, client


def fill_up(folder: Path) -> Path:
    """Write a file that takes all free bytes of a disk."""
    hog = folder / "hog"
    with hog.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))
    return hog


def use_up_inodes(folder: Path) -> list[Path]:
    """Create empty files until the disk has no inode left."""
    hogs: list[Path] = []
    with contextlib.suppress(OSError):
        while True:
            hogs.append(folder / f"hog{len(hogs)}")
            hogs[-1].touch()
    return hogs


@pytest.mark.parametrize("already", ["empty", "full"])
def test_bytes_run_out(
    forks: Forks, mount: Mount, tmp_path: Path, evidence: Evidence, retry_after: float, already: str
) -> None:
    """A full disk gets no new entries, and is used again as soon as it has room (I16)."""
    disk = mount("size=3m")
    proxy, client = started(forks, tmp_path, evidence, disk / "cache", retry_after=retry_after)
    hog = fill_up(disk) if already == "full" else None
    for number in range(8):
        client.get(f"flood{number}-{8 * BLOCK + number}")
    client.all_works("during")
    if hog is not None:
        hog.unlink()
    else:
        proxy.purge("/flood")
    client.wait_cached("after")
    client.all_works("after")
    proxy.kill()
    check_start(forks, tmp_path, evidence, disk / "cache")


def test_inodes_run_out(forks: Forks, mount: Mount, tmp_path: Path, evidence: Evidence, retry_after: float) -> None:
    """On a disk without inodes the oldest entries give way. It is used in full as soon as it has inodes again (I16)."""
    disk = mount("size=32m,nr_inodes=40")
    proxy, client = started(forks, tmp_path, evidence, disk / "cache", retry_after=retry_after)
    hogs = use_up_inodes(disk)
    client.all_works("during")
    for hog in hogs:
        hog.unlink(missing_ok=True)
    client.wait_cached("after")
    many = [f"many{number}-{BLOCK}" for number in range(60)]  # more than there is room for
    for key in many:
        client.get(key)
    proxy.do("rest")
    assert all(client.get(key) for key in many[-20:]), "the newest objects are not cached"
    client.all_works("after")


def test_read_only_and_back(forks: Forks, mount: Mount, tmp_path: Path, evidence: Evidence, retry_after: float) -> None:
    """A folder that becomes read-only is used again once it is writable (I16).

    A file system with files open for writing cannot be remounted read-only, so a second mount takes its place.
    """
    disk = mount("size=32m")
    proxy, client = started(forks, tmp_path, evidence, disk / "cache", retry_after=retry_after)
    subprocess.run(["mount", "--bind", disk, disk], check=True)
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", disk], check=True)
        client.all_works("during")
    finally:
        subprocess.run(["umount", "-l", disk], check=True)
    client.wait_cached("after")
    client.all_works("after")
    proxy.kill()
    check_start(forks, tmp_path, evidence, disk / "cache")


@pytest.mark.parametrize("what", ["bytes", "inodes"])
def test_start_on_a_full_disk(forks: Forks, mount: Mount, tmp_path: Path, evidence: Evidence, what: str) -> None:
    """A disk that the cache or other programs have filled does not prevent a start after a kill (I14, I16)."""
    disk = mount("size=8m,nr_inodes=60")
    proxy, _ = started(forks, tmp_path, evidence, disk / "cache")
    proxy.kill()
    if what == "bytes":
        fill_up(disk)
    else:
        use_up_inodes(disk)
    Client(forks.start(tmp_path, folder=disk / "cache"), evidence).all_works("after")


@pytest.mark.parametrize("error", ["EIO", "EROFS"])
def test_every_call_fails(forks: Forks, tmp_path: Path, evidence: Evidence, retry_after: float, error: str) -> None:
    """While every disk call fails, requests still succeed; soon after the last failure objects are cached again
    (I16).
    """
    need_strace()
    proxy, client = started(forks, tmp_path, evidence, retry_after=retry_after)
    with Strace(proxy.threads["disk"], tmp_path / "strace", FALLIBLE, f"{names_of(FALLIBLE)}:error={error}") as strace:
        client.all_works("during")
    assert strace.has_struck
    client.wait_cached("after")
    client.all_works("after")
    proxy.kill()
    check_start(forks, tmp_path, evidence)


def test_slow_writes(forks: Forks, tmp_path: Path, evidence: Evidence) -> None:
    """If the disk takes 0.3 s for each write, only the readers of these bytes are slower, and no hit is (I16)."""
    need_strace()
    proxy, client = started(forks, tmp_path, evidence)
    for key in WARM:
        assert client.get(key)
    medians: list[float] = []
    while not medians or (medians[-1] >= 0.25 and len(medians) < TRIES):
        with (
            Strace(proxy.threads["disk"], tmp_path / "strace", ("pwrite64",), "pwrite64:delay_enter=300000") as strace,
            ThreadPoolExecutor(1) as threads,
        ):
            filling = threads.submit(client.get, f"slow{len(medians)}-262144")
            waits = []
            while not filling.done():
                began = time.monotonic()
                assert client.get(WARM[0])
                waits.append(time.monotonic() - began)
                time.sleep(0.02)
            filling.result()
        assert strace.has_struck
        medians.append(sorted(waits)[len(waits) // 2])
    assert medians[-1] < 0.25, f"hits wait for writes: {medians} s"
    evidence.add("hits beside slow writes", len(waits))
    client.all_works("after")
    proxy.kill()
    check_start(forks, tmp_path, evidence)


# --- the folder itself ---------------------------------------------------------------------------------------


def test_folder_deleted(forks: Forks, tmp_path: Path, evidence: Evidence, retry_after: float) -> None:
    """After the cache folder is deleted under the running proxy, objects are soon cached again (I16)."""
    proxy, client = started(forks, tmp_path, evidence, retry_after=retry_after)
    shutil.rmtree(tmp_path / "cache")
    client.all_works("during")
    client.wait_cached("after")
    client.all_works("after")
    proxy.kill()
    check_start(forks, tmp_path, evidence)


def test_deleted_folder_is_begun_anew(forks: Forks, tmp_path: Path, evidence: Evidence, retry_after: float) -> None:
    """What is cached after the folder was deleted survives a restart, and the new folder is locked (I14, I16)."""
    proxy, client = started(forks, tmp_path, evidence, retry_after=retry_after)
    shutil.rmtree(tmp_path / "cache")
    client.all_works("during")
    client.wait_cached("after")
    until = time.monotonic() + RECOVERY_TIMEOUT_S
    while not (tmp_path / "cache" / "index.db").exists():
        assert time.monotonic() < until, "no index in the new folder"
        client.get(WARM[0])
        time.sleep(0.05)
    client.wait_cached("later")
    proxy.do("rest")
    proxy.do("flush")
    proxy.stop()
    client = Client(forks.start(tmp_path), evidence)
    assert client.get("later-70001")


@pytest.mark.parametrize("what", ["folder", "objects", "shard"])
def test_symlink_in_its_place(forks: Forks, tmp_path: Path, evidence: Evidence, retry_after: float, what: str) -> None:
    """The target of a symbolic link in place of the folder stays untouched, whatever the proxy does (I16)."""
    cache, victim = tmp_path / "cache", tmp_path / "victim"
    proxy, client = started(forks, tmp_path, evidence, retry_after=retry_after)
    inside = {"folder": cache, "objects": cache / "objects", "shard": next((cache / "objects").iterdir())}[what]
    # A copy of the cache: the files that the proxy would unlink or open have the same names there.
    shutil.copytree(inside, victim, ignore=shutil.ignore_patterns("*.sock"))
    (victim / "precious").write_bytes(b"not the cache's")
    before = state_of(victim)
    inside.rename(tmp_path / "renamed")
    inside.symlink_to(victim)
    client.all_works("during")
    proxy.purge("/")
    client.all_works("purged")
    proxy.do("age")
    proxy.do("step")
    client.all_works("aged")
    proxy.stop()
    assert state_of(victim) == before


def state_of(folder: Path) -> dict[str, tuple[int, int, str]]:
    """Return names, modes, modification times and contents of everything in a folder."""
    found = {}
    for path in (folder, *sorted(folder.rglob("*"))):
        at = path.lstat()
        content = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
        found[str(path.relative_to(folder))] = (at.st_mode, at.st_mtime_ns, content)
    return found


# --- bytes that are not what they were -----------------------------------------------------------------------


def rot(files: list[Path]) -> None:
    for file in files:
        with file.open("r+b") as data:
            for offset in range(0, file.stat().st_size, BLOCK):
                data.seek(offset + 7)
                octet = data.read(1)[0] ^ 1
                data.seek(offset + 7)
                data.write(bytes([octet]))


def truncate(files: list[Path]) -> None:
    for file in files:
        os.truncate(file, file.stat().st_size - 1)


def truncate_and_extend(files: list[Path]) -> None:
    for file in files:
        size = file.stat().st_size
        os.truncate(file, size // 2)
        os.truncate(file, size)


def punch(files: list[Path]) -> None:
    for file in files:
        subprocess.run(["fallocate", "--punch-hole", "-o", "0", "-l", str(BLOCK), file], check=True)


def swap(files: list[Path]) -> None:
    first, second, *_ = files
    other = first.with_name("other")
    first.rename(other)
    second.rename(first)
    other.rename(second)


def claim(files: list[Path]) -> None:
    """Let the index claim every block of every object, whatever the files hold."""
    index = files[0].parents[2] / "index.db"
    with contextlib.closing(sqlite3.connect(index)) as database, database:
        database.execute("UPDATE pages SET present = ?", (b"\xff" * 32,))


AT_REST: dict[str, Callable[[list[Path]], None]] = {
    "bit rot": rot, "truncated": truncate, "truncated and extended": truncate_and_extend, "punched": punch,
    "swapped": swap, "claimed by the index": claim,
}  # fmt: skip
SAME, HALF = ("same1-200001", "same2-200001"), "half-327680"


@pytest.mark.parametrize("harm", AT_REST)
def test_damaged_after_a_kill(forks: Forks, tmp_path: Path, evidence: Evidence, harm: str) -> None:
    """After an unclean stop a corrupt block is found before a byte of it is sent (I15)."""
    proxy, client = started(forks, tmp_path, evidence)
    for key in SAME:
        client.get(key)
    proxy.get(HALF, BLOCK, 2 * BLOCK - 1)
    proxy.do("rest")
    proxy.do("flush")
    proxy.kill()
    # Ordered by size: swapped files of equal size differ by their content alone.
    files = sorted((tmp_path / "cache" / "objects").glob("*/*"), key=lambda file: file.stat().st_size != 200001)
    AT_REST[harm](files)
    client = Client(forks.start(tmp_path), evidence)
    for key in (*WARM, *SAME, HALF):
        client.get(key)
    for key in (*WARM, *SAME, HALF):
        client.get(key, BLOCK // 2)
    evidence.add("damaged files", len(files))


@pytest.mark.parametrize("is_up", [False, True], ids=["down", "up"])
def test_truncated_after_a_clean_stop(forks: Forks, tmp_path: Path, evidence: Evidence, is_up: bool) -> None:
    """A file that is too short is a miss, or cuts a response that has begun; no response is padded (I3, I15)."""
    proxy, client = started(forks, tmp_path, evidence)
    proxy.stop()
    if is_up:
        proxy = forks.start(tmp_path)
        client = Client(proxy, evidence)
        for key in WARM:
            client.get(key)
    truncate(sorted((tmp_path / "cache" / "objects").glob("*/*")))
    if not is_up:
        client = Client(forks.start(tmp_path), evidence)
    for key in WARM:
        client.get(key, may_be_cut=is_up)


# --- space ---------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Sampled:
    most: int = 0  # most bytes that were taken
    least_free: int = 1 << 62
    samples: int = 0


@contextmanager
def sampling(proxy: Proxy, folder: Path) -> Iterator[Sampled]:
    """Sample every SAMPLING_INTERVAL_S seconds the bytes that all files take, and the free space of the disk.

    The proxy is stopped meanwhile. Otherwise a walk that takes long on a busy machine would count files that are
    removed and those that take their place.
    """
    found, is_over = Sampled(), threading.Event()

    def look() -> None:
        while not is_over.wait(SAMPLING_INTERVAL_S):
            with proxy.stopped():
                found.most = max(found.most, space(folder))
            at = os.statvfs(folder)
            found.least_free = min(found.least_free, at.f_bavail * at.f_frsize)
            found.samples += 1

    with ThreadPoolExecutor(1) as threads:
        looking = threads.submit(look)
        try:
            yield found
        finally:
            is_over.set()
        looking.result()


def flood(client: Client, total: int) -> None:
    """Request objects of many sizes, `total` bytes together, from several clients, and some of them again."""
    sizes = [BLOCK // 2, 3 * BLOCK + 1, 7 * BLOCK, 15 * BLOCK + 11]
    count = total // (sum(sizes) // len(sizes))
    with ThreadPoolExecutor(CLIENTS) as threads:
        for task in [
            threads.submit(client.get, f"flood{number}-{sizes[number % len(sizes)]}")
            for n in range(count)
            for number in (n, n // 2)
        ]:
            task.result()


def test_space_bound(forks: Forks, tmp_path: Path, evidence: Evidence, is_soak: bool) -> None:
    """The files never take more than `max_size` plus the blocks of running part fetches (I17)."""
    limit = 12 * MIB
    proxy, client = started(forks, tmp_path, evidence, max_size=limit)
    with sampling(proxy, tmp_path / "cache") as sampled:
        flood(client, (50 if is_soak else 5) * limit)
    figures = proxy.figures()
    evidence.add("samples of the space taken", sampled.samples)
    evidence.add("entries evicted", figures["evicted"])
    assert figures["evicted"] > 50
    assert sampled.samples > 5
    assert sampled.most <= limit + RUNNING_BYTES
    assert sampled.most > limit / 2, "the flood did not fill the cache"


@pytest.mark.parametrize("begins", ["later", "at once"])
def test_min_free(forks: Forks, mount: Mount, tmp_path: Path, evidence: Evidence, begins: str, is_soak: bool) -> None:
    """The disk never has less than `min_free` left, even if `max_size` would allow it (I17).

    Running fetches are excepted: bytes reserved but not yet written count as free when the disk is sampled.
    """
    floor = 8 * MIB
    disk = mount("size=20m")
    # The first upkeep round either comes late, as on a busy machine, or ran before the first request.
    upkeep = 1.0 if begins == "later" else 60.0
    proxy = forks.start(tmp_path, folder=disk / "cache", max_size="1GiB", min_free=floor, upkeep=upkeep)
    client = Client(proxy, evidence)
    if begins == "later":
        proxy.do("step")
    with sampling(proxy, disk / "cache") as sampled:
        flood(client, (500 if is_soak else 80) * MIB)
    evidence.add("samples of the space taken", sampled.samples)
    assert proxy.figures()["evicted"] > 30
    assert sampled.samples > 5
    assert sampled.least_free >= floor - RUNNING_BYTES
    assert sampled.most > 6 * MIB, "the flood did not fill the cache"


def check_start(forks: Forks, tmp_path: Path, evidence: Evidence, folder: Path | None = None) -> None:
    """Check that a start on what remains works without help and serves right bytes (I14)."""
    folder = folder or tmp_path / "cache"
    copy = tmp_path / "copy"
    subprocess.run(["cp", "-a", "--sparse=always", folder, copy], check=True)
    for _ in range(TRIES):
        began = time.monotonic()
        proxy = forks.start(tmp_path, folder=folder)
        took = time.monotonic() - began
        if took < on_this_machine(START_TIMEOUT_S):
            break
        proxy.kill()
        shutil.rmtree(folder)
        subprocess.run(["cp", "-a", "--sparse=always", copy, folder], check=True)
    else:
        pytest.fail(f"ready after {took:.1f} s")
    client = Client(proxy, evidence)
    client.all_works("after")
    client.all_works("during")
    proxy.stop()
