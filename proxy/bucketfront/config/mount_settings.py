"""The settings of mounts, of the web site that a mount may be, and of the upload route."""

from collections.abc import Iterable
from typing import Annotated, Literal

from pydantic import Field, field_validator

from bucketfront.config.access_settings import PUBLIC, AccessName
from bucketfront.config.checked_text import (
    AcceptEncoding,
    Bucket,
    Document,
    ErrorStatus,
    Extension,
    KeyPrefix,
    KeyTemplateText,
    MediaType,
    MountPath,
    UploadPath,
)
from bucketfront.config.pricing_settings import Prices
from bucketfront.config.quantities import KIB, TIB, Duration, Flag, Size
from bucketfront.config.section import Section

Method = Literal["GET", "HEAD", "PUT", "POST", "DELETE"]
_METHODS: tuple[Method, ...] = ("GET", "HEAD", "PUT", "POST", "DELETE")  # in the order of the `Allow` header
Coding = Literal["br", "zstd", "gzip"]


class SiteSettings(Section):
    """A bucket as a web site. Object names are below the mount."""

    index: Document = "index.html"
    """The object that a path ending in `/` shows."""
    redirect_folders: Flag = True
    """Whether `/docs` redirects to `/docs/` if no such object exists but the folder has an index."""
    try_extensions: tuple[Extension, ...] = Field(default=(), examples=["[.html]"])
    """Extensions to append, in this order, to a path that names no object."""
    fallback: Document | None = Field(default=None, examples=["app.html"])
    """The object that any other path shows, with status 200. It suits an application that routes in the browser."""
    errors: dict[ErrorStatus, Document] = Field(default_factory=dict, examples=["{404: 404.html}"])
    """The object to send as the body of an error, by status: 400, 403, 404, 416, and 500 to 504."""


class MountSettings(Section):
    """A list of mounts, at least one. A mount maps a URL prefix to a bucket and a key prefix.

    If several mounts fit a request, the one with the longest path serves it.
    """

    path: MountPath = Field(default="/", examples=["/videos/"])
    """URL path of the mount, percent-decoded. A missing `/` at its end is added. A GET without that `/`
    gets 308 to the mount, unless another mount serves the path. A GET with needless escapes in that path gets 308 as
    well, and other requests with them get 400."""
    bucket: Bucket = Field(examples=["my-bucket"])
    """The bucket to serve."""
    prefix: KeyPrefix = Field(default="", examples=["public/"])
    """Text before the rest of the path in the object's key. Nothing is added to it, so a folder ends in `/`."""
    methods: Annotated[tuple[Method, ...], Field(min_length=1)] = ("GET", "HEAD")
    """Methods that clients may use. `GET` includes `HEAD`. `mounts[].read` and `mounts[].write` decide which clients
    may."""
    read: Annotated[tuple[AccessName, ...], Field(min_length=1)] = Field(default=(PUBLIC,), examples=["[lan, team]"])
    """Rules of `access` of which one must hold for reads, in order. `public` lets all clients in. For a key below
    several mounts of one bucket, the rules of the mount with the longest `prefix` must hold as well."""
    write: Annotated[tuple[AccessName, ...], Field(min_length=1)] | None = Field(default=None, examples=["[team]"])
    """The same for writes. With `null` each client that reaches a listener may write. That is permitted only while no
    other machine can reach one of them: see docs/listeners.md. Otherwise name rules, or `[public]`."""
    shared_caching: Flag = False
    """Whether CDNs and other shared caches may store what needs a rule to be read. If not, such responses have
    `Cache-Control: private`."""
    accept_encoding: AcceptEncoding | None = Field(default=None, examples=["gzip"])
    """Content codings that requests for the mount's objects accept. With `null` it is `origin.accept_encoding`. For a
    key below several mounts of one bucket, the mount with the longest `prefix` counts."""
    versions: Flag = False
    """Whether `?versionId=` reads that version of an object. Old versions may hold what was deleted or replaced, and
    each takes space in the cache. If not, it counts as any other parameter, and gets 501 for a client of S3. For a key
    below several mounts of one bucket, that with the longest `prefix` must have it on as well."""
    response_overrides: Flag = False
    """Whether `?response-content-type=` and its like change the headers of a response, as in S3's GetObject.
    For a key below several mounts, it is as with `versions`."""
    query: Literal["s3", "ignore", "refuse"] = "s3"
    """What a read with any other query parameter gets. With `ignore` it is the object, and with `refuse` 400. With `s3`
    it is the object as well, but a sub-resource of S3 (`?acl`, `?tagging`, `?list-type=2`, `?partNumber=2`) gets 501,
    because it means something else. It gets 501 with `refuse` too, and a client of S3 gets that in any case. `refuse`
    also refuses the parameters of a presigned URL, which are not verified here."""
    guess_types: Flag = True
    """Whether an object of type `binary/octet-stream`, S3's default, gets a type by its extension. The same applies to
    an upload that names no type."""
    inline_types: tuple[MediaType, ...] | None = Field(default=None, examples=["[text/html, image/svg+xml]"])
    """Which active types browsers may show: HTML, SVG and other XML, and multipart, whose scripts run with the rights
    of this origin. Objects of other active types, or with a malformed type, become downloads (`Content-Disposition:
    attachment`). Pages may still embed them as images. `text/*` and `*/*` name several. With `null` all are shown, but
    none where clients may upload: by `PUT`, `POST` or the upload route into this mount, or into another one with the
    same bucket and `prefix`. For a key below several mounts of one bucket, the one with the longest `prefix` counts.
    """
    precompressed: tuple[Coding, ...] = Field(default=(), examples=["[br, gzip]"])
    """Codings of precompressed siblings (`a.js.br`, `a.js.zst`, `a.js.gz`) that replace text for clients which accept
    them. The first that fits is served."""
    site: SiteSettings | None = None
    """Settings of a web site. With `null`, paths are keys and nothing else."""
    max_size: Annotated[Size, Field(gt=0)] | None = None
    """Bytes of one upload at most. With `null`, only `uploads.max_size` limits it; that limit holds in any case."""
    key_template: KeyTemplateText = Field(default="{ulid}", examples=['"{date}/{ulid}{ext}"'])
    """The key of an upload that names none, below the folder that it goes to. It may use `{ulid}`, `{date}`
    (`YYYY/MM/DD` in UTC), and of a form's file `{filename}` and `{ext}` (with its dot)."""
    write_once: Flag = False
    """Whether uploads create new objects only, as if each sent `If-None-Match: *`. An upload to an existing object gets
    412. `DELETE` is not affected; `methods` allows it or not."""

    min_rate: Annotated[Size, Field(gt=0)] = KIB
    """Bytes per second that a client must take of a response, or send of an upload. A response ends if its client takes
    less for longer than 2 minutes, as its kernel acknowledges the bytes; an upload if it sends less over 30 s. The
    default is a quarter of an audio stream of 32 kbit/s, because players take bytes in bursts."""
    pricing: Prices | None = Field(
        default=None, examples=["{per_1000_gets: 0.001, per_1000_puts: 0.01, per_gb_out: 0.09}"]
    )
    """Prices of the mount's bucket. With `null` they are those of `pricing`."""

    @property
    def is_public(self) -> bool:
        """Return whether all clients may read."""
        return PUBLIC in self.read

    @property
    def is_private(self) -> bool:
        """Return whether shared caches may not store responses to reads."""
        return not (self.is_public or self.shared_caching)

    @property
    def writing_methods(self) -> tuple[Method, ...]:
        """Return the methods that write, of those that clients may use."""
        return tuple(method for method in self.methods if method not in ("GET", "HEAD"))

    @property
    def place(self) -> tuple[str, str]:
        """Return the bucket and the prefix of the keys."""
        return self.bucket, self.prefix

    @property
    def needs_rule_to_write(self) -> bool:
        """Return whether a write needs a rule that holds."""
        return self.write is not None and PUBLIC not in self.write

    @field_validator("methods")
    @classmethod
    def _head_with_get(cls, methods: tuple[Method, ...]) -> tuple[Method, ...]:
        allowed = {*methods, "HEAD"} if "GET" in methods else set(methods)
        return tuple(method for method in _METHODS if method in allowed)


class UploadSettings(Section):
    """The upload route, and limits of all uploads.

    `POST {path}` and `POST {path}/{key}` write into one mount, at once or as resumable uploads (tus 1.0.0). The limits
    hold for uploads to all mounts. Without this section there is no upload route, and the limits have their defaults.
    """

    path: UploadPath = "/upload"
    """URL path of the route, percent-decoded. A `/` at its end is removed."""
    mount: MountPath = "/"
    """The path of the mount that uploads are written into."""
    max_size: Annotated[Size, Field(gt=0)] = 5 * TIB
    """Bytes of one upload at most. All files of a form count together."""
    deadline: Annotated[Duration, Field(gt=0)] = 86400.0
    """How long the body of one upload may take, however steadily it arrives."""
    expire_after: Annotated[Duration, Field(gt=0)] = 86400.0
    """How long an unfinished resumable upload is kept after its last byte. Then it is removed, at S3 as well."""


def places_of_uploads(mounts: Iterable[MountSettings], uploads: UploadSettings | None) -> frozenset[tuple[str, str]]:
    """Return the places of the mounts whose objects clients may have uploaded."""
    into = None if uploads is None else uploads.mount
    return frozenset(mount.place for mount in mounts if {"PUT", "POST"} & {*mount.methods} or mount.path == into)
