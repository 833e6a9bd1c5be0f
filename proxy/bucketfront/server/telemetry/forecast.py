"""What the cache would give if it served: for reads that S3 served because of `cache.mode`.

Theory of operation
-------------------
A sample of the objects is simulated for each size of the cache at once. The distance of a request to the one before
says which sizes would still have the object (`reuse_distances`). For each size the forecast knows which version it
would have, since when that is validated, and which parts of it were read. So lifetimes, idle objects, objects that
must not be stored, new versions and ranges count as they do in the cache. The removal of objects is that of `lru`.

Objects are in the sample as in `miss_ratio_curve`, whose adjustment holds here as well: the requests that the sample
does not stand for are those of a few popular objects, which hit in any cache.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from bucketfront.cache import Observed
from bucketfront.http.ranges import Span
from bucketfront.server.telemetry.access_log import AccessRecord, FinishedRequest
from bucketfront.server.telemetry.miss_ratio_curve import MAX_OBJECTS, MissRatioCurve
from bucketfront.server.telemetry.observed_read import ObservedRead
from bucketfront.server.telemetry.sizing import FACTORS, held_size

MAX_PARTS = 1024  # of an object whose presence is known; a part is a block, or more of a large object


@dataclass(frozen=True, slots=True)
class ForecastOptions:
    """The cache that is forecast. Sizes are in bytes, `idle_timeout` is in seconds.

    `part_size` is the most that one request to S3 brings.
    """

    limit: int
    block_size: int
    part_size: int
    idle_timeout: float


@dataclass(slots=True)
class Predicted:
    """What a cache of one size would have done. `origin_reads` and `origin_bytes` are what S3 would have charged for.

    `cached_bytes` are those of the clients' bytes that the cache would have had.
    """

    hits: float = 0.0
    cached_bytes: float = 0.0
    origin_reads: float = 0.0
    origin_bytes: float = 0.0

    def add(self, other: "Predicted", weight: float = 1.0) -> None:
        self.hits += weight * other.hits
        self.cached_bytes += weight * other.cached_bytes
        self.origin_reads += weight * other.origin_reads
        self.origin_bytes += weight * other.origin_bytes


@dataclass(slots=True)
class MountForecast:
    """The reads of one mount since the start, and what each size of FACTORS would have done with them."""

    reads: int = 0
    bytes: int = 0
    sampled_reads: float = 0.0  # that the sample stands for
    sampled_bytes: float = 0.0
    sizes: tuple[Predicted, ...] = field(default_factory=lambda: tuple(Predicted() for _ in FACTORS))

    def predicted(self, number: int) -> Predicted:
        """Return what the size of that number in FACTORS would have done with all reads."""
        found = self.sizes[number]
        hits = found.hits + self.reads - self.sampled_reads
        cached = found.cached_bytes + self.bytes - self.sampled_bytes
        return Predicted(
            min(max(hits, 0.0), self.reads), min(max(cached, 0.0), self.bytes), found.origin_reads, found.origin_bytes
        )


class _Held:
    """What a cache of one size has of an object. Without a validation it has nothing."""

    __slots__ = ("etag", "parts", "validated_at")

    def __init__(self) -> None:
        self.etag: str | None = None
        self.parts = 0  # a bit for each part that is present
        self.validated_at: float | None = None

    def drop(self) -> None:
        self.validated_at, self.parts = None, 0

    def renew(self, etag: str | None, now: float) -> None:
        self.etag, self.validated_at = etag, now


class _Object:
    __slots__ = ("held", "seen_at")

    def __init__(self) -> None:
        self.held = tuple(_Held() for _ in FACTORS)
        self.seen_at = 0.0


class Forecast:
    """Takes the finished requests, and forecasts by mount. It belongs to the event loop."""

    def __init__(self, options: ForecastOptions, max_objects: int = MAX_OBJECTS) -> None:
        self.sizes = tuple(int(options.limit * factor) for factor in FACTORS)
        self._options = options
        self._max_objects = max_objects
        self._sample = MissRatioCurve(int(self.sizes[-1] * 1.25), max_objects)
        self._objects: dict[int, _Object] = {}
        self.mounts: dict[str, MountForecast] = {}

    @property
    def objects(self) -> int:
        """Return the number of objects in the sample."""
        return self._sample.objects

    @property
    def rate(self) -> float:
        """Return the share of all objects that the sample has."""
        return self._sample.rate

    def add(self, requests: Sequence[FinishedRequest]) -> None:
        """Add requests in the order in which they ended."""
        for record, sent, _, at, _, _ in requests:
            if record.observed is not None and record.key is not None and record.mount is not None:
                self._add(record, record.observed, record.mount, sent, at)

    def _add(self, record: AccessRecord, read: ObservedRead, at_mount: str, sent: int, now: float) -> None:
        mount = self.mounts.get(at_mount)
        if mount is None:
            mount = self.mounts[at_mount] = MountForecast()
        mount.reads += 1
        mount.bytes += sent
        name = hash(record.key)
        if not self._sample.wants(name):
            return
        weight = 1 / self._sample.rate
        size = held_size(record.size, self._sample.observed_size(name), sent)
        needed = self._sample.observe(name, size, 1, sent, int(now))
        known = self._objects.get(name)
        if known is None:
            known = self._objects[name] = _Object()
            self._forget_left()
        is_idle = now - known.seen_at > self._options.idle_timeout
        known.seen_at = now
        mount.sampled_reads += weight
        mount.sampled_bytes += weight * sent
        for held, limit, predicted in zip(known.held, self.sizes, mount.sizes, strict=True):
            # A 404 takes no space of the disk.
            if is_idle or (read.version.etag is not None and (needed is None or needed > limit)):
                held.drop()
            predicted.add(self._read(held, read, record.size, sent, now), weight)

    def _read(self, held: _Held, read: ObservedRead, size: int, sent: int, now: float) -> Predicted:
        """Return what a cache does with one read. What it has then is in `held`."""
        span = None if read.span is None else Span(read.span.start, min(read.span.stop, read.span.start + sent))
        wanted = self._parts(span, size)
        step = _step(held, read.version, wanted, now)
        if read.version.is_storable:
            held.parts = step.kept
        else:
            held.drop()
        share = step.missing.bit_count() / wanted.bit_count() if wanted else 0.0
        brought = share * self._fetched(span, size)
        fetches = max(1.0, -(-brought // self._options.part_size)) if share else 0.0
        is_hit = not share and not step.is_forwarded
        return Predicted(1.0 if is_hit else 0.0, (1 - share) * sent, step.validations + fetches, brought)

    def _parts(self, span: Span | None, size: int) -> int:
        """Return the parts of an object that a span touches, a bit for each."""
        if span is None or span.start >= span.stop:
            return 0
        block = self._options.block_size
        part = -(-size // (MAX_PARTS * block)) * block
        first, last = span.start // part, (span.stop - 1) // part
        return (1 << last + 1) - (1 << first)

    def _fetched(self, span: Span | None, size: int) -> int:
        """Return the bytes of whole blocks around a span."""
        if span is None:
            return 0
        block = self._options.block_size
        return min(size, -(-span.stop // block) * block) - span.start // block * block

    def _forget_left(self) -> None:
        """Forget objects that have left the sample."""
        if len(self._objects) > 2 * self._max_objects:
            self._objects = {name: known for name, known in self._objects.items() if name in self._sample}


@dataclass(frozen=True, slots=True)
class _Step:
    """What one read does: the parts that S3 sends, and those that the cache has after it.

    `validations` are requests that bring no bytes. With `is_forwarded` the client waits for S3 in any case.
    """

    missing: int
    kept: int
    validations: int = 0
    is_forwarded: bool = False


def _step(held: _Held, version: Observed, wanted: int, now: float) -> _Step:
    """Return the step of a read, and note in `held` which version is valid since when."""
    if held.validated_at is None or not version.is_storable:
        held.renew(version.etag, now)
        return _Step(wanted, wanted, validations=0 if wanted else 1, is_forwarded=True)
    age, has_changed = now - held.validated_at, held.etag != version.etag
    missing, kept = wanted & ~held.parts, held.parts | wanted
    if age < version.ttl and not (has_changed and missing):
        return _Step(missing, kept)
    held.renew(version.etag, now)
    if age < version.ttl:
        # S3 refuses parts of the version before (412), so the request begins again.
        return _Step(wanted, wanted, validations=1, is_forwarded=True)
    if age < version.ttl + version.stale_while_revalidate:
        return _Step(missing, 0 if has_changed else kept, validations=1)
    if has_changed:
        return _Step(wanted, wanted, validations=0 if wanted else 1, is_forwarded=True)
    return _Step(missing, kept, validations=1, is_forwarded=True)
