"""The settings of the listeners for clients and operators: addresses, TLS, CORS, the access log."""

from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationInfo, field_validator

from bucketfront.config.access_settings import Network
from bucketfront.config.checked_text import BearerToken, FieldName, Host, HostName, Text, WebOrigin
from bucketfront.config.listen_host import is_loopback
from bucketfront.config.quantities import Duration, Flag, Percent, Percentage, Port
from bucketfront.config.section import Section, SettingError

# The headers that players and their tools read from another origin, beyond CORS-safelisted ones (Fetch standard).
_EXPOSED = (
    "*", "Accept-Ranges", "Age", "Cache-Status", "Content-Encoding", "Content-Length", "Content-Range", "Date", "ETag",
    "Location", "Server-Timing",
)  # fmt: skip


class TlsSettings(Section):
    """The certificate of the listener for clients."""

    certificate: Path
    """PEM file with the certificate, followed by its chain."""
    key: Path
    """PEM file with the private key."""


class ServerSettings(Section):
    """The listener for clients."""

    host: Host = "127.0.0.1"
    """Address to listen on. `*` and `"::"` listen on all addresses, in IPv4 and IPv6; `0.0.0.0` on those of IPv4.
    `localhost` is `127.0.0.1` and `::1`. A name stands for all its addresses that this machine has."""
    port: Port = 8080
    """TCP port. 0 takes a free one."""
    hosts: tuple[HostName, ...] = Field(default=(), examples=["[media.example.com]"])
    """Names under which clients reach bucketfront, as in a request's `Host`, without a port. Writes and the admin port
    accept these names only, IP addresses, and `localhost`. Reads do so too if the list has a name. Other names
    get 421, because a foreign page can give its own name our address (DNS rebinding). In Docker or Kubernetes, the
    service's name belongs here."""
    tls: TlsSettings | None = None
    """Certificate and key for HTTPS. With `null` the listener speaks plain HTTP. TLS rules out `sendfile`, so plain
    HTTP behind a TLS terminator is faster."""
    trusted_proxies: tuple[Network, ...] = Field(default=(), examples=["[10.0.0.0/8]"])
    """Networks of fronts whose `Forwarded` or `X-Forwarded-For` names the client. Its address is then the last one
    there that is not of these networks. If a request has both fields and they name different clients,
    the client is unknown. Requests with `Forwarded` bypass the fast path."""
    timing: Flag = False
    """Whether responses carry `Server-Timing`, which shows clients the time spent on cache and origin. It turns the
    fast path off."""
    fast_path: Flag = True
    """Whether bucketfront serves plain hits before the HTTP parser sees them. The responses are the same either way.
    Without the fast path a hit costs many times as much."""
    client_share: Percentage | None = Percent(25)
    """Share that one client may have of what is limited, once it runs short: connections, requests and uploads at once,
    connections to the origin. A client is its credential for a rule of `access`, or else its address, in IPv6 the first
    64 bits of one. If it has more, it gets none of the last eighth, and 429 in its place. Its idle connections are the
    first to make way for others. Addresses of this machine and of `server.trusted_proxies` have no such limit, because
    a server in front stands for many clients. Those that it names have one each. `null` sets none for any."""

    @property
    def names(self) -> tuple[str, ...]:
        """Return the names that are served: `hosts`, and `host`, which may be an address as well."""
        return (*self.hosts, self.host)


class AdminSettings(Section):
    """The listener for operators: health, metrics, statistics, purge."""

    host: Host = "127.0.0.1"
    """Address to listen on, as in `server.host`."""
    port: Port = 8081
    """TCP port. 0 takes a free one."""
    token: BearerToken | None = Field(default=None, validate_default=True)
    """What operators send as `Authorization: Bearer …`. It has at least 16 characters, and is required if `admin.host`
    is not a loopback address."""

    @field_validator("token")
    @classmethod
    def _token_beyond_loopback(cls, token: BearerToken | None, info: ValidationInfo) -> BearerToken | None:
        host = info.data.get("host")
        if token is None and host is not None and not is_loopback(host):
            raise SettingError(
                "needed, because admin.host is not loopback: set it, or let admin.host be 127.0.0.1",
                ("admin", "token"),
                ("admin", "host"),
            )
        return token


class CorsSettings(Section):
    """Which web pages may read responses (CORS), and which may write. bucketfront responds to preflights itself."""

    allow_origins: tuple[WebOrigin, ...] = ("*",)
    """Origins whose pages may read responses. `*` allows all, an empty list none. Pages of a named origin may also
    write. `*` and `null` do not name one, so by default only bucketfront's own pages may write."""
    allow_headers: tuple[FieldName, ...] = ("*",)
    """Request headers that a page may send beyond the safelisted ones. `*` allows any."""
    expose_headers: tuple[FieldName, ...] = _EXPOSED
    """Response headers that a page may read. `*` allows all for requests without credentials. The default names what
    players read."""
    allow_credentials: Flag = False
    """Whether a page may send cookies. It needs `cors.allow_origins` to name its origins."""
    max_age: Duration = 7200.0
    """How long a browser may remember the response to a preflight. Chromium caps it at 2 hours."""
    timing_allow_origins: tuple[WebOrigin, ...] = ()
    """Origins whose pages see detailed timings (`Timing-Allow-Origin`)."""
    resource_policy: Literal["same-origin", "same-site", "cross-origin"] | None = None
    """The value of `Cross-Origin-Resource-Policy`. With `null` the header is not sent."""

    @field_validator("allow_credentials")
    @classmethod
    def _not_for_all_origins(cls, allowed: bool, info: ValidationInfo) -> bool:  # noqa: FBT001 - pydantic's signature
        if allowed and "*" in info.data.get("allow_origins", ()):
            raise ValueError("needs allow_origins to name its origins: '*' would let every page read as the visitor")
        return allowed


class AccessLogSettings(Section):
    """The access log: one line for each request, with the decision of the cache.

    No request waits for the log. Lines are written in batches, up to 0.1 s late. Up to 8 MiB of lines wait for a slow
    reader. Beyond that, or if the disk refuses them, lines are dropped and counted in
    `bucketfront_access_log_lines_dropped_total`. A clean stop writes the waiting lines, for at most 2 s. A `kill -9`
    loses the last 0.1 s.
    """

    format: Literal["json", "text"] = "json"
    """Format of a line: a JSON object, or fields for people."""
    path: Text = "-"
    """File to append to. `-` is standard output. After SIGUSR1 bucketfront opens the path again, so a rotation by
    rename loses no line. If it cannot be opened, the lines go on in the old file, with a warning."""
