"""The composition root: builds each object once, starts it in order, drains it in the reverse order."""

import asyncio
import gc
import logging
import math
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from prometheus_client import CollectorRegistry
from pydantic import SecretStr

from bucketfront.admin.api import AdminApplication, admin_listener
from bucketfront.admin.metrics import (
    CacheCollector,
    ConnectionCollector,
    FastPathCollector,
    OriginCollector,
    OriginHealth,
    UploadCollector,
    UploadFigures,
)
from bucketfront.cache import Cache, CacheAssembly, CacheOptions, boot_id, boottime, open_cache
from bucketfront.config.freshness_settings import FreshnessSettings
from bucketfront.config.origin_settings import OriginSettings, StaticCredentials
from bucketfront.config.settings import Settings
from bucketfront.http import freshness
from bucketfront.http.freshness import Freshness
from bucketfront.http.metadata import Metadata
from bucketfront.http.path_rules import MEDIA_RULES, Rules, Ruling
from bucketfront.keys import ObjectKey
from bucketfront.s3.client import S3Origin
from bucketfront.s3.embedded.launcher import EmbeddedS3
from bucketfront.s3.upload.journal import UploadJournal
from bucketfront.s3.upload.uploader import S3Uploader
from bucketfront.server.application import Application, client_listener
from bucketfront.server.cors import Cors
from bucketfront.server.fast_path.fast_connection import FastPath
from bucketfront.server.fast_path.prepared import PreparedResponses
from bucketfront.server.fast_path.recogniser import UNKEYED_FIELDS, recogniser
from bucketfront.server.handlers.objects import ObjectHandler
from bucketfront.server.handlers.tus_uploads import TusHandler
from bucketfront.server.handlers.uploads import UploadHandler
from bucketfront.server.http1 import descriptors
from bucketfront.server.http1.listener import ConnectionLimit, Listener
from bucketfront.server.object_writer import ObjectWriter
from bucketfront.server.pipeline import build_pipeline
from bucketfront.server.router import Router
from bucketfront.server.telemetry.access_log import open_access_log
from bucketfront.server.telemetry.telemetry import Telemetry
from bucketfront.tus.manager import UploadManager
from bucketfront.tus.staging import StagingSpace
from bucketfront.tus.upload_folder import UploadFolder

DRAIN_TIMEOUT_S = 25.0  # seconds that running answers have at a stop; inside the 30 s that orchestrators grant
SPLIT_DISTANCE_BYTES = 1 << 20  # for less, waiting costs less than another request
UPLOAD_STALL_TIMEOUT_S = 30.0  # seconds without progress, beside the read timeout, until an upload is given up
EXAMPLES = Path(__file__).parents[2] / "examples" / "media"

log = logging.getLogger(__name__)


class App:
    """One bucketfront in this event loop. `clock` is wall time in seconds since the epoch, `elapsed` a clock that goes
    on and is never set, in seconds: what the cache goes by is made of both.

    As a context manager it is ready inside the block, and drained and closed after it. Raises ConfigError,
    StoreError (cache folder), OriginUnavailable (embedded S3), OSError (a port is taken). The constructor raises
    ConfigError where the process may have too few descriptors.
    """

    def __init__(
        self, settings: Settings, clock: Callable[[], float] = time.time, elapsed: Callable[[], float] = boottime
    ) -> None:
        self.settings = settings
        self._clock = clock
        self._elapsed = elapsed
        self._rules = _rules_of(settings.freshness)
        self._pipeline = build_pipeline(settings)
        self._stack = AsyncExitStack()
        self._is_ready = False
        self._shares = descriptors.shares(descriptors.limit(), settings.origin.max_connections)
        self.connection_limit = ConnectionLimit(self._shares.connections)
        self.embedded: EmbeddedS3 | None = None
        self.cache: Cache
        self.cache_assembly: CacheAssembly
        self.upload_manager: UploadManager
        self.origin: S3Origin
        self.upload_journal: UploadJournal
        self.telemetry: Telemetry
        self.fast_path: FastPath | None = None
        self._listener: Listener
        self._admin: Listener

    @property
    def _endpoint_name(self) -> str:
        """What names the endpoint in what is kept (I25)."""
        origin = self.settings.origin
        return origin.endpoint_url or f"aws:{origin.region}"

    @property
    def address(self) -> str:
        """Where clients go."""
        return self._listener.address

    @property
    def admin_address(self) -> str:
        return self._admin.address

    async def __aenter__(self) -> Self:
        try:
            await self._start()
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._is_ready = False
        await self._stack.aclose()

    async def _start(self) -> None:
        registry = CollectorRegistry()
        self.telemetry = Telemetry(registry, open_access_log(self.settings.access_log), self._clock)
        self._stack.callback(self.telemetry.close)  # the last of all: requests that a stop cancels have their lines too
        await self._start_origin()
        await self._start_cache()
        CacheCollector(registry, self.cache.statistics)
        ConnectionCollector(registry, self.connection_limit)
        OriginCollector(registry, self._origin_health)
        await self._start_admin(registry)
        uploader = S3Uploader(
            self.origin, UPLOAD_STALL_TIMEOUT_S + self.settings.origin.read_timeout, self.upload_journal
        )
        writer = ObjectWriter(self.cache, uploader)
        self._start_aborting()
        uploads = UploadHandler(writer, self.settings.uploads, self._clock)
        honor_no_cache = self.settings.freshness.honor_client_no_cache
        application = Application(
            self.settings,
            ObjectHandler(self.cache, self._rules, self._clock, honor_no_cache=honor_no_cache),
            uploads,
            await self._start_tus(writer),
            self.telemetry,
            self._pipeline,
        )
        UploadCollector(registry, self._upload_figures)
        self.fast_path = self._make_fast_path()
        if (path := self.fast_path) is not None:
            FastPathCollector(registry, lambda: path.served)
        self._listener = client_listener(
            application, self.fast_path, self.settings.server, self.connection_limit, DRAIN_TIMEOUT_S
        )
        self._stack.push_async_callback(self._listener.stop)
        await self._listener.start()
        self._is_ready = True

    async def _start_tus(self, writer: ObjectWriter) -> TusHandler | None:
        """Also without a route for them: what a former run left is dropped then."""
        settings, assembly = self.settings.uploads, self.cache_assembly
        clock = assembly.clock
        self.upload_manager = UploadManager(
            folder=UploadFolder(assembly.store.folder),
            origin=self.origin,
            store=writer.store,
            forget=writer.invalidate,
            space=StagingSpace(assembly.space.reserve, assembly.entries.budget),
            source=self._endpoint_name,
            boot=boot_id(),
            clock=clock,
            idle_since=lambda: math.inf if settings is None else clock.ago(settings.expire_after),
        )
        await self.upload_manager.start()
        self._stack.push_async_callback(self.upload_manager.stop)
        return None if settings is None else TusHandler(self.upload_manager, settings, self._clock)

    def _make_fast_path(self) -> FastPath | None:
        settings = self.settings
        if not settings.server.fast_path or settings.server.timing:
            return None  # how long an answer took, only the ordinary path tells
        if self._pipeline.reads & UNKEYED_FIELDS:
            log.info("the fast path is off: a stage reads %s", ", ".join(sorted(self._pipeline.reads & UNKEYED_FIELDS)))
            return None
        recognise = recogniser(self._pipeline.reads)
        hits = PreparedResponses(
            self.cache,
            Router(settings.mounts, settings.uploads),
            Cors(settings.cors),
            self._rules,
            self._pipeline,
        )
        return FastPath(recognise, hits, self.cache, self.telemetry, self.cache_assembly.clock, self._clock)

    async def _start_origin(self) -> None:
        origin = self.settings.origin
        endpoint = origin.endpoint_url
        if endpoint == "embedded":
            buckets = sorted({mount.bucket for mount in self.settings.mounts})
            self.embedded = EmbeddedS3(buckets, seed=EXAMPLES if EXAMPLES.is_dir() else None)
            await self._stack.enter_async_context(self.embedded)
            endpoint = self.embedded.endpoint_url
        settings = _with_demo_keys(origin) if self.embedded else origin
        self.origin = await self._stack.enter_async_context(S3Origin(settings, endpoint))
        if origin.create_bucket and not self.embedded:
            for bucket in sorted({mount.bucket for mount in self.settings.mounts}):
                await self.origin.create_bucket(bucket)

    async def _start_cache(self) -> None:
        config, origin = self.settings.cache, self.settings.origin
        options = CacheOptions(
            max_size=config.max_size,
            block_size=config.block_size,
            part_size=origin.part_size,
            # A key has half of the connections, because more parts of it would wait for each other.
            parallel_parts=min(origin.parallel_parts, max(1, origin.max_connections // 2)),
            read_ahead_limit=max(1, origin.max_connections * 3 // 4),
            hot_limit=self._shares.hot,
            memory=config.memory,
            policy=self._policy,
            negative_ttl=self._negative_ttl,
            idle_timeout=config.idle_timeout,
            reader_timeout=3 * (origin.connect_timeout + origin.read_timeout),
            min_free=config.free_floor,
            after_disconnect=config.after_disconnect,
            split_distance=SPLIT_DISTANCE_BYTES,
            is_durable=config.durability == "power",
        )
        self.cache_assembly = await self._stack.enter_async_context(
            open_cache(
                config.dir,
                self.origin,
                options,
                origin_name=self._endpoint_name,
                retries=self.origin.retries,
                wall=self._clock,
                elapsed=self._elapsed,
            )
        )
        self.cache = self.cache_assembly.cache
        folder = self.cache_assembly.store.folder
        self.upload_journal = UploadJournal(folder.root / "uploads.json", self._endpoint_name, folder.fd)
        self.upload_journal.open()

    def _start_aborting(self) -> None:
        """Of uploads that a kill left behind; the start does not wait for it."""
        task = asyncio.create_task(self.upload_journal.abort_abandoned(self.origin), name="left-behind uploads")

        async def stop() -> None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

        self._stack.push_async_callback(stop)

    async def _start_admin(self, registry: CollectorRegistry) -> None:
        settings = self.settings.admin
        application = AdminApplication(
            cache=self.cache,
            registry=registry,
            mounts=self.settings.mounts,
            token=None if settings.token is None else settings.token.get_secret_value(),
            is_ready=lambda: self._is_ready,
        )
        self._admin = admin_listener(application, settings)
        self._stack.push_async_callback(self._admin.stop)
        await self._admin.start()

    def _policy(self, key: ObjectKey, metadata: Metadata, now: float) -> Freshness:
        settings, ruling = self.settings.freshness, self._rules.ruling(key.key)
        defaults = freshness.Defaults(
            ttl=_first(ruling.ttl, settings.default_ttl),
            stale_while_revalidate=_first(ruling.stale_while_revalidate, settings.stale_while_revalidate),
            stale_if_error=_first(ruling.stale_if_error, settings.stale_if_error),
            # 0: what the policy makes of it is never less than stale_if_error.
            outage=_first(settings.outage, 0.0),
        )
        # The "null" version can be overwritten, and is no version by its metadata.
        is_pinned = key.version is not None and metadata.version is not None
        return freshness.policy(metadata, defaults, now, cache=ruling.cache is not False, immutable=is_pinned)

    def _origin_health(self) -> OriginHealth:
        breaker = self.origin.breaker
        return OriginHealth(breaker.is_open, breaker.opened, breaker.refused, self.origin.slow_bodies)

    def _upload_figures(self) -> UploadFigures:
        resumable, waiting = self.upload_manager.unfinished
        origin = self.origin
        return UploadFigures(origin.parts, origin.parts_retried, len(self.upload_journal.abandoned), resumable, waiting)

    def _negative_ttl(self, key: ObjectKey) -> float:
        return _first(self._rules.ruling(key.key).negative_ttl, self.settings.freshness.negative_ttl)


def _first(ruled: float | None, configured: float) -> float:
    return configured if ruled is None else ruled


def _rules_of(settings: FreshnessSettings) -> Rules:
    own = tuple(
        (
            rule.match,
            Ruling(
                ttl=rule.ttl,
                negative_ttl=rule.negative_ttl,
                stale_while_revalidate=rule.stale_while_revalidate,
                stale_if_error=rule.stale_if_error,
                cache=rule.cache,
                headers=None if rule.headers is None else tuple(rule.headers.items()),
                cache_control=rule.cache_control,
            ),
        )
        for rule in settings.rules
    )
    return Rules((*own, *MEDIA_RULES) if settings.media_rules else own)


def _with_demo_keys(origin: OriginSettings) -> OriginSettings:
    # moto takes any key; without one the chain would look for an instance's role and wait for it.
    demo = StaticCredentials(access_key_id=SecretStr("demo"), secret_access_key=SecretStr("demo"))
    return origin.model_copy(update={"credentials": demo})


async def serve(settings: Settings, announce: Callable[[App], None], stop: asyncio.Event) -> None:
    """Run until `stop` is set; `announce` is called once requests are served."""
    descriptors.raise_limit()
    async with App(settings) as app:
        # Modules and settings live as long as the process. Looked through, they held the loop for 40 ms a collection.
        gc.collect()
        gc.freeze()
        announce(app)
        await stop.wait()
