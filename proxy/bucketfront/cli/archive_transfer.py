"""Archives on their way from and to the running proxy, with their course on a terminal."""

import http.client
import json
import sys
import time
from collections.abc import Iterator
from typing import IO, TYPE_CHECKING, Any

import click

from bucketfront.cli.admin_client import call_admin, open_admin, send_admin
from bucketfront.cli.failure import WRONG_USE, fail
from bucketfront.cli.units import size
from bucketfront.errors import AdminFailed, AdminRefused

if TYPE_CHECKING:
    from bucketfront.config.settings import Settings
    from bucketfront.warm.archive import ArchiveEnd

CHUNK_BYTES = 256 << 10
TAIL_BYTES = 4096  # in which the end of an archive lies
SHOW_INTERVAL_S = 0.5
TRANSFER_TIMEOUT_S = 180.0  # without a byte: S3 may take long to confirm objects

_AGAIN = "run the same command again"
_CUT = f"the archive broke off before its end; {_AGAIN}"


class Course:
    """A line that shows how far a transfer is. `whole` is in bytes, None if it is not known."""

    def __init__(self, whole: int | None, *, is_shown: bool) -> None:
        self._whole = whole
        self._is_shown = is_shown
        self._began = self._shown_at = time.monotonic()

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._began

    def is_due(self) -> bool:
        """Return whether the line is old, and note that it is drawn now."""
        now = time.monotonic()
        if now - self._shown_at < SHOW_INTERVAL_S:
            return False
        self._shown_at = now
        return True

    def show(self, count: int, more: str = "") -> None:
        """Draw the line: so many bytes are through."""
        if not self._is_shown:
            return
        share = f" of {size(self._whole)}" if self._whole and self._whole >= count else ""
        rate = count / self.seconds if self.seconds else 0.0
        click.echo(f"\r\x1b[K{size(count)}{share}, {size(rate)}/s{more}", err=True, nl=False)

    def end(self) -> None:
        if self._is_shown:
            click.echo("\r\x1b[K", err=True, nl=False)


def download(settings: "Settings", output: IO[bytes], limit: int | None, *, is_shown: bool) -> "ArchiveEnd":
    """Write the archive of the running proxy to `output`, and return its last member. Ends the command if it breaks.

    Raises OSError if `output` takes no more.
    """
    from bucketfront.warm.archive import end_of

    used = call_admin(settings, "GET", "/api/v1/stats")["bytes_used"]
    course, count, tail = Course(used if limit is None else min(used, limit), is_shown=is_shown), 0, b""
    path = "/api/v1/archive" if limit is None else f"/api/v1/archive?limit={limit}"
    try:
        with open_admin(settings, "GET", path, timeout=TRANSFER_TIMEOUT_S) as response:
            for chunk in _chunks(response):
                output.write(chunk)
                tail = (tail + chunk)[-TAIL_BYTES:]
                count += len(chunk)
                if course.is_due():
                    course.show(count)
    except (AdminRefused, AdminFailed) as error:
        fail(str(error))
    finally:
        course.end()
    end = end_of(tail)
    if end is None:
        fail(_CUT)
    return end


def _chunks(response: http.client.HTTPResponse) -> Iterator[bytes]:
    """Yield what comes. Ends the command if it breaks off."""
    while True:
        try:
            chunk = response.read(CHUNK_BYTES)
        except (OSError, http.client.HTTPException) as error:
            fail(f"{_CUT} ({error})")
        if not chunk:
            return
        yield chunk


def upload(settings: "Settings", archive: Iterator[bytes], whole: int | None, *, is_shown: bool) -> dict[str, Any]:
    """Send an archive to the running proxy, and return the report of the import, also if it ended early.

    Ends the command if the proxy takes none.
    """
    course = Course(whole, is_shown=is_shown)
    body = _Sent(settings, archive, course)
    try:
        with send_admin(settings, "POST", "/api/v1/import", body, "application/x-tar", TRANSFER_TIMEOUT_S) as response:
            report: dict[str, Any] = json.load(response)
            return report
    except AdminRefused as error:
        fail(str(error))
    except (AdminFailed, OSError, ValueError, http.client.HTTPException) as error:
        # The proxy takes no more of an archive once an import has ended, or it has ended itself.
        ended = body.ended()
        if ended is None:
            fail(f"{error}\nWhat came before is imported; {_AGAIN} to go on")
        return ended
    finally:
        course.end()


class _Sent:
    """The body of the request: it ends once the import has, so that the rest of an archive is not sent in vain."""

    def __init__(self, settings: "Settings", archive: Iterator[bytes], course: Course) -> None:
        self._settings = settings
        self._archive = archive
        self._course = course
        self._before = self._last()
        self.count = 0  # bytes

    def _last(self) -> dict[str, Any] | None:
        """Return the report of the last import, None without one, or if the proxy has ended."""
        try:
            with open_admin(self._settings, "GET", "/api/v1/import/last") as response:
                found: dict[str, Any] | None = json.load(response)["last"]
                return found
        except (AdminFailed, OSError, ValueError, http.client.HTTPException):
            return None

    def _report(self) -> dict[str, Any] | None:
        """Return the report of this import, None before it has begun."""
        found = self._last()
        is_new = found is not None and (self._before is None or found["id"] != self._before["id"])
        return found if is_new else None

    def ended(self) -> dict[str, Any] | None:
        """Return the report of this import if it has ended."""
        report = self._report()
        return None if report is None or report["state"] == "running" else report

    def __iter__(self) -> Iterator[bytes]:
        for chunk in self._archive:
            yield chunk
            self.count += len(chunk)
            if not self._course.is_due():
                continue
            report = self._report()
            if report is not None and report["state"] != "running":
                return
            self._course.show(self.count, "" if report is None else f"  {report['objects']} objects")


def is_terminal() -> bool:
    """Return whether the course of a transfer can be shown."""
    return sys.stderr.isatty()


def read_begin(file: IO[bytes], count: int) -> bytes:
    """Return the first bytes of a file or pipe, fewer only at its end."""
    begin = b""
    while len(begin) < count and (more := file.read(count - len(begin))):
        begin += more
    return begin


def rest_of(file: IO[bytes], begin: bytes) -> Iterator[bytes]:
    """Yield `begin`, and what follows it in the file. Ends the command if the file cannot be read."""
    yield begin
    while True:
        try:
            chunk = file.read(CHUNK_BYTES)
        except OSError as error:
            fail(f"cannot read the archive: {error.strerror}", WRONG_USE)
        if not chunk:
            return
        yield chunk
