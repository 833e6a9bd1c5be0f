"""What a front end tells the owner of the requests that it has served, in batches."""

import asyncio
from collections.abc import Callable
from itertools import islice

from bucketfront.front_end.facts import SentRecords
from bucketfront.front_end.lease_table import LeaseTable
from bucketfront.front_end.message import Kind, Message
from bucketfront.server.telemetry.access_log import AccessRecord, FinishedRequest
from bucketfront.server.telemetry.logged_fields import NOTHING, LoggedFields

INTERVAL_S = 0.1  # that a line of the log may wait for others, as in the owner
MAX_BATCH = 64  # requests of one message: the fields of each have at most 7 KiB, and mostly some hundred bytes
MAX_FIELDS_BYTES = 64 << 10  # of the fields of a batch, so that its message keeps its bound


class Report:
    """Stands where the telemetry stands in the owner, which counts and logs what this hands on."""

    def __init__(self, send: Callable[[Message], None], leases: LeaseTable) -> None:
        self._send = send
        self._leases = leases
        self._records = SentRecords()
        self._pending: list[FinishedRequest] = []
        self._bytes = 0
        self._timer: asyncio.TimerHandle | None = None

    def add(
        self,
        record: AccessRecord,
        sent: int,
        client: str,
        at: float,
        seconds: float,
        fields: LoggedFields = NOTHING,
    ) -> None:
        """Add one request, as `Telemetry.add`."""
        self._pending.append((record, sent, client, at, seconds, fields))
        self._bytes += len(record.path) + sum(len(value) for value in fields if value is not None)
        if len(self._pending) >= MAX_BATCH or self._bytes >= MAX_FIELDS_BYTES:
            self.flush()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(INTERVAL_S, self.flush)

    def flush(self) -> None:
        """Send what has ended, and which leases were used."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        requests, self._pending, self._bytes = self._pending, [], 0
        uses = iter(self._leases.take_uses().items())
        while requests or (some := list(islice(uses, MAX_BATCH))):
            some = list(islice(uses, MAX_BATCH)) if requests else some
            facts, lines = self._records.facts_of(requests)
            self._send(Message(Kind.SERVED, {**facts, "uses": some}, lines))
            requests = []
