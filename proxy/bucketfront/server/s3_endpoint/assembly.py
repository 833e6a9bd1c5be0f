"""Puts the S3 endpoint together, and builds what a reload replaces of it."""

from dataclasses import dataclass, replace

from bucketfront.config.mount_settings import UploadSettings
from bucketfront.config.s3_settings import S3Settings
from bucketfront.config.settings import Settings
from bucketfront.http.path_rules import Rules
from bucketfront.server.client_listener import DRAIN_TIMEOUT_S, connection_options
from bucketfront.server.fast_path.fast_connection import FastConnectionServer
from bucketfront.server.fast_path.fast_path import FastPath
from bucketfront.server.generation import Generation, Generations
from bucketfront.server.handlers.objects import ObjectHandler
from bucketfront.server.handlers.uploads import UploadHandler
from bucketfront.server.http1.binding import TcpPlace
from bucketfront.server.http1.listener import Listener, ListenSite
from bucketfront.server.http1.server_tls import ServerTls
from bucketfront.server.inner_mounts import InnerMounts
from bucketfront.server.s3_endpoint.authorizations import Authorizations
from bucketfront.server.s3_endpoint.endpoint_application import MOUNT
from bucketfront.server.s3_endpoint.fast_reads import fast_rules
from bucketfront.server.s3_endpoint.forwarded_operations import ForwardedOperations, ForwardingOrigin
from bucketfront.server.s3_endpoint.key_ring import KeyRing
from bucketfront.server.s3_endpoint.passthrough_application import PassthroughApplication
from bucketfront.server.s3_endpoint.permissions import Permissions
from bucketfront.server.s3_endpoint.s3_application import S3Application
from bucketfront.server.server import ServerParts


@dataclass(frozen=True, slots=True)
class S3Endpoint:
    """The server for clients of S3, which begins to accept with `listener.start`."""

    listener: Listener
    generations: Generations
    origin: ForwardingOrigin


def build_endpoint(
    settings: Settings, s3: S3Settings, rules: Rules, parts: ServerParts, origin: ForwardingOrigin
) -> S3Endpoint:
    """Return the endpoint. Raises UnusableSetting for a certificate or a key that is of no use."""
    fast_path = FastPath(parts.cache, parts.telemetry, parts.cache_clock, parts.clock)
    generations = Generations(build_endpoint_generation(settings, s3, rules, parts, origin), fast_path)
    connections = FastConnectionServer(
        generations, parts.connections, parts.telemetry.refused, fast_path, **connection_options()
    )
    site = s3_site(s3)
    site = replace(site, inherited=parts.inherited.take(site.place))
    return S3Endpoint(Listener(connections, (site,), parts.connections, DRAIN_TIMEOUT_S), generations, origin)


def build_endpoint_generation(
    settings: Settings, s3: S3Settings, rules: Rules, parts: ServerParts, origin: ForwardingOrigin
) -> Generation:
    """Return what serves requests under these settings."""
    buckets = None if s3.buckets == "*" else frozenset(mount.bucket for mount in settings.mounts)
    limits = settings.uploads or UploadSettings()
    objects = ObjectHandler(
        parts.cache, rules, parts.clock, honor_no_cache=settings.freshness.honor_client_no_cache, is_s3=True
    )
    share = settings.server.share_of_one
    uploads = UploadHandler(parts.writer, settings.uploads, parts.clock, parts.shares, share, deletes_versions=True)
    forwarded = ForwardedOperations(origin, parts.writer, limits.max_size, limits.deadline)
    keys = KeyRing(s3, parts.clock)
    if s3.mode == "passthrough":
        memory = Authorizations(s3.authorization_ttl, parts.clock, parts.cache_clock)
        passthrough = PassthroughApplication(
            settings, s3, buckets, memory, parts.cache, objects, uploads, forwarded, parts.of_requests
        )
        return Generation(passthrough, None, keys)  # S3 decides on each request, so none is served without it
    permissions = Permissions(buckets, InnerMounts(settings.mounts))
    application = S3Application(settings, s3, permissions, keys, objects, uploads, forwarded, parts.of_requests)
    return Generation(application, fast_rules(settings, rules, parts.cache, keys, permissions, MOUNT), keys)


def s3_site(s3: S3Settings) -> ListenSite:
    """Return the place of the listener, with its TLS. Raises UnusableSetting."""
    return ListenSite(s3_place(s3), None if s3.tls is None else ServerTls(s3.tls, ("s3", "tls")))


def s3_place(s3: S3Settings) -> TcpPlace:
    """Return where the listener is to be."""
    return TcpPlace(s3.host, s3.port, "s3")
