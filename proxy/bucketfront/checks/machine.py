"""Check what the start takes of this machine: descriptors, files, ports, the cache folder and its disk.

Each check calls the function by which the start itself fails or not, and nothing is left behind.
"""

import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from bucketfront.admin.api import admin_place
from bucketfront.cache import inspect
from bucketfront.checks.result import CheckResult, failed, fine, warning
from bucketfront.checks.running_proxy import runs_with
from bucketfront.config.cache_settings import CacheSettings
from bucketfront.config.listener_settings import AccessLogSettings
from bucketfront.config.problems import Loc
from bucketfront.config.quantities import format_share, format_size
from bucketfront.config.settings import Settings
from bucketfront.config.tls_settings import TlsSettings
from bucketfront.errors import CacheInUse, CannotListen, ConfigError, StoreError, UnusableSetting
from bucketfront.front_end.nursery import check_system
from bucketfront.server.access.rules import build_access
from bucketfront.server.client_listener import first_place, place_of
from bucketfront.server.http1 import descriptors
from bucketfront.server.http1.listen_sockets import ListenPlace, ListenSockets
from bucketfront.server.http1.passed_sockets import PassedPlace, PassedSockets
from bucketfront.server.http1.server_tls import ServedCertificate, ServerTls
from bucketfront.server.http1.unix_socket import UnixPlace
from bucketfront.server.inner_mounts import InnerMounts
from bucketfront.server.s3_endpoint.assembly import s3_place
from bucketfront.server.telemetry.access_log import probe_access_log
from bucketfront.tracing.assembly import check_installed

DAY_S = 86_400
MIN_BLOCKS = 4  # fewer blocks of room are none: as the least `cache.max_size`

Explain = Callable[[UnusableSetting], str]


def check_machine(settings: Settings, explain: Explain, config: Path | None) -> Iterator[CheckResult]:
    """Yield the results. `explain` returns the message of an error with the place of its setting.

    `config` is the configuration file. A proxy that runs with it may have the ports and the folder.
    """
    folder, own = _cache(settings.cache, config)
    yield _descriptors(settings)
    yield _workers(settings, explain)
    yield _access_log(settings.access_log, explain)
    if settings.access:
        yield _access(settings, explain)
    for at, tls in settings.all_tls:
        yield from _tls(tls, at, explain)
    if (place := first_place(settings.server)) is not None:
        yield _place("client port", place, explain, own)
    for number, listener in enumerate(settings.server.listeners):
        yield _further(place_of(listener, number, PassedSockets()), explain, own)
    if settings.s3 is not None:
        yield _place("s3 port", s3_place(settings.s3), explain, own)
    yield _place("admin port", admin_place(settings.admin), explain, own)
    if settings.tracing is not None:
        yield _tracing(explain)
    yield from folder
    if (notice := settings.cache.mode_notice) is not None:
        yield warning("cache mode", notice)


def _descriptors(settings: Settings) -> CheckResult:
    subject = "open files"
    descriptors.raise_limit()
    limit = descriptors.limit()
    try:
        shares = descriptors.shares(limit, settings.origin.max_connections)
    except ConfigError as error:
        return failed(subject, str(error))
    return fine(subject, f"{limit} at most, for {shares.connections} clients at a time")


def _workers(settings: Settings, explain: Explain) -> CheckResult:
    front_ends = settings.front_ends
    try:
        check_system(front_ends)
    except UnusableSetting as error:
        return failed("workers", explain(error))
    chosen = "chosen for this machine" if settings.server.workers == "auto" else "as configured"
    if not front_ends:
        return fine("workers", f"one process serves, {chosen}")
    return fine("workers", f"{front_ends} processes serve hits beside the owner of the cache, {chosen}")


def _access_log(settings: AccessLogSettings, explain: Explain) -> CheckResult:
    subject = "access log"
    try:
        probe_access_log(settings)
    except UnusableSetting as error:
        return failed(subject, explain(error), settings.path)
    return fine(subject, "standard output" if settings.path == "-" else "writable", settings.path)


def _tracing(explain: Explain) -> CheckResult:
    try:
        check_installed()
    except UnusableSetting as error:
        return failed("tracing", explain(error))
    return fine("tracing", "OpenTelemetry is installed")


def _access(settings: Settings, explain: Explain) -> CheckResult:
    subject = "access"
    try:
        build_access(settings, InnerMounts(settings.mounts))
    except UnusableSetting as error:
        return failed(subject, explain(error))
    unused = settings.access.keys() - {
        name for mount in settings.mounts for name in (*mount.read, *(mount.write or ()))
    }
    if unused:
        return warning(subject, f"no mount names the rules {', '.join(sorted(unused))}")
    return fine(subject, f"rules: {', '.join(settings.access)}")


def _tls(settings: TlsSettings, at: Loc, explain: Explain) -> Iterator[CheckResult]:
    subject = "TLS certificate"
    try:
        certificates = ServerTls(settings, at).loaded.certificates
    except UnusableSetting as error:
        yield failed(subject, explain(error), str(settings.certificate))
        return
    now = time.time()
    for certificate in certificates:
        yield _certificate(certificate, now)


def _certificate(certificate: ServedCertificate, now: float) -> CheckResult:
    subject, name = "TLS certificate", str(certificate.path)
    if (trouble := certificate.trouble(now)) is not None:
        return failed(subject, trouble, name)
    message = f"valid for {int((certificate.not_after - now) / DAY_S)} days"
    if certificate.ends_soon(now):
        return warning(subject, f"{message} only: renew it", name)
    return fine(subject, message, name)


def _further(place: ListenPlace, explain: Explain, own: int | None) -> CheckResult:
    subject = "further listener"
    if isinstance(place, PassedPlace):
        return fine(subject, "systemd passes its sockets at the start", str(place))
    found = _place(subject, place, explain, own)
    if found.is_fine and isinstance(place, UnixPlace) and place.mode & stat.S_IWOTH:
        return warning(
            subject, f"server.listeners[{place.number}].mode lets all users of this machine connect", str(place)
        )
    return found


def _place(subject: str, place: ListenPlace, explain: Explain, own: int | None) -> CheckResult:
    name = str(place)
    try:
        bound = ListenSockets(place)
    except CannotListen as error:
        if own is not None and error.at[-1] in ("port", "unix") and error.process in (own, None):
            return fine(subject, _running(own), name)
        return failed(subject, explain(error), name)
    addresses = [str(one.getsockname()[0]) for one in bound.sockets] if not bound.is_unix else []
    bound.close()
    return fine(subject, f"free on {' and '.join(addresses)}" if addresses else "free", name)


def _cache(settings: CacheSettings, config: Path | None) -> tuple[list[CheckResult], int | None]:
    """Return the results, and the process of the proxy that runs with `config`, if there is one."""
    subject, name = "cache folder", str(settings.dir)
    try:
        facts = inspect(settings.dir)
    except CacheInUse as error:
        if error.process is not None and config is not None and runs_with(error.process, config):
            return [fine(subject, _running(error.process), name)], error.process
        return [failed(subject, str(error), name)], None
    except StoreError as error:
        return [failed(subject, str(error), name)], None
    folder = fine(subject, "writable" if facts.exists else "will be made", name)
    return [folder, _space(settings, facts.free, facts.total, facts.own)], None


def _running(process: int) -> str:
    return f"in use by the proxy that runs with this configuration, process {process}"


def _space(settings: CacheSettings, free: int, total: int, own: int) -> CheckResult:
    """Compare the limits with the disk. `own` bytes are the cache's already. No limit prevents the start."""
    subject, name = "cache space", str(settings.dir)
    floor = settings.free_floor(total)
    limits = f"cache.min_free {format_share(settings.min_free)}"
    most, now = total - floor, own + free - floor
    if most < settings.max_size:
        return warning(
            subject,
            f"cache.max_size is {format_size(settings.max_size)}, and the disk has {_shown(total)}, of which {limits}"
            f" leaves {_shown(most)}: lower cache.max_size, or take a larger disk",
            name,
        )
    if now < MIN_BLOCKS * settings.block_size:
        return warning(
            subject,
            f"{_shown(free)} are free, and {limits} wants {_shown(floor)}: nothing can be cached, so that each request"
            " goes to S3. Free some space",
            name,
        )
    if now < settings.max_size:
        return warning(
            subject,
            f"room for {_shown(now)} now, because {_shown(free)} are free and {limits} wants {_shown(floor)};"
            f" cache.max_size is {format_size(settings.max_size)}",
            name,
        )
    return fine(
        subject, f"{_shown(free)} of {_shown(total)} free, cache.max_size {format_size(settings.max_size)}", name
    )


def _shown(size: int) -> str:
    """Return a size as people read it, with one decimal."""
    number, units = float(max(size, 0)), ["B", "KiB", "MiB", "GiB", "TiB"]
    while number >= 1024 and len(units) > 1:
        number /= 1024
        del units[0]
    return f"{number:.4g} {units[0]}"
