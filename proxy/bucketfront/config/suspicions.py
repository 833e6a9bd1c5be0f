"""Find settings that are permitted and probably not meant."""

from collections.abc import Iterator

from bucketfront.config.access_settings import PUBLIC
from bucketfront.config.listen_host import is_loopback
from bucketfront.config.listener_settings import ServerSettings
from bucketfront.config.mount_settings import places_of_uploads
from bucketfront.config.problems import Loc
from bucketfront.config.s3_settings import S3Settings
from bucketfront.config.settings import Settings

_JOINTS = "/-_.=+@:,;~!"  # a prefix that ends in one of them was meant to be joined with the path
_JOINED = (
    "does not end in '/', so its last name and the path become one name: with the prefix videos, /a.mp4 is the object"
    " videosa.mp4. Write videos/ for a folder"
)
_SITE_OF_UPLOADS = (
    "shows its pages as downloads, because clients may upload here and a page's scripts have the rights of this origin."
    " If all uploaders are trusted, set inline_types: [text/html, image/svg+xml]; else let them upload to another mount"
)
_TLS_OF_NO_LISTENER = (
    "has no effect, because no listener takes it: server.port is null, and server.listeners has only Unix sockets,"
    " plain listeners, and those with a tls of their own. Set the tls of the listener that needs it, or leave this out"
)

_PREFIX_OF_GRANT = (
    "does not end in '/', so it reaches names that begin alike: with the prefix team, the keys of teams/ as well."
    " Write team/ for a folder"
)
_ANONYMOUS_WRITES = (
    "lets everything that reaches the port write and delete objects, because s3.host is beyond loopback. Give those"
    " clients a key in s3.keys"
)
_PLAIN_WRITES = (
    "is used without TLS beyond loopback, so a machine in between can read bodies, and repeat a request for 15 minutes."
    " Set s3.tls; or let a front do TLS, and make sure that nothing else reaches the port"
)


def suspicions(settings: Settings) -> Iterator[tuple[Loc, str]]:
    """Yield each place with a message that has the fix."""
    uploads = places_of_uploads(settings.mounts, settings.uploads)
    for number, mount in enumerate(settings.mounts):
        if mount.prefix and mount.prefix[-1] not in _JOINTS:
            yield ("mounts", number, "prefix"), _JOINED
        if mount.site is not None and mount.inline_types is None and mount.place in uploads:
            yield ("mounts", number, "site"), _SITE_OF_UPLOADS
    yield from _differing_rules(settings)
    if settings.server.tls is not None and not _takes_tls(settings.server):
        yield ("server", "tls"), _TLS_OF_NO_LISTENER
    if settings.s3 is not None:
        yield from _grants(settings.s3)
    if _is_plain_beyond_loopback(settings.server):
        yield from _plain_credentials(settings)


def _grants(s3: S3Settings) -> Iterator[tuple[Loc, str]]:
    """Yield what clients of the S3 endpoint may do, and probably should not."""
    is_beyond = not is_loopback(s3.host)
    for at, grant in s3.grants:
        if grant.prefix and grant.prefix[-1] not in _JOINTS:
            yield (*at, "prefix"), _PREFIX_OF_GRANT
        if grant.write and is_beyond and grant is s3.anonymous:
            yield (*at, "write"), _ANONYMOUS_WRITES
        elif grant.write and is_beyond and s3.tls is None:
            yield (*at, "write"), _PLAIN_WRITES


def _differing_rules(settings: Settings) -> Iterator[tuple[Loc, str]]:
    """Yield the mounts that have the objects of an earlier mount, and other rules."""
    first: dict[tuple[str, str], int] = {}
    for number, mount in enumerate(settings.mounts):
        earlier = first.setdefault(mount.place, number)
        other = settings.mounts[earlier]
        keys = ["read"] if _clients(mount.read) != _clients(other.read) else []
        if mount.writing_methods and other.writing_methods and _clients(mount.write) != _clients(other.write):
            keys.append("write")
        for key in keys:
            message = (
                f"is not that of mounts[{earlier}], which has the same objects, so the weaker rules count: a client"
                " chooses the path. Give both the same rules, or other prefixes"
            )
            yield ("mounts", number, key), message


def _clients(names: tuple[str, ...] | None) -> frozenset[str]:
    """Return the rules that count. All others are without effect beside `public`, which is the default for writes."""
    return frozenset({PUBLIC}) if names is None or PUBLIC in names else frozenset(names)


def _takes_tls(server: ServerSettings) -> bool:
    """Return whether a listener speaks TLS by `server.tls`, or may, because systemd knows whether its socket is TCP."""
    return server.port is not None or any(
        listener.unix is None and server.tcp_tls(listener) is server.tls for listener in server.listeners
    )


def _is_plain_beyond_loopback(server: ServerSettings) -> bool:
    """Return whether a listener beyond loopback takes requests without TLS."""
    own = server.port is not None and not is_loopback(server.host) and server.tls is None
    return own or any(
        listener.host is not None and not is_loopback(listener.host) and server.tcp_tls(listener) is None
        for listener in server.listeners
    )


def _plain_credentials(settings: Settings) -> Iterator[tuple[Loc, str]]:
    used = {name for mount in settings.mounts for name in (*mount.read, *(mount.write or ()))}
    for name, rule in settings.access.items():
        kinds = [kind for kind in ("basic", "bearer", "jwt") if getattr(rule, kind) is not None]
        if name in used and kinds:
            what = "passwords" if kinds == ["basic"] else "tokens"
            message = (
                f"{what} cross the network in plain text, because a listener beyond loopback has no TLS. Set"
                " server.tls; or let a front do TLS, and make sure that nothing else reaches the listener"
            )
            yield ("access", name, kinds[0]), message
