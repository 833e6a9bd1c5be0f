"""The whole configuration of bucketfront, typed and checked, as frozen values.

Each key has one meaning and one spelling, and an unknown key is an error.
Checks touch neither the disk nor the network nor the environment; `bucketfront.config.loader` does that.
A `Duration` is in seconds and a `Size` in bytes.
"""

from typing import Annotated

from pydantic import Field, ValidationInfo, field_validator

from bucketfront.config.access_settings import PUBLIC, AccessRule, RuleName
from bucketfront.config.automatic_workers import automatic_workers
from bucketfront.config.bucket_name import misplaced
from bucketfront.config.bus_settings import BusSettings
from bucketfront.config.cache_settings import CacheSettings
from bucketfront.config.freshness_settings import FreshnessSettings
from bucketfront.config.invalidation_settings import InvalidationSettings
from bucketfront.config.listen_host import is_loopback, overlap
from bucketfront.config.listener_settings import AccessLogSettings, AdminSettings, CorsSettings, ServerSettings
from bucketfront.config.log_settings import LogSettings
from bucketfront.config.mount_settings import MountSettings, UploadSettings
from bucketfront.config.origin_settings import OriginSettings
from bucketfront.config.pricing_settings import PricingSettings
from bucketfront.config.problems import Loc
from bucketfront.config.quantities import format_size
from bucketfront.config.s3_settings import ALL_BUCKETS, S3Settings
from bucketfront.config.section import Section, SettingError
from bucketfront.config.tls_settings import TlsSettings
from bucketfront.config.tracing_settings import TracingSettings
from bucketfront.config.warm_start_settings import WarmStartSettings


class Settings(Section):
    """The root of the configuration. The order of the fields counts: a check sees only the fields above its own."""

    server: ServerSettings = ServerSettings()
    admin: AdminSettings = Field(default=AdminSettings(), validate_default=True)
    origin: OriginSettings = OriginSettings()
    access: dict[RuleName, AccessRule] = Field(default_factory=dict)
    mounts: Annotated[tuple[MountSettings, ...], Field(min_length=1)]
    uploads: UploadSettings | None = None
    s3: S3Settings | None = None
    cache: CacheSettings = Field(default=CacheSettings(), validate_default=True)
    freshness: FreshnessSettings = FreshnessSettings()
    invalidation: InvalidationSettings | None = None
    cors: CorsSettings = CorsSettings()
    access_log: AccessLogSettings = AccessLogSettings()
    log: LogSettings = LogSettings()
    pricing: PricingSettings = PricingSettings()
    tracing: TracingSettings | None = None
    bus: BusSettings | None = None
    warm_start: WarmStartSettings | None = None

    @property
    def all_tls(self) -> list[tuple[Loc, TlsSettings]]:
        """Return the TLS of all listeners, each with its place."""
        admin = [] if self.admin.tls is None else [(("admin", "tls"), self.admin.tls)]
        s3 = [] if self.s3 is None or self.s3.tls is None else [(("s3", "tls"), self.s3.tls)]
        return [*self.server.all_tls, *admin, *s3]

    @property
    def has_fast_path(self) -> bool:
        """Return whether plain hits are served before the HTTP parser sees them."""
        # It measures no phases for Server-Timing, and it serves from the cache alone.
        return self.server.fast_path and not self.server.timing and self.cache.mode == "serve"

    @property
    def front_ends(self) -> int:
        """Return the number of processes that accept connections in place of the owner, 0 if it does that itself."""
        workers = self.server.workers
        if workers == "auto":
            workers = automatic_workers() if self.has_fast_path else 1
        return 0 if workers == 1 else workers

    @field_validator("admin")
    @classmethod
    def _port_of_its_own(cls, admin: AdminSettings, info: ValidationInfo) -> AdminSettings:
        server = info.data.get("server")
        if server is None or admin.port == 0:
            return admin
        if server.port == admin.port and overlap(server.host, admin.host):
            raise SettingError(
                "must be another port than server.port: each listener needs its own",
                ("admin", "port"),
                ("server", "port"),
            )
        for number, one in enumerate(server.listeners):
            if one.port == admin.port and one.host is not None and overlap(one.host, admin.host):
                raise SettingError(
                    f"must be another port than server.listeners[{number}].port: each listener needs its own",
                    ("admin", "port"),
                    ("server", "listeners", number, "port"),
                )
        return admin

    @field_validator("access")
    @classmethod
    def _client_certificates_are_taken(
        cls, access: dict[str, AccessRule], info: ValidationInfo
    ) -> dict[str, AccessRule]:
        server = info.data.get("server")
        takes = server is None or any(tls.client_ca is not None for _, tls in server.all_tls)
        for name, rule in access.items():
            if rule.client_certificate is not None and not takes:
                raise SettingError(
                    "needs server.tls with client_ca and client_certificates: no client has a certificate without it",
                    ("access", name, "client_certificate"),
                    ("server", "tls"),
                )
        return access

    @field_validator("mounts")
    @classmethod
    def _distinct_paths(cls, mounts: tuple[MountSettings, ...]) -> tuple[MountSettings, ...]:
        first: dict[str, int] = {}
        for number, mount in enumerate(mounts):
            if first.setdefault(mount.path, number) != number:
                earlier = first[mount.path]
                raise SettingError(
                    f"the same path as mounts[{earlier}]: each mount needs its own",
                    ("mounts", number, "path"),
                )
        return mounts

    @field_validator("mounts")
    @classmethod
    def _one_coding_of_each_key(
        cls, mounts: tuple[MountSettings, ...], info: ValidationInfo
    ) -> tuple[MountSettings, ...]:
        origin = info.data.get("origin")
        default = None if origin is None else origin.accept_encoding
        first: dict[tuple[str, str], int] = {}
        for number, mount in enumerate(mounts):
            earlier = first.setdefault((mount.bucket, mount.prefix), number)
            if (mounts[earlier].accept_encoding or default) != (mount.accept_encoding or default):
                raise SettingError(
                    f"must be that of mounts[{earlier}]: both have the same objects",
                    ("mounts", number, "accept_encoding"),
                    ("mounts", earlier, "accept_encoding"),
                )
        return mounts

    @field_validator("mounts")
    @classmethod
    def _buckets_of_the_endpoint(
        cls, mounts: tuple[MountSettings, ...], info: ValidationInfo
    ) -> tuple[MountSettings, ...]:
        origin = info.data.get("origin")
        for number, mount in enumerate(mounts):
            if origin is not None and (reason := misplaced(mount.bucket, origin.endpoint_url)) is not None:
                raise SettingError(reason, ("mounts", number, "bucket"), ("origin", "endpoint_url"))
        return mounts

    @field_validator("mounts")
    @classmethod
    def _rules_exist(cls, mounts: tuple[MountSettings, ...], info: ValidationInfo) -> tuple[MountSettings, ...]:
        rules = info.data.get("access")
        if rules is None:
            return mounts
        for number, mount in enumerate(mounts):
            for key, names in (("read", mount.read), ("write", mount.write or ())):
                for position, name in enumerate(names):
                    if name != PUBLIC and name not in rules:
                        known = ", ".join((PUBLIC, *rules))
                        raise SettingError(
                            f"no rule of access has this name: {known}", ("mounts", number, key, position)
                        )
        return mounts

    @field_validator("mounts")
    @classmethod
    def _writes_beyond_loopback(
        cls, mounts: tuple[MountSettings, ...], info: ValidationInfo
    ) -> tuple[MountSettings, ...]:
        server = info.data.get("server")
        for number, mount in enumerate(mounts):
            takes = mount.writing_methods
            if server is not None and not server.is_local and takes and mount.write is None:
                raise SettingError(
                    f"needed, because {_reached(server)} and the mount takes {', '.join(takes)}: name rules of"
                    " access, or [public] if all clients may write",
                    ("mounts", number, "write"),
                    ("mounts", number, "methods"),
                )
        return mounts

    @field_validator("uploads")
    @classmethod
    def _mount_exists(cls, uploads: UploadSettings | None, info: ValidationInfo) -> UploadSettings | None:
        mounts = info.data.get("mounts")
        if uploads is not None and mounts is not None:
            paths = [mount.path for mount in mounts]
            if uploads.mount not in paths:
                raise SettingError(
                    f"must be the path of a mount: {', '.join(paths)}", ("uploads", "mount"), ("uploads",)
                )
            server, number = info.data.get("server"), paths.index(uploads.mount)
            if server is not None and not server.is_local and mounts[number].write is None:
                raise SettingError(
                    f"needed, because {_reached(server)} and uploads go into the mount: name rules of access,"
                    " or [public] if all clients may write",
                    ("mounts", number, "write"),
                    ("uploads",),
                )
        return uploads

    @field_validator("s3")
    @classmethod
    def _has_port_and_buckets(cls, s3: S3Settings | None, info: ValidationInfo) -> S3Settings | None:
        if s3 is None:
            return None
        server, admin, mounts = info.data.get("server"), info.data.get("admin"), info.data.get("mounts")
        for name, other in (("server", server), ("admin", admin)):
            if other is not None and s3.port != 0 and s3.port == other.port and overlap(s3.host, other.host):
                raise SettingError(
                    f"must be another port than {name}.port: each listener needs its own",
                    ("s3", "port"),
                    (name, "port"),
                )
        served = frozenset(mount.bucket for mount in mounts or ())
        for at, grant in s3.grants if mounts is not None and s3.buckets == "mounts" else ():
            if missing := sorted({*grant.buckets} - served - {ALL_BUCKETS}):
                raise SettingError(
                    f'{missing[0]} is the bucket of no mount: add one, or set s3.buckets to "*"', (*at, "buckets")
                )
        return s3

    @field_validator("cache")
    @classmethod
    def _parts_of_whole_blocks(cls, cache: CacheSettings, info: ValidationInfo) -> CacheSettings:
        origin = info.data.get("origin")
        if origin is not None and origin.part_size % cache.block_size:
            raise SettingError(
                f"must be a multiple of cache.block_size, {format_size(cache.block_size)}",
                ("origin", "part_size"),
                ("cache", "block_size"),
            )
        return cache


def _reached(server: ServerSettings) -> str:
    """Return which listener other machines may reach."""
    if server.port is not None and not is_loopback(server.host):
        return "server.host is not loopback"
    number = next(number for number, one in enumerate(server.listeners) if not one.is_local)
    return f"other machines may reach server.listeners[{number}]"
