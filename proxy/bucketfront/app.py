"""The composition root: builds each object once, starts all of them in order, and stops them in reverse order."""

import asyncio
import logging
import math
import secrets
import time
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from functools import partial
from types import TracebackType
from typing import Self

from prometheus_client import CollectorRegistry

from bucketfront import __version__
from bucketfront.admin.api import AdminParts, AdminServer, admin_site, build_admin
from bucketfront.admin.collectors.cache_collector import CacheCollector
from bucketfront.admin.collectors.event_collector import EventCollector
from bucketfront.admin.collectors.fleet_collector import FleetCollector
from bucketfront.admin.collectors.origin_collector import OriginCollector
from bucketfront.admin.collectors.process_collector import HealthCollector, LoopLag
from bucketfront.admin.collectors.removal_collector import RemovalCollector
from bucketfront.admin.collectors.server_collector import ServerCollector
from bucketfront.admin.collectors.summary_collector import SummaryCollector
from bucketfront.admin.collectors.tls_collector import TlsCollector
from bucketfront.admin.collectors.tracing_collector import TracingCollector
from bucketfront.admin.collectors.traffic_collector import TrafficCollector
from bucketfront.admin.collectors.upload_collector import UploadCollector
from bucketfront.admin.health import Health, Phase
from bucketfront.admin.live_figures import LiveFigures
from bucketfront.admin.reloader import Reloader, ReloadOutcome
from bucketfront.admin.summary import Summary
from bucketfront.admin.watches import watches
from bucketfront.cache import Cache, CacheAssembly, CacheOptions, boot_id, boottime, open_cache
from bucketfront.cache_options import cache_options, coding_areas, fair_shares, with_demo_keys
from bucketfront.config.freshness_policy import FreshnessPolicy
from bucketfront.config.loader import LoadedConfig
from bucketfront.config.mount_areas import MountAreas
from bucketfront.config.mount_settings import MountSettings
from bucketfront.config.settings import Settings
from bucketfront.errors import CacheInUse
from bucketfront.fleet.assembly import open_fleet
from bucketfront.fleet.fleet import Fleet
from bucketfront.front_end.assembly import build_front_ends
from bucketfront.front_end.front_ends import FrontEnds
from bucketfront.front_end.nursery import Nursery, check_system
from bucketfront.http import via
from bucketfront.keys import ObjectKey
from bucketfront.renewal import InForce, Renewal, RenewedParts, build_renewal
from bucketfront.s3.accepted_codings import AcceptedCodings
from bucketfront.s3.client import S3Origin
from bucketfront.s3.embedded.launcher import EXAMPLES, EmbeddedS3
from bucketfront.s3.listing import list_objects
from bucketfront.s3.upload.journal import UploadJournal
from bucketfront.s3.upload.uploader import S3Uploader
from bucketfront.s3_events.assembly import S3Events, start_events
from bucketfront.server.access.clients import Clients
from bucketfront.server.client_listener import client_sites
from bucketfront.server.fast_path.fast_path import FastPath
from bucketfront.server.generation import Generations
from bucketfront.server.http1 import descriptors
from bucketfront.server.http1.certificate_watch import CertificateWatch
from bucketfront.server.http1.connection import ConnectionServer
from bucketfront.server.http1.connection_limit import ConnectionLimit
from bucketfront.server.http1.inherited_sockets import InheritedSockets
from bucketfront.server.http1.listen_sockets import ListenSockets
from bucketfront.server.http1.listener import Listener
from bucketfront.server.http1.passed_sockets import PassedSockets
from bucketfront.server.http1.proxy_headers import ProxyHeaders
from bucketfront.server.object_writer import ObjectWriter
from bucketfront.server.pipeline import build_pipeline
from bucketfront.server.s3_endpoint.assembly import S3Endpoint, build_endpoint, s3_site
from bucketfront.server.server import Server, ServerParts, build_server
from bucketfront.server.telemetry.access_log import FinishedRequest, open_access_log
from bucketfront.server.telemetry.forecast import Forecast, ForecastOptions
from bucketfront.server.telemetry.last_responses import LastResponses
from bucketfront.server.telemetry.live_feed import LiveFeed
from bucketfront.server.telemetry.logged_fields import names_of
from bucketfront.server.telemetry.sizing import SizingCurve
from bucketfront.server.telemetry.telemetry import Telemetry
from bucketfront.takeover.incumbent import Incumbent
from bucketfront.takeover.successor import Successor
from bucketfront.takeover.tenure import Tenure
from bucketfront.task_set import TaskSet
from bucketfront.tracing.assembly import Tracing, start_tracing
from bucketfront.troubles import Troubles
from bucketfront.tus.manager import UploadManager
from bucketfront.tus.staging import StagingSpace
from bucketfront.tus.upload_folder import UploadFolder
from bucketfront.warm.places import Places
from bucketfront.warm.refresher import Refresher
from bucketfront.warm.registry import JobRegistry
from bucketfront.warm.transfers import Transfers
from bucketfront.warm.warm_start import WarmStart

LOCK_STEP_S = 0.1  # between two attempts to lock the cache
LOCK_WAIT_S = 10.0  # for the kernel to end a process whose place is taken, and which was killed
HANDED_OVER_TIMEOUT_S = 3600.0  # for responses that run when another process takes over; a film takes about as long
UPLOAD_STALL_TIMEOUT_S = 30.0  # added to the read timeout: how long an upload may make no progress


class App:
    """The whole proxy, in one event loop. `clock` is wall time in seconds since the epoch.

    `elapsed` is a clock in seconds that no operator can set. The cache derives its own time from both.
    `passed` are the sockets that systemd has passed. `read` reads the configuration again for a reload. Without it, a
    reload reads only the files that the settings name. `loaded` has the places of the settings, for operators.
    `takes_over`: the process that serves now hands over its sockets and its cache.
    `nursery` forks front ends; without it, the app starts one if it needs some.

    As a context manager it serves requests inside the block, and is stopped after it. Raises ConfigError, StoreError
    (cache folder), OriginUnavailable (embedded S3), UnusableSetting (log, TLS), CannotListen. The constructor raises
    ConfigError if the process may open too few descriptors.
    """

    def __init__(
        self,
        settings: Settings,
        clock: Callable[[], float] = time.time,
        elapsed: Callable[[], float] = boottime,
        passed: PassedSockets | None = None,
        read: Callable[[], LoadedConfig] | None = None,
        loaded: LoadedConfig | None = None,
        nursery: Nursery | None = None,
        *,
        takes_over: bool = False,
    ) -> None:
        self._in_force = InForce(settings, FreshnessPolicy(settings.freshness))
        self._workers = settings.front_ends  # once, because a quota of the processor may change
        self._nursery = nursery
        self._clock = clock
        self._elapsed = elapsed
        self._passed = passed or PassedSockets()
        self._takes_over = takes_over
        self._successor: Successor | None = None
        self.incumbent: Incumbent
        self._pipeline = build_pipeline(settings)
        self._areas = MountAreas(settings.mounts)
        self._registry = CollectorRegistry()
        self._stack = AsyncExitStack()
        self.troubles = Troubles(time.monotonic, logging.getLogger("bucketfront").warning)
        self.health = Health(self.troubles)
        self._shares = descriptors.shares(descriptors.limit(), settings.origin.max_connections)
        has_share = Clients(settings.server.front_networks).has_share
        self.connection_limit = ConnectionLimit(self._shares.connections, settings.server.share_of_one, has_share)
        self.fair_shares = fair_shares(self._shares.connections, settings.server.share_of_one)
        self.live_feed = LiveFeed(time.monotonic)
        self.last_responses = LastResponses()
        self.embedded: EmbeddedS3 | None = None
        self.fast_path: FastPath
        self.certificate_watch: CertificateWatch | None = None  # None if no listener has TLS
        self.cache: Cache
        self.cache_assembly: CacheAssembly
        self.upload_manager: UploadManager
        self.origin: S3Origin
        self.upload_journal: UploadJournal
        self.telemetry: Telemetry
        self.warm_jobs: JobRegistry
        self.transfers: Transfers
        self.events: S3Events | None = None  # None if no source of events is configured
        self.refresher: Refresher | None = None  # None if changed objects are fetched at their next use
        self.listener: Listener
        self.admin: Listener
        self.s3: S3Endpoint | None = None  # None without an S3 endpoint
        loaded = loaded or LoadedConfig(settings)
        self.reloader = Reloader(loaded, read or (lambda: loaded), self._prepare, self.health)
        self._codings = AcceptedCodings(settings.origin.accept_encoding, coding_areas(settings))
        self.front_ends: FrontEnds | None = None  # None if this process accepts the connections
        self._admin: AdminServer
        self._server: Server | None = None
        self._summary: Summary
        self._parts: ServerParts
        self._renewed_parts: RenewedParts
        self._tracing: Tracing | None = None  # None if traces are off
        self._fleet: Fleet | None = None  # None without a bus

    @property
    def settings(self) -> Settings:
        """Return the settings in force."""
        return self._in_force.settings

    @property
    def _endpoint_name(self) -> str:
        """Return the name of the endpoint in all that is stored (docs/invariants.md#complete-cache-key)."""
        return self.origin.endpoint.name

    @property
    def listeners(self) -> tuple[Listener, ...]:
        """Return those that are built: for clients, for operators, for clients of S3."""
        of_s3 = None if self.s3 is None else self.s3.listener
        found = (getattr(self, "listener", None), getattr(self, "admin", None), of_s3)
        return tuple(listener for listener in found if listener is not None)

    @property
    def address(self) -> str:
        """Return the URL for clients."""
        return self.listener.address

    @property
    def admin_address(self) -> str:
        """Return the URL for operators."""
        return self.admin.address

    async def __aenter__(self) -> Self:
        try:
            await self._start()
        except BaseException:
            self._leave_sockets()
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        is_first, self.health.phase = self.health.phase is not Phase.STOPPING, Phase.STOPPING
        try:
            await self.incumbent.stop()
            if is_first:
                await self._wait_until_no_traffic_comes()
        finally:
            await self._stack.aclose()

    async def _wait_until_no_traffic_comes(self) -> None:
        """Serve for `server.stop_delay` more seconds, while load balancers learn that the proxy is not ready."""
        for generations in self._generations:
            generations.fast_path.adopt(None)  # its prepared heads keep connections open
        self.listener.begin_to_drain()
        if self.front_ends is not None:
            self.front_ends.begin_to_drain()
        if self.settings.server.stop_delay:
            await asyncio.sleep(self.settings.server.stop_delay)

    async def _start(self) -> None:
        settings, registry = self.settings, self._registry
        self._start_nursery()
        self._start_tracing()
        self.telemetry = Telemetry(
            registry,
            open_access_log(settings.access_log),
            self._clock,
            names_of(settings.access_log.fields),
            self._observe,
            self._curve(),
        )
        # It closes last, so that requests which a stop cancels have their lines as well.
        self._stack.callback(self.telemetry.close)
        self._stack.push_async_callback(self._close_rules)
        await self._start_origin()
        if self._takes_over:
            await self._take_over()
        await self._start_cache()
        await self._start_fleet()
        lag = LoopLag()
        self._build_figures(lag)
        self._start_warm_jobs()
        await self._start_events()
        await self._start_admin()
        self._start_watching(lag)
        self._start_aborting()
        stall_timeout = UPLOAD_STALL_TIMEOUT_S + settings.origin.read_timeout
        writer = ObjectWriter(self.cache, S3Uploader(self.origin, stall_timeout, self.upload_journal))
        await self._start_tus(writer)
        UploadCollector(registry, self.origin, self.upload_journal, self.upload_manager)
        self._parts = self._server_parts(writer)
        server = self._server = build_server(settings, self._pipeline, self._in_force.freshness.rules, self._parts)
        self.fast_path, self.listener = server.generations.fast_path, server.listener
        ServerCollector(registry, self.connection_limit, self.fast_path, self.fair_shares, server.headers)
        await self._start_listener(self.listener, accepts=not self._workers)
        await self._start_s3_endpoint()
        self._start_watching_certificates()
        await self._start_front_ends(server)
        self._renewed_parts = self._parts_to_renew(server)
        self._become_ready()
        self.reloader.started.set()
        await self._end_take_over()

    def _server_parts(self, writer: ObjectWriter) -> ServerParts:
        """Return what the servers for clients need of the rest."""
        return ServerParts(
            cache=self.cache,
            writer=writer,
            upload_manager=self.upload_manager,
            telemetry=self.telemetry,
            connections=self.connection_limit,
            shares=self.fair_shares,
            name=via.pseudonym(secrets.token_hex(8)),
            clock=self._clock,
            cache_clock=self.cache_assembly.clock,
            passed=self._passed,
            inherited=self._inherited,
            begin_trace=_begin_no_trace if self._tracing is None else self._tracing.tracer.begin_trace,
        )

    def _parts_to_renew(self, server: Server) -> RenewedParts:
        """Return what follows the settings of a reload."""
        return RenewedParts(
            in_force=self._in_force,
            server=server,
            s3=self.s3,
            server_parts=self._parts,
            admin=self._admin,
            cache_assembly=self.cache_assembly,
            cache_options=self._options,
            codings=self._codings,
            areas=self._areas,
            summary=self._summary,
            warm_jobs=self.warm_jobs,
            events=self.events,
            create_buckets=self._create_buckets,
            follow=self._adopt_in_front_ends,
        )

    def _become_ready(self) -> None:
        """Let load balancers send requests, or fill an empty cache before that if the settings say so."""
        wanted = self.settings.warm_start
        if wanted is None or self.cache.statistics().entries or self.settings.cache.mode == "observe":
            self.health.phase = Phase.SERVING
            return
        self.health.phase = Phase.WARMING
        tasks = TaskSet()
        tasks.start(self._warm(WarmStart(wanted, self.warm_jobs)), name="warm start")
        self._stack.push_async_callback(tasks.close)

    async def _warm(self, start: WarmStart) -> None:
        try:
            await start.run()
        finally:
            if self.health.phase is Phase.WARMING:
                self.health.phase = Phase.SERVING

    def _start_nursery(self) -> None:
        """Start what forks the front ends, if there are to be some. It imports all they need while the rest starts."""
        if not self._workers:
            return
        check_system(self._workers)
        if self._nursery is None:
            self._nursery = Nursery()
            self._stack.push_async_callback(asyncio.to_thread, self._nursery.close)

    def _start_tracing(self) -> None:
        """Start the traces if the settings ask for them. They end after the telemetry, which has the last requests."""
        if self.settings.tracing is not None:
            self._tracing = start_tracing(self.settings.tracing)
            self._stack.push_async_callback(asyncio.to_thread, self._tracing.export.close)
        TracingCollector(self._registry, self._tracing)

    def _curve(self) -> SizingCurve | Forecast:
        """Return what estimates other sizes of the cache: a forecast if the cache does not serve."""
        cache = self.settings.cache
        if cache.mode == "serve":
            return SizingCurve(cache.max_size)
        options = ForecastOptions(cache.max_size, cache.block_size, self.settings.origin.part_size, cache.idle_timeout)
        return Forecast(options)

    @property
    def _inherited(self) -> InheritedSockets:
        return InheritedSockets() if self._successor is None else self._successor.inherited

    async def _take_over(self) -> None:
        """Get the sockets of the process that serves now, and have it unlock the cache once nothing else is missing.

        Raises TakeOverFailed, and what the listeners would raise.
        """
        self._successor = successor = await Successor.begin(self.settings.cache.dir)
        if successor is None:
            return
        self._stack.callback(successor.close)
        server = self.settings.server
        sites = [*client_sites(server, self._passed, ProxyHeaders(())), admin_site(self.settings.admin)]
        sites += [] if self.settings.s3 is None else [s3_site(self.settings.s3)]
        for site in sites:
            if not successor.inherited.has(site.place):
                await asyncio.to_thread(lambda: ListenSockets(site.place).close())  # noqa: B023 - awaited at once
        if self._nursery is not None:
            await self._nursery.is_ready()  # connections wait from the release until front ends accept them
        await successor.request_release()

    @property
    def _generations(self) -> tuple[Generations, ...]:
        """Return what serves the requests of each listener for clients that is built."""
        servers = (self._server, self.s3)
        return tuple(server.generations for server in servers if server is not None)

    async def _end_take_over(self) -> None:
        """Let the process end that served before, and hand over to the next one when that comes."""
        self.incumbent = Incumbent(
            Tenure(
                self.health,
                self.listener,
                self.admin,
                None if self.s3 is None else self.s3.listener,
                self._generations,
                self.cache_assembly,
                self.upload_manager,
                self.upload_journal,
                self.warm_jobs,
                self.refresher,
                self.live_feed,
                self.front_ends,
                self._fleet,
                HANDED_OVER_TIMEOUT_S,
            )
        )
        self.incumbent.start()
        if self._successor is not None:
            await self._successor.report_serving()
            self._inherited.close(removes_files=True)
            self._successor = None

    def _leave_sockets(self) -> None:
        """After a take-over that failed, leave the files of Unix sockets to the process that goes on with them."""
        if self._successor is not None:
            for listener in self.listeners:
                listener.give_away()

    def _build_figures(self, lag: LoopLag) -> None:
        """Register the metrics of what has started, and build their summary."""
        registry = self._registry
        CacheCollector(registry, self.cache)
        RemovalCollector(registry, self.cache)
        OriginCollector(registry, self.origin)
        FleetCollector(registry, self._fleet)
        TrafficCollector(registry, self.cache, self.origin)
        HealthCollector(registry, self.health, lag)
        self._summary = Summary(
            self.settings, self.cache, self.origin, self.telemetry, self.health, time.monotonic, self._fleet
        )
        SummaryCollector(registry, self._summary)

    async def _start_listener(self, listener: Listener, *, accepts: bool = True) -> None:
        self._stack.push_async_callback(listener.stop)
        await listener.start(accepts=accepts)

    async def _start_s3_endpoint(self) -> None:
        """Serve clients of S3, if the settings have an endpoint for them. This process accepts their connections."""
        if self.settings.s3 is None:
            return
        rules = self._in_force.freshness.rules
        self.s3 = build_endpoint(self.settings, self.settings.s3, rules, self._parts, self.origin)
        self._stack.push_async_callback(self.s3.generations.close)
        await self._start_listener(self.s3.listener)

    async def _start_front_ends(self, server: Server) -> None:
        """Start the processes that accept connections in place of this one, if there are to be some."""
        if not self._workers:
            return
        assert self._nursery is not None
        assert isinstance(self.admin.server, ConnectionServer)
        self.front_ends = build_front_ends(
            self._stack,
            self._nursery,
            self._workers,
            self.settings,
            server,
            self._parts,
            self.admin.server,
            self.cache_assembly,
            clock_runs=self._elapsed is boottime,
        )
        await self.front_ends.start()  # settings and certificates that change meanwhile reach them as well

    def _adopt_in_front_ends(self) -> None:
        """Let front ends follow the present settings and files."""
        if self.front_ends is not None:
            self.front_ends.adopt(self.settings)

    async def catch_up(self) -> None:
        """Wait until the requests that front ends have served are counted."""
        if self.front_ends is not None:
            await self.front_ends.flush()

    async def _close_rules(self) -> None:
        await (self._pipeline if self._server is None else self._server.generations).close()

    async def _start_admin(self) -> None:
        live = LiveFigures(
            self.live_feed,
            self.cache,
            self.connection_limit,
            self.health,
            self.telemetry.totals,
            wall=self._clock,
        )
        self.transfers = Transfers(self.cache, __version__)
        parts = AdminParts(
            cache=self.cache,
            registry=self._registry,
            health=self.health,
            warm_jobs=self.warm_jobs,
            transfers=self.transfers,
            reload=self.reload,
            live=live,
            effective=lambda: self.reloader.loaded.effective,
            summary=self._summary,
            last_responses=self.last_responses,
            events=self.events,
            catch_up=self.catch_up,
            fleet=self._fleet,
        )
        self._admin = build_admin(self.settings, parts, self._inherited)
        self.admin = self._admin.listener
        await self._start_listener(self.admin)
        self._stack.callback(self.live_feed.close)  # before the listener stops, which waits for the streams
        tasks = TaskSet()
        tasks.start(live.run(), name="live figures")
        self._stack.push_async_callback(tasks.close)

    async def _start_origin(self) -> None:
        origin = self.settings.origin
        endpoint = origin.endpoint_url
        if endpoint == "embedded":
            buckets = sorted({mount.bucket for mount in self.settings.mounts})
            self.embedded = EmbeddedS3(buckets, seed=EXAMPLES)
            await self._stack.enter_async_context(self.embedded)
            endpoint = self.embedded.endpoint_url
        settings = with_demo_keys(origin) if self.embedded else origin
        origin_s3 = S3Origin(
            settings,
            endpoint,
            codings=self._codings,
            troubles=self.troubles,
            shares=self.fair_shares,
            share_of_one=self.settings.server.share_of_one,
            mount_of=self._areas.mount_of,
        )
        self.origin = await self._stack.enter_async_context(origin_s3)
        if self._tracing is not None:
            self.origin.calls.on_call = self._tracing.tracer.add_call
        if not self.embedded:
            await self._create_buckets(self.settings.mounts, ())

    async def _create_buckets(self, mounts: Sequence[MountSettings], before: Sequence[MountSettings]) -> None:
        """Create the buckets of `mounts` that those `before` do not have, if the settings ask for that."""
        if self.settings.origin.create_bucket or self.embedded:
            for bucket in sorted({mount.bucket for mount in mounts} - {mount.bucket for mount in before}):
                await self.origin.create_bucket(bucket)

    def _options(self) -> CacheOptions:
        return cache_options(self.settings, self._in_force.freshness, self._shares.hot, self._areas.mount_of)

    async def _start_cache(self) -> None:
        opened = partial(
            open_cache,
            self.settings.cache.dir,
            self.origin,
            self._options(),
            origin_name=self._endpoint_name,
            retries=self.origin.retries,
            wall=self._clock,
            elapsed=self._elapsed,
        )
        # A killed process and its front ends have the lock until the kernel has ended all of them.
        may_wait = self._takes_over or self._workers > 0
        until = asyncio.get_running_loop().time() + (LOCK_WAIT_S if may_wait else 0.0)
        while True:
            try:
                self.cache_assembly = await self._stack.enter_async_context(opened())
                break
            except CacheInUse:
                if asyncio.get_running_loop().time() >= until:
                    raise
            await asyncio.sleep(LOCK_STEP_S)
        self.cache = self.cache_assembly.cache
        folder = self.cache_assembly.store.folder
        self.upload_journal = UploadJournal(folder.root / "uploads.json", self._endpoint_name, folder.fd)
        self.upload_journal.open()

    async def _start_fleet(self) -> None:
        """Follow what other proxies announce, if the settings name a bus. No failure of the bus prevents the start."""
        if self.settings.bus is None:
            return
        self._fleet = open_fleet(self.settings.bus, self.cache_assembly, self.settings.server.port)
        self._stack.push_async_callback(self._fleet.stop)
        await self._fleet.start()

    async def _start_tus(self, writer: ObjectWriter) -> None:
        """Start the manager of resumable uploads. Without an upload route, it only removes those of earlier runs."""
        assembly = self.cache_assembly
        self.upload_manager = UploadManager(
            folder=UploadFolder(assembly.store.folder),
            origin=self.origin,
            store=writer.store,
            change=writer.change,
            space=StagingSpace(assembly.space.reserve, assembly.entries.budget),
            source=self._endpoint_name,
            boot=boot_id(),
            clock=assembly.clock,
            shares=self.fair_shares,
            share_of_one=self.settings.server.share_of_one,
            idle_since=self._uploads_kept_since,
        )
        await self.upload_manager.start()
        self._stack.push_async_callback(self.upload_manager.stop)

    def _uploads_kept_since(self) -> float:
        """Return the time by the cache's clock since which an unfinished upload must have received a byte."""
        settings = self.settings.uploads
        return math.inf if settings is None else self.cache_assembly.clock.ago(settings.expire_after)

    def _start_watching(self, lag: LoopLag) -> None:
        """Watch what does not report its failures to the troubles by itself, and how late the event loop is."""
        for watch in watches(self.origin, self.cache_assembly, self.telemetry, self._fleet):
            self.health.watch(watch)
        tasks = TaskSet()
        tasks.start(self.health.run(), name="health")
        tasks.start(lag.run(), name="lag of the event loop")
        self._stack.push_async_callback(tasks.close)

    def _start_watching_certificates(self) -> None:
        found = [tls for listener in self.listeners for tls in listener.tls]
        if not found:
            return
        TlsCollector(self._registry, found)
        self.certificate_watch = CertificateWatch(found, self.troubles, self._clock, self._adopt_in_front_ends)
        tasks = TaskSet()
        tasks.start(self.certificate_watch.run(), name="certificates")
        self._stack.push_async_callback(tasks.close)

    def _observe(self, requests: Sequence[FinishedRequest]) -> None:
        """Hand a batch of finished requests to what operators see of them."""
        self.live_feed.add(requests)
        self.last_responses.add(requests)
        if self._tracing is not None:
            self._tracing.tracer.add(requests)

    def reopen_log(self) -> None:
        self.telemetry.reopen()  # it exists, because the start opens the log before its first `await`

    async def reload(self, cause: str) -> ReloadOutcome:
        """Read the configuration and its files again. `cause` names what asked for that.

        Either all of it holds for the requests that begin later, or the configuration before goes on.
        """
        outcome = await self.reloader.reload(cause)
        if self.front_ends is not None:
            await self.front_ends.followed()
        return outcome

    async def _prepare(self, after: Settings) -> Renewal:
        """Build what new settings need. Raises what `build_renewal` does."""
        return await build_renewal(self._renewed_parts, after)

    def _start_warm_jobs(self) -> None:
        """Build what runs warm jobs. They end before the cache and the origin close."""
        lists = partial(list_objects, self.origin)
        places, part = Places(self.settings.mounts), self.settings.origin.part_size
        self.warm_jobs = JobRegistry(self.cache, lists, places, self._in_force.freshness.rules, part=part)
        self._stack.push_async_callback(self.warm_jobs.close)

    async def _start_events(self) -> None:
        """Start what takes events of S3. It ends before the cache closes."""
        assembly, wanted = self.cache_assembly, self.settings.invalidation
        if wanted is not None and wanted.refresh_rate is not None:
            self.refresher = Refresher(
                self.cache,
                lambda: self._in_force.freshness.rules,
                wanted.refresh_rate,
                self.settings.origin.part_size,
                time.monotonic,
            )
            self._stack.push_async_callback(self.refresher.close)
        self.events = await start_events(
            self._stack,
            self.settings,
            self.cache,
            assembly.store.folder.root,
            self.troubles,
            self._clock,
            lambda: assembly.store.ownership.is_held,
            _refresh_nothing if self.refresher is None else self.refresher.note,
        )
        EventCollector(self._registry, self.events, self.refresher)

    def _start_aborting(self) -> None:
        """Start to abort the multipart uploads that a kill left at S3. The start does not wait for that."""
        tasks = TaskSet()
        tasks.start(self.upload_journal.abort_abandoned(self.origin), name="abandoned uploads")
        self._stack.push_async_callback(tasks.close)


def _begin_no_trace() -> None:
    """Return None, because traces are off."""


def _refresh_nothing(_: Sequence[ObjectKey]) -> None:
    """Leave it to the next request of each object to fetch it."""
