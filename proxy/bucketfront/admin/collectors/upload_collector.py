"""The metrics of uploads: parts at S3, multipart uploads to abort, and resumable uploads."""

from collections.abc import Iterable

from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from bucketfront.s3.client import S3Origin
from bucketfront.s3.upload.journal import UploadJournal
from bucketfront.server.telemetry.metric_family import counter, gauge
from bucketfront.tus.manager import UploadManager

_PARTS = counter("upload_parts", "Parts of uploads that S3 took.")
_RETRIED = counter("upload_parts_retried", "Parts of uploads that were sent again.")
_TO_ABORT = gauge("uploads_to_abort", "Multipart uploads left at S3, to be aborted.")
_RESUMABLE = gauge("resumable_uploads", "Resumable uploads that are not complete.")
_WAITING = gauge("resumable_waiting_bytes", "Bytes of resumable uploads that S3 does not have yet.")

FAMILIES = (_PARTS, _RETRIED, _TO_ABORT, _RESUMABLE, _WAITING)


class UploadCollector(Collector):
    def __init__(
        self, registry: CollectorRegistry, origin: S3Origin, journal: UploadJournal, manager: UploadManager
    ) -> None:
        self._origin = origin
        self._journal = journal
        self._manager = manager
        registry.register(self)

    def collect(self) -> Iterable[Metric]:
        unfinished, waiting = self._manager.unfinished
        yield _PARTS.value(self._origin.parts)
        yield _RETRIED.value(self._origin.parts_retried)
        yield _TO_ABORT.value(len(self._journal.abandoned))
        yield _RESUMABLE.value(unfinished)
        yield _WAITING.value(waiting)
