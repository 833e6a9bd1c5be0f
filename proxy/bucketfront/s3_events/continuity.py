"""Whether events may have been lost, which nothing reports. All of it is synchronous.

Theory of operation
-------------------
A queue drops a message after its retention. So nothing is lost as long as the queue is read more often than that, and
each message is younger than that. Both are compared with the retention less MARGIN. A queue that was deleted for a
while has lost what came meanwhile. A sender to the webhook repeats a post for UNKNOWN_RETENTION_S at least. So the
time in which the process does not run counts in the same way.

`note` keeps the time of the last read in a file of the cache folder, because the folder outlives the process. Without a
file, with that of another queue, or if a mount is new, all of the cache counts as unread.
"""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MARGIN = 0.1  # of the retention, for clocks that differ and for the drain of a backlog
UNKNOWN_RETENTION_S = (
    60.0  # the shortest that SQS allows, if the queue does not report it; retries of senders take as long
)
NOTE_INTERVAL_S = 10.0  # between two writes of the file
AGED_INTERVAL_S = 60.0  # between two losses because of old messages, of which a backlog has many
MAX_FILE_BYTES = 1 << 20

Places = Sequence[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Loss:
    """Why events may have been lost. With `is_of_this_cache` other caches that share the source may have had them."""

    why: str
    is_of_this_cache: bool = False


@dataclass(slots=True)
class Continuity:
    """The file at `path`. `source` names the queue or webhook.

    `places` are the buckets and prefixes whose events count. Times are wall times, in seconds since the epoch.
    """

    path: Path
    source: str
    places: Places
    retention: float = UNKNOWN_RETENTION_S
    read_at: float | None = None  # the last read; None if nothing is known
    was_missing: bool = False
    _noted_at: float = float("-inf")
    _aged_at: float = float("-inf")

    def open(self) -> None:
        """Read the file. One that cannot be read counts as absent."""
        try:
            with self.path.open("rb") as file:
                found = json.loads(file.read(MAX_FILE_BYTES))
            read_at = float(found["read_at"])
            known = {(str(bucket), str(prefix)) for bucket, prefix in found["places"]}
            is_same = found["source"] == self.source and known.issuperset(self.places)
        except (OSError, ValueError, TypeError, KeyError, RecursionError):
            return
        self.read_at = read_at if is_same else None

    @property
    def bound(self) -> float:
        """Return how many seconds may pass between two reads, and how old a message may be."""
        return self.retention * (1 - MARGIN)

    def loss(self, now: float, oldest_sent_at: float | None) -> Loss | None:
        """Take a read that succeeded, and return whether messages may have been lost before it. Returns None if not.

        `oldest_sent_at` is of the messages that it brought.
        """
        before, self.read_at = self.read_at, now
        was_missing, self.was_missing = self.was_missing, False
        if before is None:
            return Loss(f"{self.source}: it is read for the first time with this cache", is_of_this_cache=True)
        if was_missing:
            return Loss(f"{self.source}: it did not exist for a while")
        if now - before > self.bound:
            return Loss(f"{self.source}: it was not read for longer than events are kept")
        is_aged = oldest_sent_at is not None and now - oldest_sent_at > self.bound
        if is_aged and not 0 <= now - self._aged_at < AGED_INTERVAL_S:
            self._aged_at = now
            return Loss(f"{self.source}: messages are nearly as old as it keeps them")
        return None

    def forget(self) -> None:
        """Count everything as unread, because a loss could not be dealt with."""
        self.read_at = None

    def is_due(self, now: float) -> bool:
        """Return whether the file is to be written."""
        return self.read_at is not None and not 0 <= now - self._noted_at < NOTE_INTERVAL_S

    def note(self, now: float) -> None:
        """Write the file, in one step. Does I/O, and raises OSError."""
        self._noted_at = now
        facts: dict[str, Any] = {"source": self.source, "read_at": self.read_at, "places": list(self.places)}
        fresh = self.path.with_name(f"{self.path.name}.new")
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            json.dump(facts, file)
        fresh.replace(self.path)
