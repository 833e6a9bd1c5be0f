"""Which settings a reload applies while the proxy serves, and which ones need a restart. No I/O here.

Each setting is in one of the two tables, by its name or by that of a section around it. A test compares them with the
models, so a new setting has to be classified. docs/operations.md has the same table.
"""

from collections.abc import Iterator, Mapping

from pydantic import SecretStr

from bucketfront.config.problems import Loc
from bucketfront.config.secret_file import SecretFile
from bucketfront.config.section import Section
from bucketfront.config.settings import Settings

LIVE: tuple[str, ...] = (
    "server.hosts", "server.trusted_proxies", "server.timing", "server.fast_path", "server.stop_delay", "server.tls.*",
    "server.listeners.tls.*", "admin.token", "admin.tls.*", "access", "mounts", "uploads", "freshness", "cors",
    "s3.tls.*", "s3.domain", "s3.buckets", "s3.keys", "s3.anonymous", "s3.pass_through",
    "s3.mode", "s3.authorization_ttl",
    "access_log", "log", "invalidation.webhook.token", "pricing", "cache.memory", "cache.min_free",
    "cache.idle_timeout",
)  # fmt: skip
"""Settings that a reload applies. A section stands for all that is in it; `.*` leaves out the section itself, which
then must be there before and after."""

NEEDS_RESTART: Mapping[str, str] = {
    "server.host": "sockets are bound at the start",
    "server.port": "sockets are bound at the start",
    "server.proxy_protocol": "connections begin with it",
    "server.workers": "the sockets are in the hands of its processes",
    "server.listeners": "sockets are bound at the start",
    "server.tls": "a port changes between HTTP and HTTPS",
    "server.client_share": "it is counted from the start",
    "admin.host": "sockets are bound at the start",
    "admin.port": "sockets are bound at the start",
    "admin.tls": "a port changes between HTTP and HTTPS",
    "origin": "connections to S3 and their signatures belong to it",
    "s3": "its socket is bound at the start",
    "cache.dir": "a cache folder is opened at the start",
    "cache.block_size": "all files of the cache have it",
    "cache.max_size": "shares of it are computed at the start",
    "cache.eviction": "the order of all objects belongs to it",
    "cache.after_disconnect": "running downloads have it",
    "cache.read_ahead_max": "running downloads have it",
    "cache.durability": "the index is opened with it",
    "cache.tag_headers": "the index is opened with it",
    "invalidation": "the queue is read, and events are counted, from the start on",
    "tracing": "spans of requests under way belong to it",
    "bus": "the place in its stream belongs to it",
    "warm_start": "only a start with an empty cache has one",
    "cache.mode": "what the cache holds, and the requests under way, belong to it",
}
"""Settings that only a restart applies, each with the reason."""


def name_of(at: Loc) -> str:
    """Return the name of a setting without the positions in lists, as the tables have it."""
    return ".".join(part for part in at if isinstance(part, str))


def reason_for_restart(at: Loc) -> str | None:
    """Return why a change of the setting needs a restart. Returns None if a reload applies it.

    The longest name in the tables that fits counts. An unknown setting needs a restart.
    """
    parts = name_of(at).split(".")
    for length in range(len(parts), 0, -1):
        name = ".".join(parts[:length])
        if name in LIVE or (length < len(parts) and f"{name}.*" in LIVE):
            return None
        if name in NEEDS_RESTART:
            return NEEDS_RESTART[name]
    return "it is not known here"


def changes(before: Settings, after: Settings) -> list[Loc]:
    """Return the places of all settings that differ, in the order of the models.

    The text of a secret file of `origin` is read again whenever S3 refuses it, so it counts as the same.
    """
    return list(_changes(before, after, ()))


def _changes(before: object, after: object, at: Loc) -> Iterator[Loc]:
    if isinstance(before, Section) and type(before) is type(after):
        for name in type(before).model_fields:
            yield from _changes(getattr(before, name), getattr(after, name), (*at, name))
    elif isinstance(before, tuple) and isinstance(after, tuple) and len(before) == len(after) and _has_sections(before):
        for number, pair in enumerate(zip(before, after, strict=True)):
            yield from _changes(*pair, (*at, number))
    elif isinstance(before, dict) and isinstance(after, dict):
        for name in [*before, *(name for name in after if name not in before)]:
            yield from _changes(before.get(name), after.get(name), (*at, name))
    elif before != after and not (at[:1] == ("origin",) and _is_same_file(before, after)):
        yield at


def _has_sections(values: tuple[object, ...]) -> bool:
    return any(isinstance(value, Section) for value in values)


def _is_same_file(before: object, after: object) -> bool:
    if not isinstance(before, SecretStr) or not isinstance(after, SecretStr):
        return False
    return isinstance(before, SecretFile) and isinstance(after, SecretFile) and before.path == after.path
