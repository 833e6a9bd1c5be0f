"""The settings of bucketfront, typed and checked, as frozen values.

Rule 1: a key has one meaning and one spelling; an unknown one is an error (I30).
Rule 2: no validator touches the disk, the network or the environment; `bucketfront.config.loader` does that.
Rule 3: no message quotes a value, and secrets are `SecretStr` (I28).
"""

import ipaddress
import re
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    SecretStr,
    Tag,
    ValidationInfo,
    field_validator,
)

from bucketfront.config.quantities import (
    GIB,
    KIB,
    MIB,
    TIB,
    Duration,
    Flag,
    Percent,
    Share,
    Size,
    WholeNumber,
    format_size,
)
from bucketfront.http.grammar import is_field_value, is_token
from bucketfront.http.key_template import KeyTemplate

# What players and their tools read of an answer from another origin (Fetch standard, CORS-safelisted fields aside).
EXPOSED = (
    "*", "Accept-Ranges", "Age", "Cache-Status", "Content-Encoding", "Content-Length", "Content-Range", "Date", "ETag",
    "Location", "Server-Timing",
)  # fmt: skip
EMBEDDED = "embedded"  # the `endpoint_url` that starts an in-memory S3
METHODS = ("GET", "HEAD", "PUT", "POST", "DELETE")
MIN_BLOCK, MAX_BLOCK = 64 * KIB, 16 * MIB
MIN_BLOCKS = 4  # a cache smaller than this evicts what it is filling
MAX_PREFIX_BYTES = 1024  # no S3 key is longer

# pydantic puts the tag of a union's branch into an error's location; the reporter takes it out again.
NAMED, STATIC, PROFILE = UNION_TAGS = ("<named>", "<static>", "<profile>")

_BUCKET = re.compile(r"[A-Za-z0-9._-]{1,255}|arn:[A-Za-z0-9:/._-]{1,2000}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_ORIGIN = re.compile(r"\*|null|[A-Za-z][A-Za-z0-9+.-]*://[^\s/?#@]+")  # RFC 6454 section 6.2
_VISIBLE = re.compile(r"[\x21-\x7e]+")


class SettingError(ValueError):
    """A setting that does not fit another one. `at` is where it stands, counted from the root."""

    def __init__(self, message: str, *at: tuple[str | int, ...]) -> None:
        super().__init__(message)
        self.at = at


def _host(host: str) -> str:
    if not host or re.search(r"[\s/@]", host):
        raise ValueError("must be an address or a host name")
    return host


def _not_empty(text: str) -> str:
    if not text or _CONTROL.search(text):
        raise ValueError("must be text without control characters, and not empty")
    return text


def _secret(secret: SecretStr) -> SecretStr:
    if not secret.get_secret_value():
        raise ValueError("must not be empty")
    return secret


def _token(token: SecretStr) -> SecretStr:
    if not _VISIBLE.fullmatch(token.get_secret_value()):
        raise ValueError("must be visible ASCII without spaces, and not empty: it travels in a header")
    return token


def _url_path(path: str) -> str:
    if not path.startswith("/"):
        raise ValueError("must start with '/'")
    if re.search(r"[?#]|%[0-9A-Fa-f]{2}", path) or _CONTROL.search(path):
        raise ValueError("must be a decoded path: no '?', '#', percent-escape or control character")
    return path


def _mount_path(path: str) -> str:
    path = _url_path(path)
    return path if path.endswith("/") else path + "/"


def _upload_path(path: str) -> str:
    path = _url_path(path).rstrip("/")
    if not path:
        raise ValueError("must name a route of its own, for example /upload")
    return path


def _bucket(bucket: str) -> str:
    if not _BUCKET.fullmatch(bucket):
        raise ValueError("must be the name of a bucket, without 's3://' and without a path (that is prefix)")
    return bucket


def _prefix(prefix: str) -> str:
    if prefix.startswith("/"):
        raise ValueError("must not start with '/': S3 keys do not; leave the slash out")
    if len(prefix.encode("utf-8", "surrogatepass")) >= MAX_PREFIX_BYTES:
        raise ValueError(f"must be shorter than {MAX_PREFIX_BYTES} bytes")
    if "\0" in prefix:
        raise ValueError("must not hold a NUL")
    return prefix


def _endpoint(url: str) -> str:
    if url == EMBEDDED:
        return url
    wanted = "must be null, embedded, or an http:// or https:// URL"
    if re.search(r"[\s\\]", url) or _CONTROL.search(url):
        raise ValueError(wanted)
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise ValueError(wanted) from None
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
        raise ValueError(wanted)
    if "@" in parts.netloc:
        raise ValueError("must not hold credentials: they belong into origin.credentials")
    if parts.path not in ("", "/") or "?" in url or "#" in url:
        raise ValueError("must not have a path, a query or a fragment: scheme, host and port only")
    return url.removesuffix("/")


def _cors_origin(origin: str) -> str:
    if not _ORIGIN.fullmatch(origin):
        raise ValueError("must be '*' or an origin like https://app.example.com, without a path")
    return origin


def _is_loopback(host: str) -> bool:
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _credentials_tag(value: object) -> str:
    if isinstance(value, ProfileCredentials) or (isinstance(value, dict) and "profile" in value):
        return PROFILE
    return STATIC if isinstance(value, (dict, StaticCredentials)) else NAMED


Host = Annotated[str, AfterValidator(_host)]
Port = Annotated[WholeNumber, Field(ge=0, le=65535)]
Text = Annotated[str, AfterValidator(_not_empty)]
MountPath = Annotated[str, AfterValidator(_mount_path)]
Secret = Annotated[SecretStr, AfterValidator(_secret)]
Method = Literal["GET", "HEAD", "PUT", "POST", "DELETE"]


class _Section(BaseModel):
    # Inputs stay out of pydantic's own messages as well: they may be secrets (I28).
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


MAX_FIELD_NAME_CHARS = 128
# What describes the message, its bytes or the cache itself is not for a rule to say.
_RESERVED = frozenset(
    {"accept-ranges", "age", "cache-status", "connection", "content-encoding", "content-length", "content-range",
     "date", "etag", "keep-alive", "last-modified", "server-timing", "te", "trailer", "transfer-encoding", "upgrade",
     "via"}
)  # fmt: skip


def _field_name(name: str) -> str:
    if not is_token(name) or len(name) > MAX_FIELD_NAME_CHARS:
        raise ValueError("must be the name of an HTTP field")
    return name


def _rule_field(name: str) -> str:
    if _field_name(name).lower() in _RESERVED:
        raise ValueError("is not for a rule to set: it follows from the bytes, the cache or the connection")
    if name.lower() == "cache-control":
        raise ValueError("has a key of its own: cache_control, beside headers")
    return name


def _field_value(value: str) -> str:
    if not is_field_value(value):
        raise ValueError("must be printable ASCII, without spaces at its ends")
    return value


def _document(name: str) -> str:
    if name.startswith("/") or _CONTROL.search(name) or not name:
        raise ValueError("must be a name below the mount, without '/' before it: index.html")
    return name


def _extension(extension: str) -> str:
    if not re.fullmatch(r"\.[A-Za-z0-9_.-]{1,32}", extension):
        raise ValueError("must begin with '.', for example .html")
    return extension


def _error_status(status: str) -> str:
    if not re.fullmatch(r"4(?:0[034]|16)|50[0-4]", status):
        raise ValueError("must be 400, 403, 404, 416, or 500 to 504")
    return status


def _key_template(text: str) -> str:
    return KeyTemplate(text).text  # its BadTemplate is a ValueError with the cure


RuleField = Annotated[str, AfterValidator(_rule_field)]
FieldValue = Annotated[str, AfterValidator(_field_value)]
Document = Annotated[str, AfterValidator(_document)]
Coding = Literal["br", "zstd", "gzip"]


class TlsSettings(_Section):
    """The certificate of the data port. TLS costs `sendfile`: prefer plain HTTP behind a terminator."""

    certificate: Path
    """PEM file: the certificate, followed by its chain."""
    key: Path
    """PEM file: the private key."""


class ServerSettings(_Section):
    """The listener for clients."""

    host: Host = "127.0.0.1"
    """Address to listen on."""
    port: Port = 8080
    """TCP port; 0 takes a free one."""
    tls: TlsSettings | None = None
    """None: plain HTTP."""
    timing: Flag = False
    """Whether answers carry `Server-Timing`. It tells clients how the cache is doing; the fast path is off then."""
    fast_path: Flag = True
    """Whether plain requests for objects that are here are answered before aiohttp sees them. The answers are the
    same; off, hits cost many times as much."""


class AdminSettings(_Section):
    """The listener for operators (I27)."""

    host: Host = "127.0.0.1"
    """Address to listen on."""
    port: Port = 8081
    """TCP port; 0 takes a free one."""
    token: Annotated[SecretStr, AfterValidator(_token)] | None = Field(default=None, validate_default=True)
    """What operators send as `Authorization: Bearer`. Needed as soon as `host` is not loopback."""

    @field_validator("token")
    @classmethod
    def _token_beyond_loopback(cls, token: SecretStr | None, info: ValidationInfo) -> SecretStr | None:
        host = info.data.get("host")
        if token is None and host is not None and not _is_loopback(host):
            raise SettingError(
                "needed, because admin.host is not loopback: set it, or let admin.host be 127.0.0.1",
                ("admin", "token"),
                ("admin", "host"),
            )
        return token


class StaticCredentials(_Section):
    """Keys written down, or better: read from `file:/path`."""

    access_key_id: Secret
    secret_access_key: Secret
    session_token: Secret | None = None


class ProfileCredentials(_Section):
    """A profile of the AWS configuration files."""

    profile: Text


Credentials = Annotated[
    Annotated[Literal["default", "anonymous"], Tag(NAMED)]
    | Annotated[StaticCredentials, Tag(STATIC)]
    | Annotated[ProfileCredentials, Tag(PROFILE)],
    Discriminator(_credentials_tag),
]


class OriginSettings(_Section):
    """The S3 service behind the cache, and how hard to lean on it."""

    endpoint_url: Annotated[str, AfterValidator(_endpoint)] | None = None
    """None: AWS. `embedded`: an in-memory S3, for trying things out. Else scheme, host and port."""
    region: Text = "us-east-1"
    """The region requests are signed for."""
    addressing_style: Literal["auto", "path", "virtual"] = "auto"
    """Whether the bucket stands in the path or in the host name."""
    credentials: Credentials = "default"
    """`default` is the AWS chain: environment, files, container, instance."""
    create_bucket: Flag = False
    """Make the bucket at start if it does not exist."""
    connect_timeout: Annotated[Duration, Field(gt=0)] = 3.0
    """Seconds."""
    read_timeout: Annotated[Duration, Field(gt=0)] = 20.0
    """Seconds without a byte from the origin."""
    max_connections: Annotated[WholeNumber, Field(ge=1, le=65535)] = 64
    """Connections to the origin at once; one object has half of them at most."""
    part_size: Annotated[Size, Field(gt=0)] = 8 * MIB
    """Bytes of one ranged GET, at most. A multiple of `cache.block_size`."""
    parallel_parts: Annotated[WholeNumber, Field(ge=1, le=1024)] = 8
    """Ranged GETs at once for one object."""


class SiteSettings(_Section):
    """A bucket as a web site. Every document is a name below the mount."""

    index: Document = "index.html"
    """What a path that ends in '/' shows."""
    redirect_folders: Flag = True
    """Whether /docs goes to /docs/ where there is no such object, but an index in that folder."""
    try_extensions: tuple[Annotated[str, AfterValidator(_extension)], ...] = ()
    """Put behind a path that names no object, in this order: `.html`."""
    fallback: Document | None = None
    """What any other path shows, with 200, for an application that routes in the browser."""
    errors: dict[Annotated[str, AfterValidator(_error_status)], Document] = Field(default_factory=dict)
    """Status -> the document shown with it."""


class MountSettings(_Section):
    """A URL prefix mapped to a bucket and a key prefix."""

    path: MountPath
    """URL path, decoded; ends in '/' (added where it is missing)."""
    bucket: Annotated[str, AfterValidator(_bucket)]
    prefix: Annotated[str, AfterValidator(_prefix)] = ""
    """What stands before the rest of the path in the key. Nothing is added to it, no slash either."""
    methods: Annotated[tuple[Method, ...], Field(min_length=1)] = ("GET", "HEAD")
    """What clients may do. GET brings HEAD."""
    versions: Flag = True
    """Whether `?versionId=` reads that version of an object; if not, it counts as any other parameter."""
    response_overrides: Flag = False
    """Whether `?response-content-type=` and its like change the headers of an answer, as in S3's GetObject."""
    query: Literal["ignore", "refuse"] = "ignore"
    """What becomes of a read with any other query parameter: the object all the same, or 400."""
    guess_types: Flag = True
    """Whether an object that S3 calls `binary/octet-stream`, its word for unknown, gets a type by its extension; and an
    upload that names none."""
    precompressed: tuple[Coding, ...] = ()
    """Which siblings (`a.js.br`, `.zst`, `.gz`) stand in for text that a client takes compressed; the first counts."""
    site: SiteSettings | None = None
    """None: paths are keys, no more."""
    max_size: Annotated[Size, Field(gt=0)] | None = None
    """Bytes of one upload, at most. None: `uploads.max_size`, which counts in any case."""
    key_template: Annotated[str, AfterValidator(_key_template)] = "{ulid}"
    """The key that an upload gets where it names none, below the folder that it goes to: of {ulid}, {date} (YYYY/MM/DD
    in UTC), {filename} and {ext} (with its dot) of a form's file."""
    write_once: Flag = False
    """Whether uploads make new objects only, as if each said `If-None-Match: *`. DELETE is for `methods` to allow."""

    @field_validator("methods")
    @classmethod
    def _head_with_get(cls, methods: tuple[Method, ...]) -> tuple[str, ...]:
        allowed = {*methods, "HEAD"} if "GET" in methods else set(methods)
        return tuple(method for method in METHODS if method in allowed)


class UploadSettings(_Section):
    """The upload route, `POST {path}` and `POST {path}/{key}`; the bounds hold for uploads to all mounts."""

    path: Annotated[str, AfterValidator(_upload_path)] = "/upload"
    """URL path, decoded, without a '/' at its end (removed)."""
    mount: MountPath = "/"
    """The path of the mount that uploads are written into."""
    max_size: Annotated[Size, Field(gt=0)] = 5 * TIB
    """Bytes of one upload, at most; a form's are those of all its files."""
    deadline: Annotated[Duration, Field(gt=0)] = 86400.0
    """Seconds that the body of one upload may take, however steadily it comes."""
    expire_after: Annotated[Duration, Field(gt=0)] = 86400.0
    """Seconds without a byte after which an unfinished resumable upload is given up."""


class CacheSettings(_Section):
    """The files on the local disk."""

    dir: Path = Path("cache")
    """The cache folder; relative to the working directory."""
    block_size: Size = 256 * KIB
    """Bytes; the unit of presence. A power of two, 64KiB to 16MiB."""
    max_size: Size = 10 * GIB
    """Bytes on disk, at most (I17). At least 4 blocks."""
    min_free: Share = Percent(5)
    """Bytes of the disk, or percent of it, that stay free."""
    idle_timeout: Annotated[Duration, Field(gt=0)] = 3600.0
    """Seconds after its last access that an object is removed."""
    memory: Size = 64 * MIB
    """Bytes of small hot objects kept in memory; 0 for none."""
    after_disconnect: Literal["finish", "stop", "auto"] = "auto"
    """What becomes of a fill that nobody waits for."""
    durability: Literal["process", "power"] = "process"
    """What the cache outlives: the end of the process, `kill -9` included, or a loss of power as well. It is right
    after either (I14); `power` syncs data before the index claims it.
    """

    @field_validator("block_size")
    @classmethod
    def _power_of_two(cls, size: int) -> int:
        if not MIN_BLOCK <= size <= MAX_BLOCK or size & (size - 1):
            bounds = f"{format_size(MIN_BLOCK)} to {format_size(MAX_BLOCK)}"
            raise ValueError(f"must be a power of two from {bounds}")
        return size

    @field_validator("max_size")
    @classmethod
    def _room_for_blocks(cls, size: int, info: ValidationInfo) -> int:
        block = info.data.get("block_size")
        if block is not None and size < MIN_BLOCKS * block:
            least = format_size(MIN_BLOCKS * block)
            raise ValueError(f"must be at least {MIN_BLOCKS} times cache.block_size, that is {least}")
        return size

    def free_floor(self, disk: int) -> int:
        """Bytes that stay free on a disk of `disk` bytes."""
        return self.min_free.of(disk) if isinstance(self.min_free, Percent) else self.min_free


class FreshnessRule(_Section):
    """For keys that match. Of each setting, the first rule that matches and has it counts."""

    match: Text
    """Glob over the key; `**` crosses slashes."""
    ttl: Duration | None = None
    """Seconds, for an object that says nothing itself."""
    negative_ttl: Duration | None = None
    """Seconds that an S3 404 is remembered."""
    stale_while_revalidate: Duration | None = None
    """Seconds past the TTL, for an object that says nothing itself."""
    stale_if_error: Duration | None = None
    """Seconds past the TTL, for an object that says nothing itself."""
    cache: Flag | None = None
    """False: such objects pass through and are not kept."""
    headers: dict[RuleField, FieldValue | None] | None = None
    """Fields of the answer to set, or with null to drop."""
    cache_control: FieldValue | None = None
    """The `Cache-Control` that clients and CDNs are sent in place of the object's own."""


class FreshnessSettings(_Section):
    """How long an answer may be used without asking the origin (RFC 9111, RFC 5861)."""

    default_ttl: Duration = 300.0
    """Seconds; where neither the object nor a rule says."""
    negative_ttl: Duration = 10.0
    """Seconds that an S3 404 is remembered (I13)."""
    stale_while_revalidate: Duration = 60.0
    """Seconds past its TTL that a stale answer is served while the origin is asked (RFC 5861 section 3)."""
    stale_if_error: Duration = 86400.0
    """Seconds past its TTL that a stale answer is served while the origin fails (RFC 5861 section 4)."""
    outage: Duration | None = None
    """Seconds past its TTL that a stale answer is served while the origin is out of reach altogether, for an object
    that says no stale-if-error itself. None: as `stale_if_error`."""
    honor_client_no_cache: Flag = False
    """Whether a client's `Cache-Control: no-cache` asks the origin."""
    media_rules: Flag = True
    """Whether rules for HLS and DASH follow yours: playlists short, segments long."""
    rules: tuple[FreshnessRule, ...] = ()


class CorsSettings(_Section):
    """Which web pages may read the answers."""

    allow_origins: tuple[Annotated[str, AfterValidator(_cors_origin)], ...] = ("*",)
    """`*`, or origins like `https://app.example.com`. Empty: none."""
    allow_headers: tuple[Annotated[str, AfterValidator(_field_name)], ...] = ("*",)
    """Request fields that a page may send beyond the safe ones; `*`: any."""
    expose_headers: tuple[Annotated[str, AfterValidator(_field_name)], ...] = EXPOSED
    """Fields of an answer that a page may read; `*`: all, for requests without credentials."""
    allow_credentials: Flag = False
    """Whether a page may send cookies; not together with `*`."""
    max_age: Duration = 7200.0
    """Seconds that a browser remembers the answer to a preflight. Chromium takes 2 h at most."""
    timing_allow_origins: tuple[Annotated[str, AfterValidator(_cors_origin)], ...] = ()
    """Which pages see detailed timings (`Timing-Allow-Origin`): `*`, or origins."""
    resource_policy: Literal["same-origin", "same-site", "cross-origin"] | None = None
    """`Cross-Origin-Resource-Policy`; null: none is sent."""

    @field_validator("allow_credentials")
    @classmethod
    def _not_for_everybody(cls, allowed: bool, info: ValidationInfo) -> bool:  # noqa: FBT001 - pydantic's signature
        if allowed and "*" in info.data.get("allow_origins", ()):
            raise ValueError("needs allow_origins to name its origins: '*' would let every page read as the visitor")
        return allowed


class AccessLogSettings(_Section):
    """One line a request."""

    format: Literal["json", "text"] = "json"
    path: Text = "-"
    """File to append to; `-` is standard output."""


class Settings(_Section):
    """The whole configuration. The order of the fields counts: a check sees only the fields above its own."""

    server: ServerSettings = ServerSettings()
    admin: AdminSettings = AdminSettings()
    origin: OriginSettings = OriginSettings()
    mounts: Annotated[tuple[MountSettings, ...], Field(min_length=1)]
    """At least one; the longest path that fits a request counts."""
    uploads: UploadSettings | None = None
    """None: no upload route."""
    cache: CacheSettings = Field(default=CacheSettings(), validate_default=True)
    freshness: FreshnessSettings = FreshnessSettings()
    cors: CorsSettings = CorsSettings()
    access_log: AccessLogSettings = AccessLogSettings()

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
        return uploads

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
