"""Each sink of the access log keeps what AccessLogSink promises: the writer of the product, and the tests' own."""

import errno
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import pytest
from memory_sink import MemorySink
from prometheus_client import CollectorRegistry
from proxy_under_test import until
from stopwatch import HANG_S

from bucketfront.server.telemetry.access_log import AccessLog, AccessLogSink, AccessRecord, text_lines
from bucketfront.server.telemetry.line_writer import LineWriter
from bucketfront.server.telemetry.telemetry import MAX_BATCH, Telemetry

TIMEOUT_S = HANG_S
LIMIT = 1000  # bytes that may wait


class Bench(Protocol):
    """A sink, and the far end of it: what was written, and its faults."""

    @property
    def sink(self) -> AccessLogSink: ...

    def written(self) -> list[bytes]:
        """Return the lines of all files, those of the oldest first."""

    def files(self) -> list[list[bytes]]: ...

    def rename(self) -> None:
        """Rename the log's file, as a tool that rotates logs does before it has the log reopened."""

    def refuse_to_open(self) -> None: ...

    def stick(self) -> None: ...

    def release(self) -> None: ...

    def fail(self, error: OSError | None) -> None: ...


class MemoryBench:
    def __init__(self) -> None:
        self.sink = MemorySink(LIMIT)

    def written(self) -> list[bytes]:
        return [line for lines_of_file in self.files() for line in lines_of_file]

    def files(self) -> list[list[bytes]]:
        return [text.splitlines() for text in self.sink.files]

    def rename(self) -> None:
        """Do nothing, because a file in memory has no name."""

    def refuse_to_open(self) -> None:
        self.sink.may_open = False

    def stick(self) -> None:
        self.sink.is_stuck = True

    def release(self) -> None:
        self.sink.is_stuck = False

    def fail(self, error: OSError | None) -> None:
        self.sink.error = error


class FileBench:
    def __init__(self, path: Path) -> None:
        self._path = path
        self._may_write = threading.Event()
        self._may_write.set()
        self._error: OSError | None = None
        self._may_open = True
        self._renamed: list[Path] = []
        self.sink = LineWriter(self._open(), LIMIT, self._write, self._open)

    def _open(self) -> int:
        if not self._may_open:
            raise OSError(errno.EACCES, os.strerror(errno.EACCES))
        return os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def _write(self, descriptor: int, data: memoryview) -> int:
        self._may_write.wait(TIMEOUT_S)
        if self._error is not None:
            raise self._error
        return os.write(descriptor, data)

    def written(self) -> list[bytes]:
        return [line for lines_of_file in self.files() for line in lines_of_file]

    def files(self) -> list[list[bytes]]:
        paths = [path for path in (*self._renamed, self._path) if path.exists()]
        return [path.read_bytes().splitlines() for path in paths]

    def rename(self) -> None:
        self._renamed.append(self._path.rename(f"{self._path}.{len(self._renamed)}"))

    def refuse_to_open(self) -> None:
        self._may_open = False

    def stick(self) -> None:
        self._may_write.clear()

    def release(self) -> None:
        self._may_write.set()

    def fail(self, error: OSError | None) -> None:
        self._error = error


@pytest.fixture(params=["file", "memory"])
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bench]:
    made: Bench = FileBench(tmp_path / "log") if request.param == "file" else MemoryBench()
    yield made
    made.release()
    made.sink.close(TIMEOUT_S)


def lines(first: int, stop: int) -> bytes:
    return b"".join(b"%04d\n" % number for number in range(first, stop))


def test_lines_keep_their_order(bench: Bench) -> None:
    """Lines are written whole and in the order in which they were added, over several batches."""
    for first in range(0, 50, 10):
        bench.sink.add(lines(first, first + 10))
        bench.sink.flush()
    assert bench.sink.drain(TIMEOUT_S)
    assert bench.written() == lines(0, 50).split()
    assert bench.sink.lost == 0


def test_a_flush_needs_no_further_call(bench: Bench) -> None:
    """What was added before a flush is written soon after it, and an empty flush does no harm."""
    bench.sink.flush()
    bench.sink.add(b"a\n")
    bench.sink.flush()
    assert bench.sink.drain(TIMEOUT_S)
    assert bench.written() == [b"a"]


def test_lines_beyond_the_bound_are_counted(bench: Bench) -> None:
    """While the far end is stuck, no call waits for it. Lines that have no room are lost and counted (I19, I20)."""
    bench.stick()
    began = time.monotonic()
    for first in range(0, 1000, 10):
        bench.sink.add(lines(first, first + 10))
        bench.sink.flush()
    assert not bench.sink.drain(0.01)
    assert time.monotonic() - began < TIMEOUT_S / 2
    lost = bench.sink.lost
    assert lost >= 1000 - 2 * LIMIT // 5
    assert lost % 10 == 0
    bench.release()
    assert bench.sink.drain(TIMEOUT_S)
    assert bench.written() == lines(0, 1000 - lost).split()
    assert bench.sink.lost == lost


def test_lines_wait_for_room_only_once(bench: Bench) -> None:
    """Once the far end works again, new lines are written."""
    bench.stick()
    bench.sink.add(b"x" * LIMIT + b"\n")
    bench.release()
    assert bench.sink.drain(TIMEOUT_S)
    bench.sink.add(b"next\n")
    assert bench.sink.drain(TIMEOUT_S)
    assert bench.written() == [b"next"]
    assert bench.sink.lost == 1


def test_errors_of_the_disk_cost_lines_alone(bench: Bench) -> None:
    """No call raises for an error of the disk. Its lines are lost and counted, and later ones are written (I16)."""
    bench.fail(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
    bench.sink.add(lines(0, 3))
    bench.sink.flush()
    assert bench.sink.drain(TIMEOUT_S)
    assert bench.sink.lost == 3
    bench.fail(None)
    bench.sink.add(lines(3, 5))
    assert bench.sink.drain(TIMEOUT_S)
    assert bench.written() == lines(3, 5).split()
    assert bench.sink.lost == 3


def test_a_close_writes_what_waits(bench: Bench) -> None:
    """A close needs no flush before it. Lines that come later are lost and counted, and a second close does no harm."""
    bench.sink.add(lines(0, 7))
    bench.sink.close(TIMEOUT_S)
    assert bench.written() == lines(0, 7).split()
    bench.sink.add(lines(7, 9))
    bench.sink.close(TIMEOUT_S)
    assert bench.written() == lines(0, 7).split()
    assert bench.sink.lost == 2


def test_a_close_ends_in_time(bench: Bench) -> None:
    """A close does not wait longer than its timeout for a stuck far end (I20)."""
    bench.stick()
    bench.sink.add(lines(0, 7))
    began = time.monotonic()
    bench.sink.close(0.05)
    assert time.monotonic() - began < TIMEOUT_S / 2


def test_a_reopened_log_has_each_line_once(bench: Bench) -> None:
    """Lines added before a reopen are in the renamed file and later ones in the new file, each exactly once."""
    for number in range(3):
        bench.sink.add(lines(10 * number, 10 * number + 5))
        bench.sink.flush()
        assert bench.sink.drain(TIMEOUT_S)
        bench.rename()
        bench.sink.add(lines(10 * number + 5, 10 * number + 10))
        bench.sink.reopen()
    bench.sink.add(lines(30, 33))
    assert bench.sink.drain(TIMEOUT_S)
    assert bench.files() == [lines(first, min(first + 10, 33)).split() for first in range(0, 40, 10)]
    assert bench.sink.lost == 0


def test_a_reopen_waits_for_no_other(bench: Bench) -> None:
    """Reopens of a stuck log do not block. Once it works again, its old lines are in the old file (I20)."""
    bench.sink.add(lines(0, 2))
    assert bench.sink.drain(TIMEOUT_S)
    bench.stick()
    bench.sink.add(lines(2, 4))
    bench.rename()
    bench.sink.reopen()
    assert not bench.sink.drain(0.01)
    bench.sink.add(lines(4, 6))
    bench.release()
    assert bench.sink.drain(TIMEOUT_S)
    assert bench.files() == [lines(0, 4).split(), lines(4, 6).split()]


def test_a_log_that_cannot_be_reopened_goes_on(bench: Bench) -> None:
    """If no new file can be opened, the lines go on in the old one and none is lost (I16)."""
    bench.sink.add(lines(0, 2))
    bench.refuse_to_open()
    bench.sink.reopen()
    bench.sink.add(lines(2, 4))
    assert bench.sink.drain(TIMEOUT_S)
    assert bench.files() == [lines(0, 4).split()]
    assert bench.sink.lost == 0


def test_a_closed_log_is_not_reopened(bench: Bench) -> None:
    """A reopen at any time of a close loses no line, and after the close it does nothing."""
    bench.sink.add(lines(0, 2))
    bench.sink.reopen()
    bench.sink.add(lines(2, 4))
    bench.sink.close(TIMEOUT_S)
    bench.sink.reopen()
    assert bench.sink.drain(TIMEOUT_S)
    assert bench.written() == lines(0, 4).split()
    assert bench.sink.lost == 0


async def test_requests_do_not_notice_the_sink(bench: Bench) -> None:
    """Requests end as always with a sink that is stuck or fails, and the metrics have the count of lost lines."""
    registry = CollectorRegistry()
    telemetry = Telemetry(registry, AccessLog(text_lines, bench.sink))
    record = AccessRecord(method="GET", path="/x", status=200, cache="hit", outcome="hit")
    bench.stick()
    bench.fail(OSError(errno.EIO, os.strerror(errno.EIO)))
    for _ in range(3 * MAX_BATCH):
        telemetry.add(record, 10, "-", 0.0, 0.0)
    telemetry.flush()
    bench.release()
    await until(lambda: bench.sink.drain(0.0))
    assert (
        registry.get_sample_value("bucketfront_sent_bytes_total", {"cache": "hit", "mount": ""}) == 3 * MAX_BATCH * 10
    )
    assert registry.get_sample_value("bucketfront_access_log_lines_dropped_total") == 3 * MAX_BATCH
    assert not bench.written()
    telemetry.close()
