"""The server-sent events of the running proxy."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from bucketfront.cli.admin_client import open_admin
from bucketfront.errors import AdminFailed

if TYPE_CHECKING:
    from bucketfront.config.settings import Settings

CHUNK_BYTES = 64 << 10  # read at once

Event = tuple[str, str]
"""The kind of an event, and its data."""


def admin_events(settings: "Settings", path: str) -> Iterator[list[Event]]:
    """Yield the events of a path of the admin port as they come, several at once. Ends if the proxy stops.

    An empty list shows that the stream is alive. Raises AdminFailed if there is no stream, or if it breaks off.
    """
    from http.client import HTTPException

    with open_admin(settings, "GET", path) as response:
        yield []
        text = ""
        try:
            while chunk := response.read1(CHUNK_BYTES):
                text += chunk.decode()
                *blocks, text = text.split("\n\n")
                yield [event for event in map(_event, blocks) if event is not None]
        except (OSError, ValueError, HTTPException) as error:
            raise AdminFailed(f"the connection to the proxy broke off ({error})") from error


def _event(block: str) -> Event | None:
    """Return one event. Returns None for a comment, or a field of the stream itself."""
    fields = dict(line.split(": ", 1) for line in block.split("\n") if ": " in line)
    return (fields["event"], fields["data"]) if "event" in fields and "data" in fields else None
