"""The limits of a process: descriptors (I21), memory (I19), and the behaviour at these limits."""

import resource
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from certificates import localhost_certificate
from evidence import Evidence
from resource_process import COMMAND, ROOT, Client, PeakMemory, Served, origin_process, serve, wait_until
from stopwatch import on_this_machine

MAX_DESCRIPTORS = 256  # descriptors
CROWD_CONNECTIONS = 400  # connections
ADMIN_TIMEOUT_S = 1.0  # seconds (I21)

CALL_TIMEOUT_S = 60.0  # seconds
REFUSAL_S = 3.0  # seconds of a processor until a second instance is refused (I30), most of them for imports

READERS = 500
OBJECT = 1 << 30
MIB = 1 << 20
BUFFER_BYTES = 32 << 10  # bytes of a stalled reader's receive buffer
CONNECTION_BYTES = 128 << 10  # bytes (I19)
WRITERS = 300
PIECE_BYTES = 64 << 10  # bytes of an upload that are gathered if there are many uploads
FIRST_PIECES_BYTES = 32 * MIB  # bytes: the first uploads may gather more, and there is slack
FETCHES_BYTES = 64 * MIB  # bytes: 16 connections to the origin, the bytes read but not yet written of each, and slack


@pytest.fixture(scope="module")
def origin() -> Iterator[str]:
    with origin_process() as url:
        yield url


class Probe(threading.Thread):
    """Requests `/healthz` again and again, and samples the process meanwhile."""

    def __init__(self, served: Served) -> None:
        super().__init__()
        self._served = served
        self._is_over = threading.Event()
        self.taken: list[float] = []  # seconds of each response
        self.most_descriptors = 0
        self.failures: list[str] = []

    def run(self) -> None:
        while not self._is_over.wait(0.05):
            began = time.monotonic()
            try:
                assert self._served.get_admin("/healthz") == "ok\n"
            except (OSError, AssertionError) as error:
                self.failures.append(repr(error))
            self.taken.append(time.monotonic() - began)
            self.most_descriptors = max(self.most_descriptors, self._served.descriptors)

    def end(self) -> None:
        self._is_over.set()
        self.join(CALL_TIMEOUT_S)


def test_descriptors_run_out_for_clients_only(tmp_path: Path, origin: str, evidence: Evidence) -> None:
    """Clients beyond the bound get 503 and a close. The others get their hits, the admin port responds within a second,
    and all descriptors are released at the end (I21).
    """
    with serve(tmp_path / "served", origin, descriptors=MAX_DESCRIPTORS) as served:
        small, large = body_of(served, "/obj-16k"), body_of(served, "/obj-4")
        bound = int(served.metric("connections_limit"))
        assert 16 <= bound <= MAX_DESCRIPTORS * 0.8
        wait_until(lambda: served.metric("connections") == 0)
        wait_until(lambda: not served.metric("flights_running"))
        before = served.descriptors
        probe = Probe(served)
        probe.start()
        clients = []
        for _ in range(CROWD_CONNECTIONS):
            clients.append(Client(served.clients))
            clients[-1].send_get("/obj-16k")
        inside = [client for client in clients if is_in(client, small)]
        # On a slow machine those that came first are idle before the last ones come, and make way.
        made_way = int(served.metric("connections_made_way_total"))
        assert len(inside) == bound + made_way
        refused = CROWD_CONNECTIONS - len(inside)
        assert served.metric("connections_refused_total") == refused
        for client in inside[made_way:]:
            client.send_get("/obj-4")
        for client in inside[made_way:]:
            status, _, body = client.response()
            assert (status, body == large) == (200, True)
        for client in clients:
            client.close()
        wait_until(lambda: served.metric("connections") == 0)
        probe.end()
        assert probe.failures == []
        # Another process may delay some of them.
        late = [took for took in probe.taken if took >= ADMIN_TIMEOUT_S]
        assert len(late) <= max(1, len(probe.taken) // 10), probe.taken
        wait_until(lambda: served.descriptors <= before)
        # There is room again.
        assert body_of(served, "/obj-16k") == small
        printed = served.log.read_text()
        assert (printed.count("\n"), printed.count("connections run short")) == (6, 1), printed
    evidence.add("connections refused", refused)
    evidence.add("connections served beside them", bound)
    evidence.add("most descriptors of 256", probe.most_descriptors)
    evidence.add("slowest /healthz meanwhile, ms", round(1000 * max(probe.taken)))


def is_in(client: Client, expected: bytes) -> bool:
    """Return whether the client got its hit; if not, check that it was rejected as specified."""
    status, headers, body = client.response()
    if status == 200:
        assert body == expected
        return True
    assert (status, headers["retry-after"], headers["connection"]) == (503, "1", "close")
    assert headers["cache-status"].startswith("bucketfront; fwd=bypass")
    assert body == b'{"error": "too many connections"}\n'
    assert client.is_over
    return False


def body_of(served: Served, target: str) -> bytes:
    client = Client(served.clients)
    client.send_get(target)
    status, _, body = client.response()
    client.close()
    assert status == 200
    return body


def test_memory_under_stalled_readers_over_tls(tmp_path: Path, origin: str, evidence: Evidence) -> None:
    """Over TLS, where bytes are encrypted in memory, the bound is the same (I19)."""
    chain, key = localhost_certificate(tmp_path)
    tls = ssl.create_default_context(cafile=str(chain))
    tls.check_hostname = False  # the address is 127.0.0.1
    with serve(tmp_path / "served", origin, server=f", tls: {{certificate: {chain}, key: {key}}}") as served:
        taken(served, "/obj-64", 64 * MIB, tls)
        wait_until(lambda: not served.metric("flights_running"))
        base = served.resident
        readers = [stalled(served, "/obj-64", tls) for _ in range(READERS)]
        time.sleep(1)
        grown = served.resident - base
        assert served.metric("connections") == READERS
        for reader in readers:
            reader.close()
    evidence.add("stalled readers over TLS", READERS)
    evidence.add("KiB a stalled reader over TLS", grown // READERS >> 10)
    assert grown <= READERS * CONNECTION_BYTES, f"{grown / MIB:.0f} MiB"


@pytest.mark.parametrize("is_cached", [True, False])
def test_memory_under_stalled_readers(tmp_path: Path, origin: str, evidence: Evidence, is_cached: bool) -> None:
    """500 clients that request 1 GiB and do not read cost at most 128 KiB each, for a cached object and during a fill
    (I19).
    """
    key = "/obj-1024-cached" if is_cached else "/obj-1024-cold"
    with serve(tmp_path / "served", origin) as served:
        body_of(served, "/obj-4")
        if is_cached:
            taken(served, key)
            wait_until(lambda: not served.metric("flights_running"))
        base = served.resident
        most = PeakMemory(served)
        most.start()
        readers = [stalled(served, key) for _ in range(READERS)]
        if not is_cached:
            taken(served, key)
        time.sleep(2)  # past the first bursts
        assert served.metric("connections") >= READERS
        most.end()
        for reader in readers:
            reader.close()
        wait_until(lambda: served.metric("connections") == 0)
        grown = most.bytes - base
        kind = "cached" if is_cached else "while it is filled"
        evidence.add(f"stalled readers, {kind}", READERS)
        evidence.add(f"KiB a stalled reader, {kind}", grown // READERS >> 10)
        assert grown <= READERS * CONNECTION_BYTES + (0 if is_cached else FETCHES_BYTES), f"{grown / MIB:.0f} MiB"


def test_memory_under_stalled_uploads(tmp_path: Path, origin: str, evidence: Evidence) -> None:
    """300 clients that stop in the middle of an upload cost 128 KiB and a piece of the body each (I19)."""
    with serve(tmp_path / "served", origin, methods=", methods: [GET, HEAD, PUT]") as served:
        base = served.resident
        most = PeakMemory(served)
        most.start()
        writers = [Client(served.clients) for _ in range(WRITERS)]
        for number, writer in enumerate(writers):
            head = f"PUT /x-{number} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {MIB}\r\n\r\n"
            writer.socket.sendall(head.encode() + bytes(511 << 10))
        wait_until(lambda: served.metric("connections") == WRITERS)
        time.sleep(1)  # past the first bursts
        assert served.metric("connections") == WRITERS
        most.end()
        for writer in writers:
            writer.close()
        wait_until(lambda: served.metric("connections") == 0)
    grown = most.bytes - base
    evidence.add("stalled uploads", WRITERS)
    evidence.add("KiB a stalled upload", grown // WRITERS >> 10)
    assert grown <= WRITERS * (CONNECTION_BYTES + PIECE_BYTES) + FIRST_PIECES_BYTES, f"{grown / MIB:.0f} MiB"


def stalled(served: Served, target: str, tls: ssl.SSLContext | None = None) -> Client:
    client = Client(served.clients, buffer=BUFFER_BYTES, tls=tls)
    client.send_get(target)
    status, _ = client.head()
    assert status == 200
    return client


def taken(served: Served, target: str, size: int = OBJECT, tls: ssl.SSLContext | None = None) -> None:
    """Return all of it, read by a client at full speed."""
    client = Client(served.clients, tls=tls)
    client.send_get(target)
    status, _ = client.head()
    assert status == 200
    client.drop(size)
    client.close()


def test_a_second_instance_is_refused(tmp_path: Path, origin: str, evidence: Evidence) -> None:
    """A second process on the same cache folder ends at once, its error names the folder, and the first one is
    unaffected (I14, I30).
    """
    folder = tmp_path / "served"
    with serve(folder, origin) as served:
        body = body_of(served, "/obj-4")
        wait_until(lambda: not served.metric("flights_running"))
        before = sorted((path, path.stat().st_size) for path in (folder / "cache" / "objects").rglob("*"))
        before_it = resource.getrusage(resource.RUSAGE_CHILDREN)
        second = subprocess.run(
            [*COMMAND, str(folder / "proxy.yaml")],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
            timeout=CALL_TIMEOUT_S,
        )
        after_it = resource.getrusage(resource.RUSAGE_CHILDREN)
        used = after_it.ru_utime + after_it.ru_stime - before_it.ru_utime - before_it.ru_stime
        assert second.returncode == 1
        assert second.stderr == f"the cache folder {folder}/cache is in use by another bucketfront\n"
        assert before == sorted((path, path.stat().st_size) for path in (folder / "cache" / "objects").rglob("*"))
        client = Client(served.clients)
        client.send_get("/obj-4")
        status, headers, again = client.response()
        client.close()
        assert (status, again == body) == (200, True)
        assert headers["cache-status"].startswith("bucketfront; hit")
        assert served.process.poll() is None
    evidence.add("second instances refused")
    evidence.add("ms of a processor until a second instance is refused", round(1000 * used))
    assert used < on_this_machine(REFUSAL_S)
