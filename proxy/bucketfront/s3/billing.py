"""The requests that S3 charges for, by the mount of their object and by their price class.

S3 charges for each request that it responds to, unless the response is a 5xx. Its price list has two classes, and
deletes and aborts are free. The SDK's events see every request of this process: reads, hedges, probes, uploads.
"""

from collections.abc import Callable
from enum import StrEnum
from typing import Any

from bucketfront.keys import ObjectKey

_PLACE = "bucketfront_place"  # in the SDK's context of one request
# Operations of S3's API by the first word of their name. All others are reads.
_FREE = ("Abort", "Delete")
_WRITES = ("Complete", "Copy", "Create", "List", "Post", "Put", "Restore", "Upload")


class PriceClass(StrEnum):
    """The class of a request in S3's price list. The value is its label in metrics."""

    READ = "read"  # GET and HEAD
    WRITE = "write"  # PUT, COPY, POST and LIST


def price_class(operation: str) -> PriceClass | None:
    """Return the class of an operation of S3's API. Returns None if it is free."""
    if operation.startswith(_FREE):
        return None
    return PriceClass.WRITE if operation.startswith(_WRITES) else PriceClass.READ


class Billing:
    """Counts requests. `mount_of` names the mount of a key, from a closed set."""

    def __init__(self, mount_of: Callable[[ObjectKey], str]) -> None:
        self._mount_of = mount_of
        self.counts: dict[tuple[str, PriceClass], int] = {}

    def register(self, events: Any) -> None:
        """Count the requests of a client of the SDK."""
        events.register("before-parameter-build.s3", self._note_place)
        events.register_first("after-call.s3", self._count)

    def _note_place(self, params: dict[str, Any], context: dict[str, Any], **_: Any) -> None:
        context[_PLACE] = ObjectKey(params.get("Bucket", ""), params.get("Key", ""))

    def _count(self, http_response: Any, model: Any, context: dict[str, Any], **_: Any) -> None:
        # An error inside a 200 is charged as well.
        self.count(model.name, http_response.raw.status, context[_PLACE])

    def count(self, operation: str, status: int, key: ObjectKey) -> None:
        """Count a request for `key` to which S3 has sent `status`."""
        charged = price_class(operation)
        if charged is None or status >= 500:
            return
        mount = self._mount_of(key)
        self.counts[mount, charged] = self.counts.get((mount, charged), 0) + 1
