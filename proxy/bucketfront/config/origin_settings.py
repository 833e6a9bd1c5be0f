"""The settings of the S3 service behind the cache, and of the credentials for it."""

from typing import Annotated, Literal

from pydantic import Discriminator, Field, Tag

from bucketfront.config.checked_text import (
    AcceptEncoding,
    AccountId,
    CertificateFile,
    Endpoint,
    Secret,
    Text,
    Token,
)
from bucketfront.config.quantities import MIB, Duration, Flag, Size, WholeNumber
from bucketfront.config.section import Section

# pydantic puts the tag of a union's branch into the place of an error. `validation` removes it again.
NAMED, STATIC, PROFILE = UNION_TAGS = ("<named>", "<static>", "<profile>")


class StaticCredentials(Section):
    """Access keys. `file:/absolute/path` keeps them out of the file, and is read again if S3 refuses them."""

    access_key_id: Token
    """The id of the access key."""
    secret_access_key: Secret
    """The secret of the access key."""
    session_token: Token | None = None
    """The session token of temporary credentials."""


class ProfileCredentials(Section):
    """A profile of the AWS configuration files."""

    profile: Text
    """The name of the profile."""


def _credentials_tag(value: object) -> str:
    if isinstance(value, ProfileCredentials) or (isinstance(value, dict) and "profile" in value):
        return PROFILE
    return STATIC if isinstance(value, (dict, StaticCredentials)) else NAMED


Credentials = Annotated[
    Annotated[Literal["default", "anonymous"], Tag(NAMED)]
    | Annotated[StaticCredentials, Tag(STATIC)]
    | Annotated[ProfileCredentials, Tag(PROFILE)],
    Discriminator(_credentials_tag),
]


class OriginSettings(Section):
    """The S3 service behind the cache, and the limits for requests to it."""

    endpoint_url: Endpoint | None = None
    """Scheme, host and port of any S3-compatible service. `embedded` starts an S3 in memory, to try things out. `null`
    leaves the endpoint to the AWS SDK. That is AWS, unless AWS_ENDPOINT_URL_S3, AWS_ENDPOINT_URL or the profile has
    another one. AWS_USE_FIPS_ENDPOINT, AWS_USE_DUALSTACK_ENDPOINT and the profile choose between endpoints of AWS. The
    start and `bucketfront check` print the endpoint and region that result. Each endpoint has a cache of its own. No
    request leaves an endpoint that is not AWS's."""
    region: Text = "us-east-1"
    """The region that requests are signed for."""
    addressing_style: Literal["auto", "path", "virtual"] = "auto"
    """Whether the bucket stands in the path or in the host name, as in the AWS SDKs."""
    credentials: Credentials = "default"
    """`default` is the AWS chain: environment, profile, web identity, container, instance role. `anonymous` signs
    nothing. A mapping gives access keys or a profile."""
    accept_encoding: AcceptEncoding = "identity"
    """Content codings that requests for objects accept, for example `gzip, br`. Some stores (Google's, Cloudflare's)
    keep an object compressed and send it decoded unless its coding is named. Without length and ETag it cannot be
    cached then. Name the codings that your objects are stored with there. Clients get them, whatever they accept. A
    mount may have its own value. A change holds for objects that are fetched after it."""
    request_payer: Flag = False
    """Whether requests accept the costs that the owner of a bucket leaves to the requester (Requester Pays). S3 refuses
    requests for such a bucket without it."""
    expected_bucket_owner: AccountId | None = None
    """The AWS account that the buckets must belong to, of 12 digits in quotes. S3 refuses requests for a bucket of
    another account. With `null` any account will do."""
    create_bucket: Flag = False
    """Whether to create missing buckets at the start."""
    connect_timeout: Annotated[Duration, Field(gt=0)] = 3.0
    """Timeout of a connection to S3. Together with `origin.read_timeout` it is the deadline of one S3 call."""
    read_timeout: Annotated[Duration, Field(gt=0)] = 20.0
    """Timeout for the next byte from S3."""
    keep_alive_timeout: Annotated[Duration, Field(ge=0)] = 4.0
    """How long an idle connection to S3 is kept, 0 for not at all. It should be shorter than the idle timeout of the
    origin and of load balancers on the way, because a request that meets a closing connection is lost. The default is
    below the 5 s of Node.js, the shortest of common servers. A read on a connection that was closed meanwhile is sent
    again at once. A write is not sent again, so it uses no connection that was idle for more than half a second."""
    ca_bundle: CertificateFile | None = None
    """PEM file with certificates of authorities that are trusted for S3, besides those of the system, SSL_CERT_FILE and
    SSL_CERT_DIR. `null` takes that of AWS_CA_BUNDLE or the profile, if they name one. It is read at the start."""
    environment_proxy: bool = False
    """Send requests to S3 through the HTTP proxy that HTTP_PROXY, HTTPS_PROXY and NO_PROXY name. By default these
    variables do not count, so that only the configuration decides where requests go."""
    max_connections: Annotated[WholeNumber, Field(ge=1, le=65535)] = 64
    """Connections to S3 at once. One object uses at most half of them, and so do uploads."""
    part_size: Annotated[Size, Field(gt=0)] = 8 * MIB
    """Bytes that one ranged GET requests at most. It must be a multiple of `cache.block_size`. The last GET of a range
    may request half as much more, if that saves another one."""
    parallel_parts: Annotated[WholeNumber, Field(ge=1, le=1024)] = 8
    """Ranged GETs at once for one object."""
