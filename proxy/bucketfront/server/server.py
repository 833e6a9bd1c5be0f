"""Puts the server for clients together: handlers, application, fast path and listener."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bucketfront.cache import Cache
from bucketfront.config.listener_settings import ListenerSettings, ServerSettings
from bucketfront.config.settings import Settings
from bucketfront.fair_share import FairShares
from bucketfront.http.path_rules import Rules
from bucketfront.server.application import Application
from bucketfront.server.client_address import ClientAddresses
from bucketfront.server.cors import Cors
from bucketfront.server.fast_path.fast_connection import FastConnectionServer
from bucketfront.server.fast_path.fast_path import FastPath, PlainRules
from bucketfront.server.fast_path.prepared import LeaseFinder, PreparedResponses
from bucketfront.server.fast_path.recogniser import UNKEYED_FIELDS, recogniser
from bucketfront.server.generation import Generation, Generations
from bucketfront.server.handlers.objects import ObjectHandler
from bucketfront.server.handlers.tus_uploads import TusHandler
from bucketfront.server.handlers.uploads import UploadHandler
from bucketfront.server.http1.binding import TcpPlace
from bucketfront.server.http1.connection import BODY_BUFFER_BYTES, MAX_FIELD_BYTES, MAX_FIELDS, MAX_TARGET_BYTES
from bucketfront.server.http1.connection_limit import ConnectionLimit
from bucketfront.server.http1.inherited_sockets import InheritedSockets
from bucketfront.server.http1.listen_sockets import ListenPlace
from bucketfront.server.http1.listener import Listener, ListenSite
from bucketfront.server.http1.passed_sockets import PassedPlace, PassedSockets
from bucketfront.server.http1.proxy_headers import ProxyHeaders
from bucketfront.server.http1.server_tls import ServerTls
from bucketfront.server.http1.unix_socket import UnixPlace
from bucketfront.server.object_writer import ObjectWriter
from bucketfront.server.pipeline import Pipeline
from bucketfront.server.router import Router
from bucketfront.server.telemetry.logged_fields import names_of
from bucketfront.server.telemetry.telemetry import Telemetry
from bucketfront.tus.manager import UploadManager

DRAIN_TIMEOUT_S = 25.0  # for running requests to end at a stop; orchestrators kill a process after 30 s
KEEP_ALIVE_TIMEOUT_S = 75.0  # between two requests of a connection; longer than the 60 s of common load balancers

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ServerParts:
    """The objects of other packages that the server needs.

    `clock` is wall time in seconds since the epoch, and `cache_clock` is the cache's time. `begin_trace` returns the id
    of a trace for a request that brought none, if it is sampled.
    """

    cache: Cache
    writer: ObjectWriter
    upload_manager: UploadManager
    telemetry: Telemetry
    connections: ConnectionLimit
    shares: FairShares
    clock: Callable[[], float]
    cache_clock: Callable[[], float]
    passed: PassedSockets
    inherited: InheritedSockets
    begin_trace: Callable[[], str | None]


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
    listener = client_listener(generations, fast_path, sites, parts.connections, parts.telemetry)
    return Server(listener, generations, headers)


def build_generation(settings: Settings, pipeline: Pipeline, rules: Rules, parts: ServerParts) -> Generation:
    """Return what serves requests under these settings."""
    tus = None if settings.uploads is None else TusHandler(parts.upload_manager, settings.uploads, parts.clock)
    application = Application(
        settings,
        ObjectHandler(parts.cache, rules, parts.clock, honor_no_cache=settings.freshness.honor_client_no_cache),
        UploadHandler(parts.writer, settings.uploads, parts.clock, parts.shares, settings.server.share_of_one),
        tus,
        parts.telemetry,
        pipeline,
        parts.clock,
        parts.shares,
        parts.begin_trace,
    )
    return Generation(application, plain_rules(settings, pipeline, rules, parts.cache), pipeline)


def plain_rules(settings: Settings, pipeline: Pipeline, rules: Rules, cache: LeaseFinder) -> PlainRules | None:
    """Return the rules of the fast path, or None if it is off."""
    if not settings.server.fast_path or settings.server.timing:
        return None  # only the ordinary path measures the phases for Server-Timing
    if settings.cache.mode != "serve":
        return None  # it serves from the cache alone
    if unkeyed := pipeline.reads & UNKEYED_FIELDS:
        log.info("the fast path is off: a stage reads %s", ", ".join(sorted(unkeyed)))
        return None
    router, cors = Router(settings.mounts, settings.uploads), Cors(settings.cors)
    prepared = PreparedResponses(cache, router, cors, rules, pipeline)
    recognise = recogniser(pipeline.reads, pipeline.plain_hosts, names_of(settings.access_log.fields))
    return PlainRules(recognise, prepared, ClientAddresses(settings.server.trusted_proxies))


def connection_options() -> dict[str, Any]:
    """Return the options of aiohttp's connections, for the listeners of all processes."""
    return {
        "handler_cancellation": True,  # a client that leaves frees at once what its read waited for
        "access_log": None,
        "read_bufsize": BODY_BUFFER_BYTES,
        "auto_decompress": False,  # a body is stored as it was sent
        "keepalive_timeout": KEEP_ALIVE_TIMEOUT_S,
        "max_line_size": MAX_TARGET_BYTES,
        "max_field_size": MAX_FIELD_BYTES,
        "max_headers": MAX_FIELDS,
    }


def client_listener(
    handler: Generations,
    fast_path: FastPath,
    sites: Sequence[ListenSite],
    connections: ConnectionLimit,
    telemetry: Telemetry,
) -> Listener:
    """Return the listener for clients."""
    connection_server = FastConnectionServer(handler, connections, telemetry.refused, fast_path, **connection_options())
    return Listener(connection_server, sites, connections, DRAIN_TIMEOUT_S)


def client_sites(settings: ServerSettings, passed: PassedSockets, headers: ProxyHeaders) -> list[ListenSite]:
    """Return where the listener for clients is to be. Raises UnusableSetting for a certificate that is of no use."""
    if unused := passed.by_name.keys() - {one.systemd for one in settings.listeners}:
        log.warning(
            "systemd has passed %s, which no listener of server.listeners names: clients wait there in vain",
            ", ".join(sorted(unused)),
        )
    shared = None if settings.tls is None else ServerTls(settings.tls, ("server", "tls"))
    found = []
    if (place := first_place(settings)) is not None:
        found.append(ListenSite(place, shared, headers=headers if settings.proxy_protocol else None))
    for number, one in enumerate(settings.listeners):
        own = None if one.tls is None else ServerTls(one.tls, ("server", "listeners", number, "tls"))
        found.append(
            ListenSite(
                place_of(one, number, passed),
                None if one.plain else own or shared,
                has_tls_on_unix=own is not None,
                headers=headers if one.proxy_protocol else None,
            )
        )
    return found


def first_place(settings: ServerSettings) -> TcpPlace | None:
    """Return the place of the first listener for clients. Returns None if the settings leave it out."""
    return None if settings.port is None else TcpPlace(settings.host, settings.port, "server")


def place_of(settings: ListenerSettings, number: int, passed: PassedSockets) -> ListenPlace:
    """Return the place of a further listener. `number` is its position in `server.listeners`."""
    if settings.unix is not None:
        mode = int(settings.mode, 8)
        return UnixPlace(Path(settings.unix), mode, settings.owner, settings.group, number)
    if settings.systemd is not None:
        return PassedPlace(settings.systemd, passed, number)
    assert settings.host is not None
    assert settings.port is not None
    return TcpPlace(settings.host, settings.port, "server", number=number)
