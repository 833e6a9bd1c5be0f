"""The access log and the metrics are exact, cheap for a request, and independent of a reader that keeps up (I20,
I28).
"""

import asyncio
import errno
import json
import logging
import os
import select
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from proxy_under_test import S3, Proxy, StartProxy, until
from relay import Seen
from rows import each_row
from stopwatch import HANG_S

from bucketfront.config.listener_settings import AccessLogSettings
from bucketfront.errors import ErrorResponse
from bucketfront.keys import ObjectKey
from bucketfront.server import server
from bucketfront.server.cut import Cut
from bucketfront.server.telemetry import request_metrics
from bucketfront.server.telemetry.access_log import (
    LAST,
    AccessRecord,
    FinishedRequest,
    json_lines,
    open_access_log,
    text_lines,
)
from bucketfront.server.telemetry.line_fields import LINE_FIELDS
from bucketfront.server.telemetry.line_writer import LineWriter
from bucketfront.server.telemetry.logged_fields import NAMES, NOTHING, facts
from bucketfront.server.telemetry.metric_family import Kind
from bucketfront.server.telemetry.origin_failure import OriginFailure
from bucketfront.server.telemetry.request_metrics import RequestMetrics
from bucketfront.server.telemetry.telemetry import MAX_BATCH, Telemetry

PATIENCE = HANG_S
NOON = 1_790_000_000.0  # 2026-09-21T14:13:20Z


def record_of(path: str = "/x", **other: Any) -> AccessRecord:
    facts = {"method": "GET", "status": 200, "cache": "hit", "outcome": "hit", **other}
    return AccessRecord(path=path, **facts)


def telemetry_into(path: Path, form: Literal["json", "text"] = "json") -> tuple[Telemetry, CollectorRegistry]:
    registry = CollectorRegistry()
    return Telemetry(registry, open_access_log(AccessLogSettings(format=form, path=str(path)))), registry


def values(registry: CollectorRegistry) -> dict[str, float]:
    return {sample.name: sample.value for metric in registry.collect() for sample in metric.samples}


# What clients choose: any text, with surrogates for octets that are no UTF-8.
texts = st.text(st.characters(exclude_categories=()), max_size=8) | st.sampled_from(
    ["\r\n", "\x1b[31m", '"', "'", "\\"]
)
recorded = st.builds(
    AccessRecord,
    method=texts,
    path=texts,
    status=st.integers(100, 599),
    cache=st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=8),
    outcome=st.sampled_from(["hit", "stale", "miss"]),
    mount=st.none() | texts,
    key=st.none() | st.builds(ObjectKey, st.just("b"), st.text(max_size=8)),
    from_origin=st.integers(0, 9),
    first_byte=st.none() | st.just(LAST) | st.floats(0, 1e6),
    received=st.integers(0, 9),
    fault=st.none() | texts,
    user=st.none() | texts,
)
# What the fast path has of the fields is printable ASCII, and the ordinary path has any text.
printable = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=8)
own_fields = st.tuples(*(st.none() | texts | printable.map(str.encode) for _ in NAMES))
# Ends that lie close together, and around the turn of a millisecond and of a second.
ends = st.integers(-5, 5) | st.floats(-3, 3)
moments = st.builds(lambda whole, part, off: NOON + whole + part / 1000 + off * 1e-6, st.integers(0, 2),
                    st.sampled_from([0, 1, 999]), ends)  # fmt: skip
records = st.lists(
    st.tuples(
        recorded,
        st.integers(0, 1 << 50),
        texts,
        moments,
        st.floats(0, 1e6) | st.integers(0, 400).map(lambda n: n / 1e5),
        st.just(NOTHING) | own_fields,
    )
)


def modelled(record: FinishedRequest) -> dict[str, object]:
    """Return a line as the README documents it: these keys, in this order."""
    what, sent, client, at, seconds, fields = record
    moment = datetime.fromtimestamp(int(at), UTC)
    line: dict[str, object] = {
        "time": f"{moment:%Y-%m-%dT%H:%M:%S}.{int(at % 1 * 1000):03d}Z",
        "client": client,
        "method": what.method,
        "path": what.path,
        "status": what.status,
        "sent": sent,
        "from_cache": sent - what.from_origin,
        "ms": round(seconds * 1000, 2),
    }
    if what.first_byte is not None:
        line["first_byte_ms"] = round(min(what.first_byte, seconds) * 1000, 2)
    line |= {"cache": what.cache, "from_origin": what.from_origin}
    if what.received:
        line["received"] = what.received
    named = {"mount": what.mount, "key": what.key and str(what.key), "fault": what.fault, "user": what.user}
    line |= {name: fact for name, fact in named.items() if fact is not None}
    return line | dict(facts(fields))


@given(records)
def test_json_lines(batch: list[FinishedRequest]) -> None:
    """Each line equals `json.dumps` of its record, whatever precedes it in the batch."""
    assert json_lines(batch) == "".join(json.dumps(modelled(record)) + "\n" for record in batch)


@given(records)
def test_no_controls_in_lines(batch: list[FinishedRequest]) -> None:
    """A line is printable ASCII and its LF, whatever a client sends (I28)."""
    for lines in (json_lines(batch), text_lines(batch)):
        assert lines.count("\n") == len(batch)
        assert all(" " <= char <= "~" for char in lines.replace("\n", ""))


@each_row(
    ("what", "line"),
    [
        (record_of(), "[hit]"),
        (record_of(cache="hit; ttl=240"), "[hit; ttl=240]"),
        (record_of(received=7, fault="cut\r"), "[hit] received: 7 fault: 'cut\\r'"),
        (record_of(fault="late", cut=Cut.ORIGIN), "[hit] fault: late cut: origin"),
        (record_of(mount="/", key=ObjectKey("b", "a b\n")), "[hit] mount: / key: b/a%20b%0A"),
        (record_of(from_origin=4, first_byte=0.0005), "[hit] from_origin: 4 first_byte_ms: 0.5"),
    ],
)
def test_text_lines(what: AccessRecord, line: str) -> None:
    """A plain line has time, client, method, path, status, size, duration and decision, and further facts by name."""
    begin = "2026-09-21T14:13:20.000Z 127.0.0.1 GET /x 200 10 B 1.2 ms "
    assert text_lines([(what, 10, "127.0.0.1", NOON, 0.00123, NOTHING)]) == f"{begin}{line}\n"


def test_text_lines_of_odd_paths() -> None:
    """A path that would act on a terminal is escaped in a plain line (I28)."""
    text = text_lines([(record_of("/\x1b\n'", status=404), 10, "-", NOON, 0.0, NOTHING)])
    assert " GET /\\x1b\\n' 404 10 B " in text
    assert text.count("\n") == 1


TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


@each_row(
    ("name", "value", "logged"),
    [
        ("range", b"bytes=0-9", {"range": "bytes=0-9"}),
        ("range", "bytes=" + "0-9," * 200, {"range": ("bytes=" + "0-9," * 200)[:256]}),
        ("x-request-id", b"a-1", {"request_id": "a-1"}),
        ("user-agent", b" curl/8 ", {"user_agent": "curl/8"}),
        ("user-agent", b"", {}),
        ("user-agent", "x" * 300, {"user_agent": "x" * 256}),
        ("referer", b"https://me:pw@a.example/b?sig=1#c", {"referer": "https://a.example/b"}),
        ("referer", "a?b", {"referer": "a"}),
        ("traceparent", TRACE.encode(), {"trace_id": TRACE[3:35], "parent_span_id": TRACE[36:52]}),
        ("traceparent", "00-" + "0" * 32 + TRACE[35:], {}),
    ],
)
def test_fields_of_lines(name: str, value: bytes | str, logged: dict[str, str]) -> None:
    """A line has the fields of its request, cut to a bound, and without what may be a secret (I19, I28)."""
    fields = tuple(value if name == other else None for other in NAMES)
    line = json.loads(json_lines([(record_of(), 10, "-", NOON, 0.0, fields)]))
    plain = json.loads(json_lines([(record_of(), 10, "-", NOON, 0.0, NOTHING)]))
    assert {name: fact for name, fact in line.items() if name not in plain} == logged


def test_the_table_of_fields() -> None:
    """docs/log-fields.md has the fields of a line, in their order, and says which of them each line has."""
    what = record_of(
        mount="/", key=ObjectKey("b", "k"), received=1, fault="f", cut=Cut.ORIGIN, user="u", span_id="s",
        failure=OriginFailure("c", ErrorResponse(403)),
    )  # fmt: skip
    fields = (b"agent", b"id", TRACE.encode(), b"https://a.example", b"bytes=0-1")
    full, bare = (
        json.loads(json_lines([(record, 10, "-", NOON, 0.0, own)]))
        for record, own in ((what, fields), (record_of(first_byte=None), NOTHING))
    )
    assert list(full) == [field.name for field in LINE_FIELDS]
    assert list(bare) == [field.name for field in LINE_FIELDS if field.is_always]


async def test_order_of_ends(tmp_path: Path) -> None:
    """Lines have the order in which requests ended, over many batches. None is lost at the close."""
    telemetry, _ = telemetry_into(tmp_path / "log")
    for number in range(5 * MAX_BATCH + 7):
        telemetry.add(record_of(f"/{number}"), 10, "-", NOON, 0.0)
    telemetry.close()
    paths = [json.loads(line)["path"] for line in (tmp_path / "log").read_text().splitlines()]
    assert paths == [f"/{number}" for number in range(5 * MAX_BATCH + 7)]


async def test_a_single_line_is_soon_written(tmp_path: Path) -> None:
    """A line waits for others only for a bounded time, and so does the next one."""
    telemetry, _ = telemetry_into(tmp_path / "log", "text")
    for count in (1, 2):
        telemetry.add(record_of(), 10, "-", NOON, 0.0)
        await until(lambda count=count: (tmp_path / "log").read_text().count("\n") == count)  # type: ignore[misc]
    telemetry.close()


async def test_nothing_of_a_request_stays(tmp_path: Path) -> None:
    """The number of pending records is bounded, and after a flush no reference to one remains (I19)."""
    telemetry, _ = telemetry_into(tmp_path / "log")
    what = record_of()
    before = sys.getrefcount(what)
    for _ in range(3 * MAX_BATCH + 1):
        telemetry.add(what, 10, "-", NOON, 0.0)
        assert sys.getrefcount(what) - before <= MAX_BATCH
    telemetry.flush()
    assert sys.getrefcount(what) == before
    telemetry.close()


BOUNDS = (0.001, 0.005, 0.02, 0.1, 0.5, 2.0, 10.0, 60.0)


def reference(batch: list[FinishedRequest]) -> str:
    """Return the exposition of prometheus_client's own Counter and Histogram, fed one request at a time."""
    registry = CollectorRegistry()
    made: dict[str, Any] = {}
    for family in request_metrics.FAMILIES:
        name = f"bucketfront_{family.name}"
        if family.kind is Kind.HISTOGRAM:
            made[family.name] = Histogram(name, family.text, family.labels, buckets=BOUNDS, registry=registry)
        else:
            made[family.name] = Counter(name, family.text, family.labels, registry=registry)
    for reason in Cut:
        made["responses_cut"].labels(reason.value)
    for what, size, _, _, took, _ in batch:
        method = what.method if what.method in {"GET", "HEAD", "PUT", "POST", "DELETE"} else "other"
        mount = what.mount or ""
        made["requests"].labels(method, f"{what.status // 100}xx", what.outcome, mount).inc()
        made["request_seconds"].labels(what.outcome).observe(took)
        first_bytes = made["first_byte_seconds"].labels(what.outcome)
        if what.first_byte is not None:
            first_bytes.observe(min(what.first_byte, took))
        if size:
            made["sent_bytes"].labels(what.outcome, mount).inc(size)
        made["received_bytes"].inc(what.received)
        if what.cut is not None:
            made["responses_cut"].labels(what.cut.value).inc()
        if mount and method in ("GET", "HEAD") and what.status < 500 and what.outcome not in ("bypass", "method"):
            made["reads"].labels(mount).inc()
            made["read_bytes"].labels(mount).inc(size)
            made["read_cached_bytes"].labels(mount).inc(size - what.from_origin)
    return generate_latest(registry).decode()


def comparable(exposition: str) -> list[str]:
    """Return the lines in any order of series, without the moments at which the series began."""
    return sorted(
        line.rpartition(" ")[0] if "_created" in line and line[0] != "#" else line
        for line in exposition.splitlines()
        if "lines_dropped" not in line
    )


# Bounds of buckets, what lies beside them, and binary fractions: their sums are exact in any order.
durations = st.integers(0, 1 << 17).map(lambda n: n / 1024) | st.sampled_from([0.5, 2.0, 10.0, 60.0, 60.5, 0.0])
counted = st.builds(
    record_of,
    method=st.sampled_from(["GET", "HEAD", "PUT", "PATCH", "BREW"]),
    status=st.sampled_from([200, 206, 304, 404, 499, 503]),
    cut=st.sampled_from([None, *Cut]),
    outcome=st.sampled_from(["hit", "stale", "miss", "bypass"]),
    mount=st.sampled_from([None, "/", "/videos/"]),
    from_origin=st.integers(0, 9),
    first_byte=st.sampled_from([None, LAST, 0.25]),
    received=st.integers(0, 9),
)


@given(
    st.lists(
        st.lists(
            st.tuples(counted, st.integers(9, 1 << 40), st.just("-"), st.just(NOON), durations, st.just(NOTHING)),
            max_size=6,
        ),
        max_size=4,
    )
)
def test_metrics(batches: list[list[FinishedRequest]]) -> None:
    """Batches have the same exposition as counting one by one: names, help, types, labels, buckets, values."""
    registry = CollectorRegistry()
    metrics = RequestMetrics(registry, process_batch=lambda: None, lost=lambda: 0)
    for batch in batches:
        metrics.add(batch)
    flat = [record for batch in batches for record in batch]
    assert comparable(generate_latest(registry).decode()) == comparable(reference(flat))


@each_row("bound", [0.001, 0.005, 0.02, 0.1, 0.5, 2.0, 10.0, 60.0])
def test_bounds_of_buckets(bound: float) -> None:
    """A duration that equals a bound belongs to the bound's bucket (`le`)."""
    registry = CollectorRegistry()
    RequestMetrics(registry, process_batch=lambda: None, lost=lambda: 0).add(
        [(record_of(), 10, "-", NOON, bound, NOTHING)]
    )
    buckets = {
        sample.labels["le"]: sample.value
        for metric in registry.collect()
        for sample in metric.samples
        if sample.name.endswith("_bucket")
    }
    assert {float(le) for le, count in buckets.items() if count} == {float(le) for le in buckets if float(le) >= bound}


async def test_exact_at_a_scrape(tmp_path: Path) -> None:
    """A request that has ended is in the next scrape, even if its line is not written yet."""
    telemetry, registry = telemetry_into(tmp_path / "log")
    for count in (1, 2, 3):
        telemetry.add(record_of(), 100, "-", NOON, 0.25)
        found = values(registry)
        assert found["bucketfront_requests_total"] == count
        assert found["bucketfront_sent_bytes_total"] == 100 * count
        assert found["bucketfront_request_seconds_sum"] == 0.25 * count
    telemetry.close()


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """A pipe's read end and write end. The code that takes the write end closes it."""
    ends = os.pipe()
    yield ends
    os.close(ends[0])


def read_to_end(descriptor: int) -> bytes:
    return b"".join(iter(lambda: os.read(descriptor, 1 << 16), b""))


def complaints(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if "access log" in record.getMessage()]


async def test_stuck_reader(pipe: tuple[int, int], caplog: pytest.LogCaptureFixture) -> None:
    """No caller waits for a stuck reader.

    Lines beyond the bound are dropped and counted, with one warning (I19, I20). The other lines reach the reader whole
    and in order.
    """
    reader, end = pipe
    writer = LineWriter(end, limit=1 << 20)
    lines = [b"%06d " % number + b"x" * (number % 9000) + b"\n" for number in range(2000)]
    for line in lines:
        writer.add(line)
        writer.flush()
        assert writer._waiting <= 1 << 20
    assert writer.lost
    await until(lambda: complaints(caplog))
    taking = asyncio.create_task(asyncio.to_thread(read_to_end, reader))
    assert await asyncio.to_thread(writer.drain, PATIENCE)
    writer.close(PATIENCE)
    taken = (await taking).splitlines(keepends=True)
    assert len(taken) + writer.lost == len(lines)
    assert set(taken) <= set(lines)
    assert taken == sorted(taken)
    assert len(complaints(caplog)) == 1


async def test_reader_stuck_at_the_end(pipe: tuple[int, int]) -> None:
    """A close waits for a stuck reader no longer than its timeout, and counts the lines that are left (I20)."""
    reader, end = pipe
    writer = LineWriter(end)
    for _ in range(5):
        writer.add(b"x" * (1 << 20) + b"\n")
    writer.flush()
    began = time.monotonic()
    writer.close(0.05)
    assert time.monotonic() - began < PATIENCE / 2
    assert 3 <= writer.lost <= 5  # a share is under way
    writer.add(b"late\n")
    assert writer.lost <= 6
    assert b"late" not in await asyncio.to_thread(read_to_end, reader)
    writer.close(PATIENCE)


def test_warning_that_nobody_takes(pipe: tuple[int, int]) -> None:
    """The loop does not wait for the process log either, which may have the same reader (I20)."""
    told_off, go_on = threading.Event(), threading.Event()

    class Stuck(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            told_off.set()
            go_on.wait(PATIENCE)

    handler = Stuck()
    log = logging.getLogger("bucketfront.server.telemetry.line_writer")
    log.addHandler(handler)
    writer = LineWriter(pipe[1], limit=10)
    others = set(threading.enumerate())
    try:
        began = time.monotonic()
        writer.add(b"more than ten\n")
        assert time.monotonic() - began < PATIENCE / 2
        assert told_off.wait(PATIENCE)
        assert writer.lost == 1
    finally:
        go_on.set()
        for thread in set(threading.enumerate()) - others:
            thread.join(PATIENCE)
        log.removeHandler(handler)
    writer.close(PATIENCE)


async def test_full_disk(caplog: pytest.LogCaptureFixture) -> None:
    """A full disk costs lines, which are counted with one warning, and no request (I16)."""
    telemetry, registry = telemetry_into(Path("/dev/full"))
    for _ in range(3):
        telemetry.add(record_of(), 10, "-", NOON, 0.0)
        assert telemetry.drain(PATIENCE)
    assert values(registry)["bucketfront_access_log_lines_dropped_total"] == 3
    assert values(registry)["bucketfront_requests_total"] == 3
    await until(lambda: complaints(caplog))
    assert complaints(caplog) == ["the access log lost lines, 1 since the start: No space left on device"]
    telemetry.close()


def failing(after: int, times: int) -> Callable[[int, memoryview], int]:
    """Return the `write` of a disk that accepts `after` bytes, then fails `times` times, then works again."""
    left, failures = after, times

    def write(descriptor: int, data: memoryview) -> int:
        nonlocal left, failures
        if not failures:
            return os.write(descriptor, data)
        if not left:
            failures -= 1
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        left -= (done := os.write(descriptor, data[:left]))
        return done

    return write


@each_row("times", [1, 2])
@each_row("after", range(28))
def test_error_within_a_line(tmp_path: Path, after: int, times: int) -> None:
    """Wherever a write fails, the lines after it are whole, and the broken ones are counted."""
    path = tmp_path / "log"
    writer = LineWriter(os.open(path, os.O_WRONLY | os.O_CREAT), write=failing(after, times))
    batches = [b"one\ntwo\nthree\n", b"four\nfive\n", b"six\n"]
    for batch in batches:
        writer.add(batch)
        assert writer.drain(PATIENCE)
    writer.close(PATIENCE)
    text = b"".join(batches)
    lines, found = text.splitlines(), path.read_bytes().splitlines()
    whole = [line for line in found if line in lines]
    lacks_only_its_end = text[after] == ord("\n")  # counts as lost, though it can be read
    assert len(whole) + writer.lost == len(lines) + lacks_only_its_end
    assert len(found) - len(whole) <= 1


def test_lines_stay_together_in_a_pipe(pipe: tuple[int, int]) -> None:
    """A pipe gets whole lines in atomic pieces. Only a line longer than that is cut in two."""
    pieces: list[bytes] = []

    def write(_: int, data: memoryview) -> int:
        pieces.append(bytes(data))
        return len(data)

    writer = LineWriter(pipe[1], write=write)
    lines = [b"x" * (number * 7 % 900) + b"\n" for number in range(200)] + [b"y" * 9000 + b"\n", b"z\n"]
    writer.add(b"".join(lines))
    writer.close(PATIENCE)
    assert b"".join(pieces) == b"".join(lines)
    assert all(len(piece) <= select.PIPE_BUF for piece in pieces)
    assert [piece for piece in pieces if not piece.endswith(b"\n")] == [b"y" * select.PIPE_BUF] * 2


def test_reader_without_patience(pipe: tuple[int, int]) -> None:
    """A standard output that another process made non-blocking loses no line."""
    reader, end = pipe
    os.set_blocking(end, False)
    writer = LineWriter(end)
    line = b"x" * 99 + b"\n"
    for _ in range(100):
        writer.add(line * 100)
    writer.flush()
    taken: list[bytes] = []
    thread = threading.Thread(target=lambda: taken.append(read_to_end(reader)))
    thread.start()
    writer.close(PATIENCE)
    thread.join(PATIENCE)
    assert taken == [line * 10_000]
    assert writer.lost == 0


def test_standard_output(capfd: pytest.CaptureFixture[str]) -> None:
    """`-` is standard output, which stays open after the log closes."""
    log = open_access_log(AccessLogSettings(format="text"))
    log.add([(record_of(), 10, "127.0.0.1", NOON, 0.0, NOTHING)])
    log.close()
    print("still open", flush=True)  # noqa: T201 - what is tested
    assert capfd.readouterr().out == "2026-09-21T14:13:20.000Z 127.0.0.1 GET /x 200 10 B 0.0 ms [hit]\nstill open\n"


@pytest.mark.parametrize("form", ["json", "text"])
async def test_no_log(monkeypatch: pytest.MonkeyPatch, form: Literal["json", "text"]) -> None:
    """A log to /dev/null formats no line, and the metrics count as ever."""
    monkeypatch.setattr("bucketfront.server.telemetry.access_log._stamped", None)  # each line has the time
    telemetry, registry = telemetry_into(Path(os.devnull), form)
    telemetry.add(record_of(), 10, "-", NOON, 0.0)
    assert telemetry.drain(timeout_s=PATIENCE)
    telemetry.close()
    assert values(registry)["bucketfront_requests_total"] == 1


async def test_requests_do_not_wait_for_the_log(start: StartProxy, s3: S3, tmp_path: Path) -> None:
    """Requests succeed while no process reads the log. Once one does, all lines are there (I20)."""
    s3.put("x", b"data")
    os.mkfifo(tmp_path / "fifo")
    reader = os.open(tmp_path / "fifo", os.O_RDONLY | os.O_NONBLOCK)
    proxy = await start(access_log={"path": str(tmp_path / "fifo")})
    targets = [f"/x?{number}" for number in range(20)] + [f"/{'y' * 6000}{number}" for number in range(20)]
    for target in targets:  # 120 KB of paths; a pipe holds 64
        assert (await proxy.get(target)).status in (200, 400)
    os.set_blocking(reader, True)
    taking = asyncio.create_task(asyncio.to_thread(read_to_end, reader))
    await asyncio.to_thread(proxy.app.telemetry.close)
    lines = [json.loads(line)["path"] for line in (await taking).splitlines()]
    os.close(reader)
    assert lines == [target.partition("?")[0] for target in targets]


async def test_cancelled_by_a_stop(start: StartProxy, s3: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A request that a stop cancels has its line."""
    monkeypatch.setattr(server, "DRAIN_TIMEOUT_S", 0.05)
    proxy = await start()
    s3.put("x", b"data")

    async def hold(_: Seen) -> bytes | None:
        await asyncio.Event().wait()
        return None

    proxy.relay.on_request = hold
    asking = asyncio.create_task(proxy.get("/x"))
    await until(lambda: proxy.relay.seen)
    await proxy.stop()
    line = json.loads((tmp_path / "access.log").read_text())
    assert (line["status"], line["cut"]) == (503, "stop")  # no head had left
    await asyncio.gather(asking, return_exceptions=True)


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"GET /x HTTP/1.1\nHost: a\n\n", 400),
        (b"GET /x HTTP/9.1\r\nHost: a\r\n\r\n", 505),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\r\n\r\n", 400),
        (b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\n\r\n", 414),
        (b"GET /x HTTP/1.1\r\nA: " + b"a" * 40_000 + b"\r\n\r\n", 431),
    ],
)
async def test_requests_that_the_parser_refuses(proxy: Proxy, data: bytes, status: int) -> None:
    """A request that no handler sees has its line in the log, without its bytes, and counts in the metrics."""
    async with proxy.connection() as connection:
        await connection.send(data)
        assert (await connection.response()).status == status
    (line,) = proxy.log
    assert (line["client"], line["method"], line["path"], line["status"]) == ("127.0.0.1", "-", "-", status)
    assert line["fault"]
    metrics = (await proxy.admin("GET", "/metrics")).body.decode()
    kind = f"{status // 100}xx"
    assert f'bucketfront_requests_total{{cache="bypass",method="other",mount="",status="{kind}"}} 1.0' in metrics
