"""Leases and finished requests as facts of messages, and back."""

import marshal
from collections.abc import Sequence
from typing import Any

from bucketfront.cache import FreshnessBound, Lease, Region
from bucketfront.http.metadata import Metadata
from bucketfront.keys import ObjectKey
from bucketfront.server.cut import Cut
from bucketfront.server.telemetry.access_log import LAST, AccessRecord, FinishedRequest
from bucketfront.server.telemetry.logged_fields import LoggedFields

Facts = dict[str, Any]

MAX_KNOWN_RECORDS = 4096  # of a front end, at about 1 KiB each in the owner

_Line = tuple[int, int, str, float, float, LoggedFields]
"""A finished request: the number of its record, the bytes sent, the client, its end, its seconds, and its fields."""

_OF_RECORD = ("method", "path", "status", "cache", "outcome", "mount", "size", "first_byte", "fault")


def facts_of_lease(lease: Lease, number: int) -> Facts:
    """Return the facts of a lease without its body and its file, both of which travel beside them."""
    metadata = lease.metadata
    return {
        "number": number,
        "key": lease.key,
        "etag": metadata.etag,
        "size": metadata.size,
        "last_modified": metadata.last_modified,
        "headers": metadata.headers,
        "age": metadata.age,
        "version": metadata.version,
        "cache_status": metadata.cache_status,
        "offset": lease.region.offset,
        "length": lease.region.length,
        "validated_at": lease.validated_at,
        "fresh_until": lease.fresh_until,
    }


def lease_of(facts: Facts, descriptor: int, body: bytes | None, bound: FreshnessBound) -> Lease:
    """Return the lease of a front end. Its `entry_id` is the number of the lease."""
    metadata = Metadata(
        facts["etag"],
        facts["size"],
        facts["last_modified"],
        tuple((name, value) for name, value in facts["headers"]),
        facts["age"],
        facts["version"],
        cache_status=facts["cache_status"],
    )
    region = Region(descriptor, facts["offset"], facts["length"])
    return Lease(
        key_of(facts["key"]),
        facts["number"],
        metadata,
        region,
        facts["validated_at"],
        facts["fresh_until"],
        body,
        bound,
    )


def key_of(fact: Sequence[Any]) -> ObjectKey:
    bucket, key, version = fact
    return ObjectKey(bucket, key, version)


class SentRecords:
    """The records that the other end knows, by number: each of them is sent once, in the order of the numbers.

    The owner formats a part of a log line, and finds the metrics, once for a record. So most hits have a record that
    it knows. After MAX_KNOWN_RECORDS both ends forget all of them.
    """

    def __init__(self) -> None:
        self._numbers: dict[AccessRecord, int] = {}

    def facts_of(self, requests: Sequence[FinishedRequest]) -> tuple[Facts, bytes]:
        """Return the facts of requests of the fast path, with the records that are new, and a line for each request."""
        is_new = len(self._numbers) + len(requests) > MAX_KNOWN_RECORDS
        if is_new:
            self._numbers.clear()
        numbers = self._numbers
        records: list[Facts] = []
        lines: list[_Line] = []
        for record, sent, client, at, seconds, fields in requests:
            number = numbers.get(record)
            if number is None:
                number = numbers[record] = len(numbers)
                facts = {name: getattr(record, name) for name in _OF_RECORD}
                records.append({**facts, "key": record.key, "cut": None if record.cut is None else record.cut.value})
            lines.append((number, sent, client, at, seconds, fields))
        return {"forget": is_new, "records": records}, marshal.dumps(lines)


class KnownRecords:
    """The records that a front end has sent, by number."""

    def __init__(self) -> None:
        self._records: list[AccessRecord] = []

    def requests_of(self, facts: Facts, lines: bytes | memoryview) -> list[FinishedRequest]:
        """Return the requests of a message, which follows all those before it."""
        if facts["forget"]:
            self._records = []
        records = self._records
        records += map(_record_of, facts["records"])
        return [
            (records[number], sent, client, at, seconds, fields)
            # A process of this program has written it, in this version of Python.
            for number, sent, client, at, seconds, fields in marshal.loads(lines)  # noqa: S302 # nosec B302
        ]


def _record_of(facts: Facts) -> AccessRecord:
    key, cut = facts["key"], facts["cut"]
    plain = {name: facts[name] for name in _OF_RECORD}
    if plain["first_byte"] == LAST:
        plain["first_byte"] = LAST  # it is compared by identity
    return AccessRecord(
        **plain,
        key=None if key is None else key_of(key),
        cut=None if cut is None else Cut(cut),
    )
