"""Let each system call of an operation on the cache folder fail, and be the last one before a kill, in turn."""

import contextlib
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from disk_child import body_of
from disk_proxy import BLOCK, Forks, Gone, Proxy, Response, expected, space
from evidence import Evidence
from stopwatch import on_this_machine
from syscalls import ALL, FALLIBLE, Point, Strace, need_strace, points

from bucketfront.cache.entries.entry import ENTRY_BYTES

START_TIMEOUT_S = 2.0  # seconds (I14)
PROBE = "/.probe"  # a file that the start creates and removes; see `test_killed_beside_the_probe`
TRIES = 4  # of a point whose start comes late, because another process may delay one
RECOVERY_TIMEOUT_S = 30.0  # seconds after which a recovered disk is used again, on a slow machine
SMOKE_KILLS, SMOKE_FAULTS = 12, 7  # most points of one operation and fault in the short run

WHOLE, PARTIAL, WRITTEN = "whole-200001", "partial-327680", "written-150000"
PURGED = ("purged1-70000", "purged2-70000")
UNFLUSHED, NEW, LATER = "unflushed-131073", "new-262147", "later-70000"
KEYS = (WHOLE, PARTIAL, WRITTEN, *PURGED, UNFLUSHED, NEW, LATER)


class LateStart(AssertionError):
    """A start took longer than START_TIMEOUT_S."""


@dataclass(slots=True)
class Seen:
    """The responses that the clients of one operation got."""

    reads: list[tuple[str, int, int, Response]] = field(default_factory=list)  # (key, first byte, end, response)
    writes: list[Response] = field(default_factory=list)
    purges: list[Response] = field(default_factory=list)

    def get(self, proxy: Proxy, key: str, start: int = 0, stop: int | None = None) -> None:
        response = proxy.get(key) if stop is None else proxy.get(key, start, stop - 1)
        self.reads.append((key, start, len(body_of(key)) if stop is None else stop, response))

    @property
    def is_purged(self) -> bool:
        return any(response.status == 200 for response in self.purges)


Act = Callable[[Proxy, Seen], None]


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation on a copy of `folder`. `before` prepares it untraced, then `act` is traced in `thread`.

    A `start` is halted before it opens the cache.
    """

    name: str
    act: Act
    before: Act | None = None
    folder: str = "warm"
    thread: str = "disk"
    is_start: bool = False
    max_size: int = 64 << 20


def fill(proxy: Proxy, seen: Seen) -> None:
    seen.get(proxy, NEW)
    seen.get(proxy, PARTIAL)
    proxy.do("rest")


def commit(proxy: Proxy, _: Seen) -> None:
    proxy.do("flush")


def evict(proxy: Proxy, seen: Seen) -> None:
    seen.get(proxy, NEW)
    proxy.do("rest")
    proxy.do("flush")


def expire(proxy: Proxy, _: Seen) -> None:
    proxy.do("age")
    proxy.do("step")


def purge(proxy: Proxy, seen: Seen) -> None:
    seen.purges.append(proxy.purge("/purged"))
    proxy.do("flush")


def upload(proxy: Proxy, seen: Seen) -> None:
    seen.writes.append(proxy.put(WRITTEN, body_of(WRITTEN, version=1)))
    seen.get(proxy, WRITTEN)
    proxy.do("rest")
    proxy.do("flush")


def restart(proxy: Proxy, _: Seen) -> None:
    proxy.go_on()
    proxy.wait_halted("opened")


def sweep(proxy: Proxy, _: Seen) -> None:
    proxy.go_on()
    proxy.wait_ready()
    proxy.do("rest")


def start(proxy: Proxy, seen: Seen) -> None:
    restart(proxy, seen)
    sweep(proxy, seen)


def first_touch(proxy: Proxy, seen: Seen) -> None:
    for key in KEYS:
        seen.get(proxy, key)
    proxy.do("rest")
    proxy.do("flush")


def read(proxy: Proxy, seen: Seen) -> None:
    for key in (WHOLE, WRITTEN, WHOLE):
        seen.get(proxy, key)
    seen.get(proxy, WHOLE, BLOCK - 5, 2 * BLOCK + 5)


def stop(proxy: Proxy, _: Seen) -> None:
    proxy.stop()


OPERATIONS = {
    operation.name: operation
    for operation in (
        Operation("fill", fill),
        Operation("commit", commit, before=fill),
        Operation("evict", evict, max_size=880 << 10),
        Operation("expire", expire),
        Operation("purge", purge),
        Operation("upload", upload),
        Operation("restart", restart, folder="unclean", thread="main", is_start=True),
        Operation("sweep", sweep, before=restart, folder="unclean", is_start=True),
        Operation("first touch", first_touch, before=start, folder="unclean", is_start=True),
        Operation("read", read, thread="main"),
        Operation("stop", stop, before=fill),
        Operation("close", stop, before=fill, thread="main"),
    )
}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Choose the disk errors, each once and permanent. The short run has two of these combinations."""
    if "lasts" in metafunc.fixturenames:
        faults = [(error, lasts) for error in ("ENOSPC", "EIO", "EROFS", "EDQUOT") for lasts in (False, True)]
        if not metafunc.config.getoption("--soak", default=False):
            faults = [("ENOSPC", False), ("EIO", True)]
        names = [f"{error} {'from then on' if lasts else 'once'}" for error, lasts in faults]
        metafunc.parametrize(("error", "lasts"), faults, ids=names)


@pytest.fixture(scope="module")
def forks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forks]:
    need_strace()
    with Forks(tmp_path_factory.mktemp("forks") / "stderr") as running:
        yield running


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory, forks: Forks) -> Path:
    """Return the folder of `warm`, left by a clean stop, and `unclean`, left by a kill with bytes missing in the
    index.
    """
    found = tmp_path_factory.mktemp("folders")
    for name in ("warm", "unclean"):
        proxy = forks.start(found / name, upkeep=3600)
        for key in (WHOLE, WRITTEN, *PURGED):
            assert proxy.get(key).status == 200
        assert proxy.get(PARTIAL, 70000, 131071).status == 206
        proxy.do("rest")
        proxy.do("flush")
        if name == "warm":
            proxy.stop()
        else:
            proxy.get(UNFLUSHED)
            proxy.get(PARTIAL, 3 * BLOCK, 4 * BLOCK)
            proxy.do("rest")
            proxy.kill()
    return found


@dataclass(slots=True)
class Bench:
    """Repeats one operation, each time on a fresh copy of its folder."""

    forks: Forks
    folders: Path
    home: Path
    evidence: Evidence

    def points(self, operation: Operation, calls: tuple[str, ...]) -> list[Point]:
        """Return the calls that the operation makes if nothing fails."""
        proxy, seen = self.begin(operation)
        with Strace(proxy.threads[operation.thread], self.home / "strace", calls) as strace:
            operation.act(proxy, seen)
        self.check_responses(seen, is_killed=False)
        proxy.kill()
        self.check_folder(seen)
        return points(strace.text, self.home / "cache")

    def fail(self, operation: Operation, point: Point, error: str, *, lasts: bool = False) -> bool:
        """Let one call fail, and check that the proxy continues and soon uses the cache again (I16).

        With `lasts` all later calls of that name fail as well. Returns whether the call occurred.
        """
        proxy, seen = self.begin(operation)
        fault = f"{point.call}:error={error}:when={point.nth}{'+' if lasts else ''}"
        with Strace(proxy.threads[operation.thread], self.home / "strace", ALL, fault) as strace:
            try:
                operation.act(proxy, seen)
            except Gone:
                assert proxy.refused or operation.act is stop, "the process ended"
                self.evidence.add("starts refused because of the disk", bool(proxy.refused))
        self.check_responses(seen, is_killed=False)
        if operation.act is not stop and not proxy.refused:
            if operation.act is restart:
                proxy.go_on()
                proxy.wait_ready()
            self._check_recovery(proxy)
            proxy.kill()
        self.check_folder(seen)
        return strace.has_struck

    def kill(self, operation: Operation, point: Point) -> bool:
        """Kill the process at one call, and check that the next start works without help (I14).

        Returns whether the call occurred.
        """
        proxy, seen = self.begin(operation)
        fault = f"{point.call}:signal=SIGKILL:when={point.nth}"
        with Strace(proxy.threads[operation.thread], self.home / "strace", ALL, fault) as strace:
            try:
                operation.act(proxy, seen)
            except Gone:
                strace.wait()
        proxy.kill()
        self.check_responses(seen, is_killed=True)
        self.check_folder(seen)
        return strace.has_struck

    def begin(self, operation: Operation, short_write: int = 0) -> tuple[Proxy, Seen]:
        """Start the operation's proxy, ready for `act`."""
        shutil.rmtree(self.home, ignore_errors=True)
        subprocess.run(["cp", "-a", "--sparse=always", self.folders / operation.folder, self.home], check=True)
        is_start = operation.is_start
        proxy = self.forks.start(
            self.home,
            wait=not is_start,
            halts=is_start,
            upkeep=3600,
            short_write=short_write,
            max_size=operation.max_size,
        )
        seen = Seen()
        if is_start:
            proxy.wait_halted("opening")
        else:
            proxy.do("rest")  # the sweep of the start has ended
        if operation.before is not None:
            operation.before(proxy, seen)
        return proxy, seen

    def check_responses(self, seen: Seen, *, is_killed: bool) -> None:
        """Check for right bytes or a visible cut, and for no 5xx except from an incomplete purge."""
        none = {0} if is_killed else set()
        for key, start, stop, response in seen.reads:
            assert response.status in {200, 206} | none, f"{key}: {response.status}"
            versions = {0}
            if key == WRITTEN and seen.writes:
                versions = {1} if seen.writes[0].status == 201 else {0, 1}
            wanted = [body_of(key, version)[start:stop] for version in versions]
            length = len(response.body)
            assert response.body in [body[:length] for body in wanted], f"{key}: wrong bytes"
            assert response.is_cut or length == stop - start, f"{key}: a clean end after {length} bytes"
            self.evidence.add("answers cut", response.is_cut and not is_killed)
            self.evidence.add("bytes checked", length)
        assert {response.status for response in seen.writes} <= {201} | none
        assert {response.status for response in seen.purges} <= {200, 500} | none

    def _check_recovery(self, proxy: Proxy) -> None:
        until = time.monotonic() + RECOVERY_TIMEOUT_S
        while not (response := proxy.get(LATER)).is_hit:
            assert response.status == 200
            assert response.body == body_of(LATER)
            assert time.monotonic() < until, f"no hit after {RECOVERY_TIMEOUT_S} s: {response.cache_status}"
            time.sleep(0.02)
        for key in (WHOLE, PARTIAL, NEW):
            response = proxy.get(key)
            assert (response.status, response.is_cut) == (200, False), f"{key}: {response.status}"
            assert response.body == body_of(key), f"{key}: wrong bytes"
        proxy.do("rest")
        proxy.do("flush")
        used = proxy.figures()["bytes_used"]
        assert space(self.home / "cache" / "objects") <= used, "more on the disk than is charged"

    def check_folder(self, seen: Seen) -> None:
        """Start on the folder: ready in time, every block right, all space accounted for (I14, I1, I2, I17)."""
        began = time.monotonic()
        proxy = self.forks.start(self.home, upkeep=3600)
        took = time.monotonic() - began
        if took >= on_this_machine(START_TIMEOUT_S):
            raise LateStart(f"ready after {took:.1f} s")
        for key in KEYS:
            right = expected(self.home, key)
            response = proxy.get(key)
            assert (response.status, response.is_cut) == (200, False), f"{key}: {response.status}"
            assert response.body == right, f"{key}: wrong bytes after a start"
            assert not (key in PURGED and seen.is_purged and response.is_hit), f"{key} came back"
            self.evidence.add("bytes checked", len(right))
        proxy.do("rest")
        proxy.do("flush")
        for key in KEYS:
            response = proxy.get(key, BLOCK // 2)
            assert response.is_hit, f"{key}: {response.cache_status}"
            assert response.body == expected(self.home, key)[BLOCK // 2 :], f"{key}: wrong bytes from the cache"
        self._check_space(proxy)
        proxy.kill()

    def _check_space(self, proxy: Proxy) -> None:
        figures = proxy.figures()
        used, on_disk = figures["bytes_used"], space(self.home / "cache" / "objects")
        # Nothing runs and every entry is complete, so only the overhead of each entry is charged beyond its bytes.
        assert figures["entries"] == len(KEYS)
        assert on_disk <= used <= on_disk + ENTRY_BYTES * len(KEYS)
        assert space(self.home / "cache") <= used + figures["index_bytes"]


@pytest.fixture
def bench(forks: Forks, folders: Path, tmp_path: Path, evidence: Evidence) -> Bench:
    return Bench(forks, folders, tmp_path / "home", evidence)


def chosen(found: Sequence[Point], limit: int) -> list[Point]:
    """Return at most `limit` of them, evenly spread, including the first and the last."""
    if len(found) <= limit:
        return list(found)
    last = len(found) - 1
    return [found[number * last // (limit - 1)] for number in range(limit)]


def try_each(bench: Bench, what: str, found: list[Point], limit: int, strike: Callable[[Point], bool]) -> None:
    """Try each chosen point, whatever the result of the one before."""
    failures, struck = [], 0
    tried = chosen(found, limit)
    for point in tried:
        try:
            struck += in_time(lambda point=point: strike(point))  # type: ignore[misc]
        except (AssertionError, Gone, TimeoutError) as error:
            failures.append(f"{point}: {error}".splitlines()[0])
    bench.evidence.add("crash points", struck)
    bench.evidence.add(f"crash points, {what}", struck)
    bench.evidence.add(f"crash points there are, {what}", len(found))
    assert not failures, f"{len(failures)} of {len(tried)} points:\n" + "\n".join(failures)
    # Some calls need not recur: a new file's folder may exist, and the kernel may take more of a response at once.
    assert struck >= min(2, len(tried)), f"only {struck} of {len(tried)} calls came again"


def in_time(act: Callable[[], bool]) -> bool:
    """Repeat an operation after which the start comes late. If that is the operation's fault, all starts are late."""
    for _ in range(TRIES - 1):
        with contextlib.suppress(LateStart):
            return act()
    return act()


@pytest.mark.parametrize("name", OPERATIONS)
def test_killed_at_each_call(bench: Bench, name: str, is_soak: bool) -> None:
    """Whichever call was the last, the next start works without help and serves right bytes only (I1, I2, I14, I17)."""
    operation = OPERATIONS[name]
    found = [point for point in bench.points(operation, ALL) if PROBE not in point.seen]
    limit = len(found) if is_soak else SMOKE_KILLS
    try_each(bench, f"{name}, kill", found, limit, lambda point: bench.kill(operation, point))


@pytest.mark.parametrize("name", [name for name in OPERATIONS if name != "sweep"])
def test_each_call_fails(bench: Bench, name: str, error: str, lasts: bool, is_soak: bool) -> None:
    """Whichever call fails, clients get right bytes or a cut, no 5xx, and the cache is soon used again (I1, I3,
    I16).
    """
    operation = OPERATIONS[name]
    found = [
        point for point in bench.points(operation, FALLIBLE) if PROBE not in point.seen and point.call != "preadv2"
    ]
    limit = len(found) if is_soak else SMOKE_FAULTS
    what = f"{name}, {error}{' from then on' if lasts else ''}"
    try_each(bench, what, found, limit, lambda point: bench.fail(operation, point, error, lasts=lasts))


def test_killed_beside_the_probe(bench: Bench) -> None:
    """A start that is killed while it probes the folder is recovered from like any other kill (I14)."""
    operation = OPERATIONS["restart"]
    found = [point for point in bench.points(operation, ALL) if PROBE in point.seen]
    try_each(bench, "the probe, kill", found, len(found), lambda point: bench.kill(operation, point))


def test_each_call_of_a_sweep_fails(bench: Bench) -> None:
    """If the disk fails during the sweep of orphans and recovers, the sweep is completed (I16, I17)."""
    operation = OPERATIONS["sweep"]
    found = bench.points(operation, FALLIBLE)
    try_each(bench, "sweep, EIO", found, len(found), lambda point: bench.fail(operation, point, "EIO"))


def test_what_is_in_memory_cannot_be_told(bench: Bench) -> None:
    """If the disk fails at the check of the page cache, the response is complete and only the cache is affected
    (I16).
    """
    operation = OPERATIONS["read"]
    found = bench.points(operation, ("preadv2",))
    try_each(bench, "residency, EIO", found, 4, lambda point: bench.fail(operation, point, "EIO"))


def test_each_write_is_short(bench: Bench) -> None:
    """After a short write, the rest of the bytes is written (I2)."""
    operation = OPERATIONS["fill"]
    writes = [point for point in bench.points(operation, ("pwrite64",)) if "index.db" not in point.seen]
    for nth in range(1, len(writes) + 1):
        proxy, seen = bench.begin(operation, short_write=nth)
        with Strace(proxy.threads["disk"], bench.home / "strace", ("pwrite64",)) as strace:
            operation.act(proxy, seen)
        assert len(points(strace.text, bench.home / "cache")) == len(writes) + 1
        bench.check_responses(seen, is_killed=False)
        proxy.kill()
        bench.check_folder(seen)
    bench.evidence.add("crash points", len(writes))
    bench.evidence.add("crash points, fill, short write", len(writes))
