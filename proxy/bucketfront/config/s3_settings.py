"""The settings of the S3 endpoint, and of the keys by which its clients sign."""

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, StringConstraints, model_validator

from bucketfront.config.access_settings import SigningKey
from bucketfront.config.bucket_name import bucket_name
from bucketfront.config.checked_text import Host, HostName, KeyPrefix
from bucketfront.config.problems import Loc
from bucketfront.config.quantities import Duration, Flag, Port
from bucketfront.config.section import Section
from bucketfront.config.tls_settings import TlsSettings

ALL_BUCKETS = "*"

KeyId = Annotated[str, "text", StringConstraints(pattern=r"^[A-Za-z0-9._+=@-]{1,128}$")]


def _granted_bucket(name: str) -> str:
    return name if name == ALL_BUCKETS else bucket_name(name)


GrantedBucket = Annotated[str, "bucket names", AfterValidator(_granted_bucket)]


class S3GrantSettings(Section):
    """What clients may do with the objects of some buckets."""

    buckets: Annotated[tuple[GrantedBucket, ...], Field(min_length=1)] = Field(examples=['["*"]'])
    """The names of the buckets. `"*"` stands for all that the endpoint serves."""
    prefix: KeyPrefix = ""
    """The prefix of the keys. Lists must ask for it, or for a longer one."""
    write: Flag = False
    """Whether clients may also write and delete."""


class S3KeySettings(S3GrantSettings):
    """A key by which clients sign, and what they may do with it."""

    id: KeyId = Field(examples=["app"])
    """The access key id of the clients."""
    secret: SigningKey = Field(examples=["file:/run/secrets/app"])
    """The secret access key of the clients. A file is read again when it has changed."""


class S3Settings(Section):
    """A further listener, on which clients speak S3's own REST API: any SDK, with this proxy as its endpoint.

    It serves from the same cache as `server`. Without the section no such listener runs. See
    [s3-endpoint.md](s3-endpoint.md).
    """

    host: Host = "127.0.0.1"
    """Address to listen on, as in `server.host`."""
    port: Port = 8082
    """TCP port. 0 takes a free one."""
    tls: TlsSettings | None = None
    """Certificates for HTTPS. With `null` the listener speaks plain HTTP."""
    domain: HostName | None = Field(default=None, examples=["s3.example.com"])
    """The name below which each bucket has a name of its own, as `my-bucket.s3.example.com` (virtual-hosted style).
    With `null` buckets are in the path only."""
    buckets: Literal["mounts", "*"] = "mounts"
    """The buckets that are served: those of the mounts, or with `"*"` all that the credentials of the origin reach."""
    mode: Literal["keys", "passthrough"] = "keys"
    """Who decides on a request. With `keys` it is bucketfront, by `s3.keys`, and requests are signed again for the
    origin. With `passthrough` it is the origin: it gets each request as the client has signed it."""
    authorization_ttl: Annotated[Duration, Field(le=3600)] = 0.0
    """With `mode: passthrough`: how long a read that the origin has allowed is not asked for again, if the very same
    request comes, as those of a presigned URL do. `0s` asks for each. At most 1 h."""
    keys: tuple[S3KeySettings, ...] = ()
    """The keys by which clients sign. Their requests are signed again for the origin, by `origin.credentials`."""
    anonymous: S3GrantSettings | None = Field(default=None, examples=['{buckets: ["*"]}'])
    """What clients may do that do not sign. With `null` they may do nothing."""
    pass_through: Flag = False
    """Whether operations that bucketfront does not know, such as those of ACLs and lifecycles, are passed to the
    origin. They need a key that may write all of a bucket. If not, they get `501 NotImplemented`."""

    @property
    def grants(self) -> list[tuple[Loc, S3GrantSettings]]:
        """Return what each key and anonymous clients may do, with the place of the setting."""
        found: list[tuple[Loc, S3GrantSettings]] = [
            (("s3", "keys", number), key) for number, key in enumerate(self.keys)
        ]
        if self.anonymous is not None:
            found.append((("s3", "anonymous"), self.anonymous))
        return found

    @model_validator(mode="after")
    def _is_usable(self) -> Self:
        if self.mode == "passthrough":
            if self.keys or self.anonymous is not None or self.pass_through:
                raise ValueError("must have neither keys, anonymous nor pass_through with mode: passthrough")
            return self
        if self.authorization_ttl:
            raise ValueError("must have mode: passthrough for authorization_ttl")
        if not self.keys and self.anonymous is None:
            raise ValueError("must have keys, or say what anonymous clients may do: no request could be served")
        ids = [key.id for key in self.keys]
        for name in ids:
            if ids.count(name) > 1:
                raise ValueError(f"has the key id {name} twice")
        return self
