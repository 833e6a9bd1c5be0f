"""Puts the server for clients together: handlers, application, fast path and listener."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from bucketfront.cache import Cache
from bucketfront.config.settings import Settings
from bucketfront.fair_share import FairShares
from bucketfront.http.path_rules import Rules
from bucketfront.server.application import Application
from bucketfront.server.client_application import RequestParts
from bucketfront.server.client_listener import DRAIN_TIMEOUT_S, client_sites, connection_options
from bucketfront.server.fast_path.fast_connection import FastConnectionServer
from bucketfront.server.fast_path.fast_path import FastPath
from bucketfront.server.fast_path.plain_rules import plain_rules
from bucketfront.server.generation import Generation, Generations
from bucketfront.server.handlers.objects import ObjectHandler
from bucketfront.server.handlers.tus_uploads import TusHandler
from bucketfront.server.handlers.uploads import UploadHandler
from bucketfront.server.http1.connection_limit import ConnectionLimit
from bucketfront.server.http1.inherited_sockets import InheritedSockets
from bucketfront.server.http1.listener import Listener
from bucketfront.server.http1.passed_sockets import PassedSockets
from bucketfront.server.http1.proxy_headers import ProxyHeaders
from bucketfront.server.object_writer import ObjectWriter
from bucketfront.server.pipeline import Pipeline
from bucketfront.server.telemetry.telemetry import Telemetry
from bucketfront.tus.manager import UploadManager


@dataclass(frozen=True, slots=True)
class ServerParts:
    """The objects of other packages that the server needs.

    `name` is the pseudonym of this process in Via. `clock` is wall time in seconds since the epoch, `cache_clock` the
    cache's time. `begin_trace` returns the id of a trace for a request that brought none, if it is sampled.
    """

    cache: Cache
    writer: ObjectWriter
    upload_manager: UploadManager
    telemetry: Telemetry
    connections: ConnectionLimit
    shares: FairShares
    name: str
    clock: Callable[[], float]
    cache_clock: Callable[[], float]
    passed: PassedSockets
    inherited: InheritedSockets
    begin_trace: Callable[[], str | None]

    @property
    def of_requests(self) -> RequestParts:
        """Return what each request needs."""
        return RequestParts(self.telemetry, self.clock, self.shares, self.name, self.begin_trace)


@dataclass(frozen=True, slots=True)
class Server:
    """The server for clients, which begins to accept with `listener.start`. `generations` has what serves requests."""

    listener: Listener
    generations: Generations
    headers: ProxyHeaders


def build_server(settings: Settings, pipeline: Pipeline, rules: Rules, parts: ServerParts) -> Server:
    """Return the server. Raises UnusableSetting for a certificate or a key that is of no use."""
    fast_path = FastPath(parts.cache, parts.telemetry, parts.cache_clock, parts.clock)
    generations = Generations(build_generation(settings, pipeline, rules, parts), fast_path)
    headers = ProxyHeaders(settings.server.front_networks)
    sites = [
        replace(site, inherited=parts.inherited.take(site.place))
        for site in client_sites(settings.server, parts.passed, headers)
    ]
    connections = FastConnectionServer(
        generations, parts.connections, parts.telemetry.refused, fast_path, **connection_options()
    )
    listener = Listener(connections, sites, parts.connections, DRAIN_TIMEOUT_S)
    return Server(listener, generations, headers)


def build_generation(settings: Settings, pipeline: Pipeline, rules: Rules, parts: ServerParts) -> Generation:
    """Return what serves requests under these settings."""
    tus = None if settings.uploads is None else TusHandler(parts.upload_manager, settings.uploads, parts.clock)
    application = Application(
        settings,
        ObjectHandler(parts.cache, rules, parts.clock, honor_no_cache=settings.freshness.honor_client_no_cache),
        UploadHandler(parts.writer, settings.uploads, parts.clock, parts.shares, settings.server.share_of_one),
        tus,
        pipeline,
        parts.of_requests,
    )
    return Generation(application, plain_rules(settings, pipeline, rules, parts.cache), pipeline)
