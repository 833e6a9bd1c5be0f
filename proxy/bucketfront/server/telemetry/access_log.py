"""The access log: one line a request, as JSON for machines or as text for people (I28)."""

import math
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from json.encoder import encode_basestring_ascii

from bucketfront.config.listener_settings import AccessLogSettings
from bucketfront.server.telemetry.line_writer import LineWriter

CLOSE_TIMEOUT_S = 2.0  # for a slow reader to take the last lines; a stop has 45 s in all
CLIENT_CLOSED_REQUEST = 499  # nginx's status in its log for a client that left before its response was whole

Around = tuple[str, str]
"""A line's constant text before the bytes sent, and behind the milliseconds."""

_quoted = encode_basestring_ascii  # as json.dumps writes a string: CR, LF and ESC are escaped as well


@dataclass(eq=False, slots=True)  # not frozen: that would make each of them cost a microsecond
class AccessRecord:
    """What is told of an answer, and is the same for each of its hits. Never changed; two are equal if they are one.

    The path comes without its query, which may hold a signature. `cache` is the Cache-Status without our name,
    `outcome` the same in one word of a closed set. `received` are bytes of an upload. `fault` is why it failed.
    """

    method: str
    path: str
    status: int
    cache: str
    outcome: str
    received: int = 0
    fault: str | None = None
    _json: Around | None = field(default=None, init=False, repr=False)
    _text: Around | None = field(default=None, init=False, repr=False)

    def around_json(self) -> Around:
        """Made for the first of its lines, and kept."""
        if self._json is None:
            received = f', "received": {self.received}' if self.received else ""
            fault = "" if self.fault is None else f', "fault": {_quoted(self.fault)}'
            before = (
                f', "method": {_quoted(self.method)}, "path": {_quoted(self.path)}, "status": {self.status}, "sent": '
            )
            around = before, f', "cache": {_quoted(self.cache)}{received}{fault}}}\n'
            self._json = around
            return around
        return self._json

    def around_text(self) -> Around:
        """Made for the first of its lines, and kept."""
        if self._text is None:
            fault = "" if self.fault is None else f" ({self.fault!a})"
            around = (
                f" {_plain(self.method)} {_plain(self.path)} {self.status} ",
                f" ms [{self.cache}]{fault}\n",
            )
            self._text = around
            return around
        return self._text


Record = tuple[AccessRecord, int, str, float, float]
"""What was told, the bytes of an object that were sent, to which client, when it ended (seconds since the epoch), and
how many seconds it took."""


def json_lines(records: Sequence[Record]) -> str:
    lines = []
    stamp, since, until = "", 0.0, 0.0
    for told, sent, client, at, seconds in records:
        if not since <= at < until:
            stamp, since, until = _stamped(at)
        took = f"{seconds * 1000:.2f}"
        if took[-1] == "0":  # as JSON writes a number: 0.5, but 0.0
            took = took[:-1]
        before, behind = told.around_json()
        lines.append(f'{stamp}{_quoted(client)}{before}{sent}, "ms": {took}{behind}')
    return "".join(lines)


def _stamped(at: float) -> tuple[str, float, float]:
    """A line's start, and from when until when (exclusive) it is surely the same."""
    thousandth = int(at % 1 * 1000)
    stamp = f'{{"time": "{time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(at))}.{thousandth:03d}Z", "client": '
    # A microsecond is more than a float's error at this size, and less than it takes to matter.
    return stamp, at, math.floor(at) + (thousandth + 1) / 1000 - 1e-6


def text_lines(records: Sequence[Record]) -> str:
    lines = []
    for told, sent, client, _, seconds in records:
        before, behind = told.around_text()
        lines.append(f"{_plain(client)}{before}{sent} B {seconds * 1000:.1f}{behind}")
    return "".join(lines)


class AccessLog:
    """Lines to a file or, as `-`, to standard output. Raises OSError if the file cannot be opened.

    Lines are handed to a thread, which writes them; a reader that does not keep up loses lines, which `lost` counts.
    """

    def __init__(self, settings: AccessLogSettings) -> None:
        self._lines = json_lines if settings.format == "json" else text_lines
        self._writer = LineWriter(_opened(settings.path))

    @property
    def lost(self) -> int:
        return self._writer.lost

    def add(self, records: Sequence[Record]) -> None:
        """For the next `wake`."""
        self._writer.add(self._lines(records).encode("ascii"))

    def wake(self) -> None:
        """Have all written that was added."""
        self._writer.wake()

    def drain(self, patience: float) -> bool:
        """Wait, at most `patience` seconds, until all that was added is written or lost; whether it is."""
        return self._writer.drain(patience)

    def close(self) -> None:
        """Write what was added, within `CLOSE_TIMEOUT_S` seconds (I20)."""
        self._writer.close(CLOSE_TIMEOUT_S)


def _opened(path: str) -> int:
    if path != "-":
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666)
    if sys.stdout is None:  # closed by whoever started us, and the number may by now be any file's
        return os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
    # Past Python's buffer: its lock, held by a thread that is stuck, would abort the interpreter at its end.
    return os.dup(sys.stdout.fileno())


def _plain(text: str) -> str:
    """Keeps CR, LF and ESC out of the terminal."""
    return ascii(text)[1:-1]
