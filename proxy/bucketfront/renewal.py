"""What a reload builds beside what serves, and how it takes its place (docs/operations.md#reload)."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from bucketfront import process_log
from bucketfront.admin.api import AdminServer
from bucketfront.admin.summary import Summary
from bucketfront.cache import CacheAssembly, CacheOptions
from bucketfront.cache_options import coding_areas
from bucketfront.config.freshness_policy import FreshnessPolicy
from bucketfront.config.mount_areas import MountAreas
from bucketfront.config.mount_settings import MountSettings
from bucketfront.config.settings import Settings
from bucketfront.s3.accepted_codings import AcceptedCodings
from bucketfront.s3_events.assembly import S3Events
from bucketfront.server.access.clients import Clients
from bucketfront.server.generation import Generation
from bucketfront.server.http1.server_tls import ServerTls
from bucketfront.server.pipeline import build_pipeline
from bucketfront.server.s3_endpoint.assembly import S3Endpoint, build_endpoint_generation
from bucketfront.server.server import Server, ServerParts, build_generation
from bucketfront.server.telemetry.access_log import AccessLog, open_access_log
from bucketfront.server.telemetry.logged_fields import names_of
from bucketfront.warm.places import Places
from bucketfront.warm.registry import JobRegistry

CreateBuckets = Callable[[Sequence[MountSettings], Sequence[MountSettings]], Awaitable[None]]
"""Creates the buckets of some mounts that others do not have, if the settings ask for that."""


@dataclass(slots=True)
class InForce:
    """The settings in force. They are always both of one configuration."""

    settings: Settings
    freshness: FreshnessPolicy


@dataclass(frozen=True, slots=True)
class RenewedParts:
    """The parts of a running proxy that follow new settings.

    `cache_options` returns those of the settings in force. `follow` lets other processes follow them.
    """

    in_force: InForce
    server: Server
    s3: S3Endpoint | None
    server_parts: ServerParts
    admin: AdminServer
    cache_assembly: CacheAssembly
    cache_options: Callable[[], CacheOptions]
    codings: AcceptedCodings
    areas: MountAreas
    summary: Summary
    warm_jobs: JobRegistry
    events: S3Events | None
    create_buckets: CreateBuckets
    follow: Callable[[], None]


@dataclass(frozen=True, eq=False, slots=True)
class Renewal:
    """What a reload has built. `tls` has the present ones and those that they adopt."""

    parts: RenewedParts
    settings: Settings
    freshness: FreshnessPolicy
    generation: Generation
    s3_generation: Generation | None
    tls: tuple[tuple[ServerTls, ServerTls], ...]
    access_log: AccessLog | None  # None if the log stays as it is

    def apply(self) -> None:
        """Let it take its place. All requests that begin later get the new settings.

        There is no `await` in here, and nothing that a file, the disk or S3 could refuse.
        """
        parts, before, after = self.parts, self.parts.in_force.settings, self.settings
        parts.in_force.settings, parts.in_force.freshness = after, self.freshness
        for present, renewed in self.tls:
            present.adopt(renewed)
        parts.codings.change(coding_areas(after))
        parts.areas.adopt(after.mounts)
        parts.summary.adopt(after)
        if (after.freshness, after.cache) != (before.freshness, before.cache):
            parts.cache_assembly.change(parts.cache_options())
        fronts = after.server.front_networks
        parts.server.headers.believe(fronts)
        parts.server_parts.connections.has_share = Clients(fronts).has_share
        parts.server.generations.replace(self.generation)
        if parts.s3 is not None and self.s3_generation is not None:
            parts.s3.generations.replace(self.s3_generation)
        parts.follow()
        parts.warm_jobs.adopt(Places(after.mounts), self.freshness.rules)
        if parts.events is not None:
            parts.events.adopt(after.mounts)
        parts.admin.application.adopt(after)
        if self.access_log is not None:
            parts.server_parts.telemetry.change_log(self.access_log, names_of(after.access_log.fields))
        if after.log != before.log:
            process_log.apply(after.log)

    async def discard(self) -> None:
        """Close it instead."""
        await self.generation.rules.close()
        if self.s3_generation is not None:
            await self.s3_generation.rules.close()
        if self.access_log is not None:
            await asyncio.to_thread(self.access_log.close)


async def build_renewal(parts: RenewedParts, after: Settings) -> Renewal:
    """Build what new settings need. Raises UnusableSetting for a file, and OriginErrors for a bucket to create."""
    renewal = await asyncio.to_thread(_build, parts, after)
    try:
        await parts.create_buckets(after.mounts, parts.in_force.settings.mounts)
    except BaseException:
        await renewal.discard()
        raise
    return renewal


def _build(parts: RenewedParts, after: Settings) -> Renewal:
    """Return the renewal, without the buckets. Does I/O on files. Raises UnusableSetting."""
    before = parts.in_force
    of_s3 = () if parts.s3 is None else parts.s3.listener.tls
    present = (*parts.server.listener.tls, *parts.admin.listener.tls, *of_s3)
    tls = tuple((one, ServerTls(settings, at)) for at, settings in after.all_tls for one in present if one.at == at)
    is_same = after.freshness == before.settings.freshness
    freshness = before.freshness if is_same else FreshnessPolicy(after.freshness)
    generation = build_generation(after, build_pipeline(after), freshness.rules, parts.server_parts)
    s3_generation = None
    if parts.s3 is not None and after.s3 is not None:
        s3_generation = build_endpoint_generation(after, after.s3, freshness.rules, parts.server_parts, parts.s3.origin)
    # The log comes last, so that nothing has to be closed if another part is of no use.
    access_log = None if after.access_log == before.settings.access_log else open_access_log(after.access_log)
    return Renewal(parts, after, freshness, generation, s3_generation, tls, access_log)
