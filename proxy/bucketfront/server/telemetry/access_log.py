"""The access log: one line for each request, as JSON for machines or as text for people.

Lines hold no secret and no control character (docs/invariants.md#secrets-stay-in).
"""

import errno
import math
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from json.encoder import encode_basestring_ascii
from pathlib import Path
from typing import Protocol

from bucketfront.config.listener_settings import AccessLogSettings
from bucketfront.errors import UnusableSetting
from bucketfront.keys import ObjectKey
from bucketfront.server.cut import Cut
from bucketfront.server.telemetry import logged_fields
from bucketfront.server.telemetry.line_writer import LineWriter
from bucketfront.server.telemetry.logged_fields import (
    NOTHING,
    LoggedFields,
    facts_of_many,
    facts_of_range,
    facts_of_trace,
    text_of,
)
from bucketfront.server.telemetry.observed_read import ObservedRead
from bucketfront.server.telemetry.origin_failure import OriginFailure
from bucketfront.server.telemetry.request_group import RequestGroup

CLOSE_TIMEOUT_S = 2.0  # for a slow reader to take the last lines; a stop has 45 s in all
LOG_MODE = 0o640  # of a new file, less the umask: it has names of objects and addresses of people
MAX_KEPT_TEXTS = 256  # of fields that are alike in many requests; each has some KiB at most
LAST = math.inf  # in place of the time to the first byte, if that leaves with the last one
CLIENT_CLOSED_REQUEST = 499  # nginx's status in its log for a client that left before its response was whole

Affixes = tuple[str, str]
"""The constant text of a line: before the bytes sent, and behind the milliseconds."""

_quoted = encode_basestring_ascii  # as json.dumps writes a string: CR, LF and ESC are escaped as well


@dataclass(eq=False, slots=True)  # a frozen dataclass would cost a microsecond more for each record
class AccessRecord:
    """The facts that all responses of one kind share in log and metrics, for example all hits of one prepared response.

    Two records are equal if they are the same object, and no record ever changes. `path` lacks the query, which may
    hold a signature. `cache` is the Cache-Status without the proxy's name, and `outcome` is the same as a metric's
    label. `mount` is the path of the mount, and `key` the object that served the path, or was to. Each is None if the
    request did not come so far. `size` is that of the object, 0 if it is not known. `from_origin` counts those of the
    bytes sent that came from S3 while the request ran. `first_byte` is in seconds from the start to the head of the
    response. It is LAST if the head left with the last byte, and None if none left. `received` counts the bytes of an
    upload's body. `fault` is the reason of a failure. `cut` is set if the proxy itself ended the response early;
    `status` is then the one that the client got. `failure` is the origin's, also if the client got a stale response
    because of it. `user` names the client's credential, by rule and holder. `span_id` is the span of this request in
    its trace, and `trace_id` that trace if it begins with the request. A plain hit has neither. It is sampled once it
    has ended, unlike a record with `is_sampling_decided`. `observed` is what a forecast takes of a read that S3 served
    because of `cache.mode`. `group` is set once the metrics have counted the first of the responses.
    """

    method: str
    path: str
    status: int
    cache: str
    outcome: str
    mount: str | None = None
    key: ObjectKey | None = None
    size: int = 0
    from_origin: int = 0
    first_byte: float | None = LAST
    received: int = 0
    fault: str | None = None
    cut: Cut | None = None
    failure: OriginFailure | None = None
    user: str | None = None
    span_id: str | None = None
    trace_id: str | None = None
    is_sampling_decided: bool = False
    observed: ObservedRead | None = None
    group: RequestGroup | None = field(default=None, init=False, repr=False)
    _json: Affixes | None = field(default=None, init=False, repr=False)
    _text: Affixes | None = field(default=None, init=False, repr=False)

    def json_affixes(self) -> Affixes:
        """Return the constant text of a JSON line, which is kept for further lines."""
        if self._json is None:
            before = (
                f', "method": {_quoted(self.method)}, "path": {_quoted(self.path)}, "status": {self.status}, "sent": '
            )
            received = f', "received": {self.received}' if self.received else ""
            failure = "" if self.failure is None else _json_failure(self.failure)
            behind = f', "cache": {_quoted(self.cache)}, "from_origin": {self.from_origin}{received}'
            affixes = before, f"{behind}{_json_facts(self._named())}{failure}"
            self._json = affixes
            return affixes
        return self._json

    def text_affixes(self) -> Affixes:
        """Return the constant text of a plain line, which is kept for further lines."""
        if self._text is None:
            origin = f" from_origin: {self.from_origin}" if self.from_origin else ""
            received = f" received: {self.received}" if self.received else ""
            failure = "" if self.failure is None else _text_failure(self.failure)
            affixes = (
                f" {_plain(self.method)} {_plain(self.path)} {self.status} ",
                f" ms [{self.cache}]{origin}{received}{_text_facts(self._named())}{failure}",
            )
            self._text = affixes
            return affixes
        return self._text

    def _named(self) -> Iterator[tuple[str, str]]:
        """Yield the constant facts that a line has only if they are known, by their names in the log."""
        if self.mount is not None:
            yield "mount", self.mount
        if self.key is not None:
            yield "key", str(self.key)
        if self.fault is not None:
            yield "fault", self.fault
        if self.cut is not None:
            yield "cut", self.cut.value
        if self.user is not None:
            yield "user", self.user
        if self.trace_id is not None:
            yield "trace_id", self.trace_id
        if self.span_id is not None:
            yield "span_id", self.span_id


FinishedRequest = tuple[AccessRecord, int, str, float, float, LoggedFields]
"""The record, the object's bytes that were sent, the client, the end in seconds since the epoch, the duration in
seconds, and the request's own fields."""


class AccessLogSink(Protocol):
    """Where the lines of the access log go. No method raises for the disk or the reader behind it."""

    @property
    def lost(self) -> int:
        """Return the number of lines that were not written, for whatever reason."""

    def add(self, text: bytes) -> None:
        """Take whole lines, and write them after the next `flush`. Never blocks."""

    def flush(self) -> None:
        """Begin to write what was added. Never blocks."""

    def reopen(self) -> None:
        """Open the far end anew for the lines that are added later, so that an operator can rename the file before.

        Each line is in one of the two files. If the new one cannot be opened, the lines go on in the old one. Never
        blocks.
        """

    def drain(self, timeout_s: float) -> bool:
        """Wait until all lines that were added are written or lost. Returns False if that takes longer."""

    def close(self, timeout_s: float) -> None:
        """Write the waiting lines within `timeout_s`, and count the rest as lost. Lines added later are lost."""


def json_lines(requests: Sequence[FinishedRequest]) -> str:
    lines = []
    stamp, since, until = "", 0.0, 0.0
    for record, sent, client, at, seconds, fields in requests:
        if not since <= at < until:
            stamp, since, until = _stamped(at)
        took = f"{seconds * 1000:.2f}"
        if took[-1] == "0":  # JSON writes 0.5 and 0.0
            took = took[:-1]
        first = record.first_byte
        head = f', "first_byte_ms": {took}' if first is LAST else _json_first_byte(first, seconds)
        before, behind = record.json_affixes()
        own = "" if fields == NOTHING else _json_fields(fields)
        lines.append(
            f'{{"time": "{stamp}", "client": {_quoted(client)}{before}{sent}, "from_cache": {sent - record.from_origin}'
            f', "ms": {took}{head}{behind}{own}}}\n'
        )
    return "".join(lines)


def _json_first_byte(first: float | None, seconds: float) -> str:
    return "" if first is None else f', "first_byte_ms": {round(min(first, seconds) * 1000, 2)}'


def _json_fields(fields: LoggedFields) -> str:
    user_agent, name, traceparent, referer, ranges = fields
    text = _json_facts_of_many(user_agent, referer)
    if ranges is not None:
        text = _json_facts(facts_of_range(ranges)) + text
    if name is not None:
        text += f', "request_id": {_quoted(text_of(name))}'
    return text if traceparent is None else text + _json_facts(facts_of_trace(traceparent))


@lru_cache(maxsize=MAX_KEPT_TEXTS)
def _json_facts_of_many(*fields: bytes | str | None) -> str:
    return _json_facts(facts_of_many(*fields))


def _json_facts(facts: Iterable[tuple[str, str]]) -> str:
    return "".join([f', "{name}": {_quoted(fact)}' for name, fact in facts])


def _stamped(at: float) -> tuple[str, float, float]:
    """Return the time of a line, and the times from which and until which it is certainly the same."""
    thousandth = int(at % 1 * 1000)
    stamp = f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(at))}.{thousandth:03d}Z"
    # A microsecond is more than a float's error at this size.
    return stamp, at, math.floor(at) + (thousandth + 1) / 1000 - 1e-6


def text_lines(requests: Sequence[FinishedRequest]) -> str:
    lines = []
    stamp, since, until = "", 0.0, 0.0
    for record, sent, client, at, seconds, fields in requests:
        if not since <= at < until:
            stamp, since, until = _stamped(at)
        before, behind = record.text_affixes()
        first = record.first_byte
        begun = "" if first is None or first >= seconds else f" first_byte_ms: {first * 1000:.1f}"
        own = "" if fields == NOTHING else _text_facts(logged_fields.facts(fields))
        lines.append(f"{stamp} {_plain(client)}{before}{sent} B {seconds * 1000:.1f}{behind}{begun}{own}\n")
    return "".join(lines)


def _no_lines(requests: Sequence[FinishedRequest]) -> str:  # noqa: ARG001 - as the others
    return ""


def _text_facts(facts: Iterable[tuple[str, str]]) -> str:
    return "".join(f" {name}: {_shown(fact)}" for name, fact in facts)


class AccessLog:
    """Formats finished requests by `lines`, and hands the lines to a sink. It never blocks except in `drain` and
    `close`.
    """

    def __init__(self, lines: Callable[[Sequence[FinishedRequest]], str], sink: AccessLogSink) -> None:
        self._lines = lines
        self._sink = sink

    @property
    def lost(self) -> int:
        return self._sink.lost

    def add(self, requests: Sequence[FinishedRequest]) -> None:
        if lines := self._lines(requests):
            self._sink.add(lines.encode("ascii"))

    def flush(self) -> None:
        self._sink.flush()

    def reopen(self) -> None:
        """Have the lines that are added later written to a file that is opened anew."""
        self._sink.reopen()

    def drain(self, timeout_s: float) -> bool:
        """Wait until all lines are written or lost. Returns False if that takes longer."""
        return self._sink.drain(timeout_s)

    def close(self) -> None:
        """Write the lines that wait, within CLOSE_TIMEOUT_S (docs/invariants.md#deadlines-everywhere)."""
        self._sink.close(CLOSE_TIMEOUT_S)


def open_access_log(settings: AccessLogSettings) -> AccessLog:
    """Return the log that writes to a file, or to standard output for the path `-`. That to /dev/null has no lines.

    Raises UnusableSetting if the file cannot be opened.
    """
    lines = json_lines if settings.format == "json" else text_lines
    path = settings.path
    if path == os.devnull:
        lines = _no_lines  # most of the log's cost is the text
    try:
        descriptor = _opened(path)
    except OSError as error:
        raise _unusable(path, error) from error
    return AccessLog(lines, LineWriter(descriptor, open_again=None if path == "-" else lambda: _opened(path)))


def probe_access_log(settings: AccessLogSettings) -> None:
    """Raise the UnusableSetting that `open_access_log` would raise, if any. It creates no file."""
    path = Path(settings.path)
    if settings.path == "-":
        return  # a closed standard output is no reason not to start
    try:
        if path.exists():
            os.close(_opened(settings.path))
        else:
            with tempfile.TemporaryFile(dir=path.resolve().parent):
                pass
    except OSError as error:
        raise _unusable(settings.path, error) from error


def _unusable(path: str, error: OSError) -> UnusableSetting:
    folder = Path(path).absolute().parent
    match error.errno:
        case errno.ENOENT | errno.ENOTDIR:
            cause = f"there is no folder {folder}: make it, or set another path"
        case errno.EISDIR:
            cause = f"{path} is a folder: name a file in it"
        case errno.ENXIO:
            cause = f"{path} is a named pipe without a reader: start the reader first"
        case _:
            cause = f"{path} cannot be opened for writing: {error.strerror}. Make it writable for uid {os.geteuid()}"
    return UnusableSetting(f"{cause}; or write to standard output with '-'", ("access_log", "path"))


def _opened(path: str) -> int:
    if path != "-":
        # Without O_NONBLOCK, a named pipe without a reader would hold the start for ever: fifo(7).
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NONBLOCK
        descriptor = os.open(path, flags, LOG_MODE)
        os.set_blocking(descriptor, True)
        return descriptor
    if sys.stdout is None:  # the parent process closed it, so any file may have its number by now
        return os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
    # A copy of the descriptor avoids Python's buffer. A stuck thread that holds its lock would abort the interpreter.
    return os.dup(sys.stdout.fileno())


def _json_failure(failure: OriginFailure) -> str:
    members = ", ".join(
        f'"{name}": {fact if isinstance(fact, int) else _quoted(fact)}' for name, fact in failure.facts()
    )
    return f', "cause": {_quoted(failure.cause)}' + (f', "s3": {{{members}}}' if members else "")


def _text_failure(failure: OriginFailure) -> str:
    facts = ", ".join(f"{name} {_plain(str(fact))}" for name, fact in failure.facts())
    return f" cause: {failure.cause!a}" + (f" s3: {facts}" if facts else "")


def _shown(fact: str) -> str:
    """Return a fact for a plain line, in quotes if its end would not show."""
    shown = ascii(fact)
    return shown if " " in fact or not fact or len(shown) != len(fact) + 2 else fact


def _plain(text: str) -> str:
    """Return `text` without control characters, which could act on a terminal."""
    return ascii(text)[1:-1]
