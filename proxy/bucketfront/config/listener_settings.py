"""The settings of the listeners for clients and operators: addresses, TLS, CORS, the access log."""

from typing import Annotated, Literal, Self

from pydantic import Field, ValidationInfo, field_validator, model_validator

from bucketfront.config.checked_text import BearerToken, FieldName, Host, HostName, Text, WebOrigin
from bucketfront.config.listen_host import UNIX, is_loopback, overlap
from bucketfront.config.listen_text import Front, SocketMode, SocketName, SocketPath, UserName
from bucketfront.config.problems import Loc
from bucketfront.config.quantities import Duration, Flag, Percent, Percentage, Port, WholeNumber
from bucketfront.config.section import Section, SettingError
from bucketfront.config.tls_settings import ClientTlsSettings, TlsSettings

# The headers that players and their tools read from another origin, beyond CORS-safelisted ones (Fetch standard).
_EXPOSED = (
    "*", "Accept-Ranges", "Age", "Cache-Status", "Content-Encoding", "Content-Length", "Content-Range", "Date", "ETag",
    "Location", "Server-Timing",
)  # fmt: skip


class ListenerSettings(Section):
    """A further listener for clients. It has one of the keys `host`, `unix` and `systemd`.

    All listeners serve the same mounts by the same rules.
    """

    host: Host | None = None
    """Address to listen on, as in `server.host`."""
    port: Port | None = None
    """TCP port of `host`. 0 takes a free one."""
    unix: SocketPath | None = Field(default=None, examples=["/run/bucketfront/http.sock"])
    """Path of a Unix socket, absolute and of at most 107 bytes. The start replaces a socket that no process serves. A
    clean stop removes the socket."""
    mode: SocketMode = "0660"
    """Octal mode of the Unix socket, in quotes. Those with the right to write may connect."""
    owner: UserName | None = None
    """User that owns the Unix socket, by name or number. `null` is the user of the process; another one needs root."""
    group: UserName | None = None
    """Group of the Unix socket, by name or number. Without root it must be a group of the process."""
    systemd: SocketName | None = Field(default=None, examples=["clients"])
    """Name of sockets that systemd passes at the start (`FileDescriptorName=` of the socket unit). Where they listen is
    known only then, so a mount that takes writes needs `write`."""
    proxy_protocol: Flag = False
    """Whether fronts begin each connection with a header of the PROXY protocol, as in `server.proxy_protocol`. On a
    Unix socket all peers must do so, and are believed."""
    plain: Flag = False
    """Whether clients speak plain HTTP although `server.tls` is set. On Unix sockets they always do so, unless the
    listener has its own `tls`."""
    tls: ClientTlsSettings | None = None
    """Certificates of this listener. With `null`, TCP listeners use `server.tls`."""

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        given = [name for name in ("host", "unix", "systemd") if getattr(self, name) is not None]
        if len(given) != 1:
            found = f", and has {' and '.join(given)}" if given else ""
            raise ValueError(f"must have exactly one of host, unix, systemd{found}")
        if (self.port is None) != (self.host is None):
            raise ValueError("needs a port" if self.port is None else "has a port, which belongs to host")
        if self.unix is None and (only := {"mode", "owner", "group"} & self.model_fields_set):
            raise ValueError(f"has {', '.join(sorted(only))}, which only a Unix socket has")
        if self.plain and self.tls is not None:
            raise ValueError("has tls, and is plain: leave one of them out")
        return self

    @property
    def is_local(self) -> bool:
        """Return whether only this machine reaches the listener. Returns False if that is not known."""
        return self.unix is not None or (self.host is not None and is_loopback(self.host))


MAX_WORKERS = 64  # more processes than that only take memory


class ServerSettings(Section):
    """The listeners for clients."""

    host: Host = "127.0.0.1"
    """Address to listen on. `*` and `"::"` listen on all addresses, in IPv4 and IPv6; `0.0.0.0` on those of IPv4.
    `localhost` is `127.0.0.1` and `::1`. A name stands for all its addresses that this machine has."""
    port: Port | None = 8080
    """TCP port. 0 takes a free one. `null` listens only where `server.listeners` says."""
    proxy_protocol: Flag = False
    """Whether fronts begin each connection to `server.port` with a header of the PROXY protocol, version 1 or 2, which
    names the client. The addresses of `server.trusted_proxies` must send one; all other clients must not."""
    listeners: tuple[ListenerSettings, ...] = Field(default=(), validate_default=True)
    """Further listeners: see [docs/listeners.md](listeners.md)."""
    hosts: tuple[HostName, ...] = Field(default=(), examples=["[media.example.com]"])
    """Names under which clients reach bucketfront, as in a request's `Host`, without a port. Writes and the admin port
    accept these names only, IP addresses, and `localhost`. Reads do so too if the list has a name. Other names
    get 421, because a foreign page can give its own name our address (DNS rebinding). In Docker or Kubernetes, the
    service's name belongs here."""
    tls: ClientTlsSettings | None = None
    """Certificates for HTTPS, which are read again when they change. With `null` the listener speaks plain HTTP. TLS
    rules out `sendfile`, so plain HTTP behind a TLS terminator is faster."""
    trusted_proxies: tuple[Front, ...] = Field(default=(), validate_default=True, examples=["[10.0.0.0/8, unix]"])
    """Networks of fronts whose `Forwarded` or `X-Forwarded-For` names the client. Its address is then the last one
    there that is not of these networks. If a request has both fields and they name different clients,
    the client is unknown. Requests with `Forwarded` bypass the fast path. `unix` stands for the peers of all Unix
    sockets."""
    timing: Flag = False
    """Whether responses carry `Server-Timing`, which shows clients the time spent on cache and origin. It turns the
    fast path off."""
    fast_path: Flag = True
    """Whether bucketfront serves plain hits before the HTTP parser sees them. The responses are the same either way.
    Without the fast path a hit costs many times as much."""
    workers: Literal["auto"] | Annotated[WholeNumber, Field(ge=1, le=MAX_WORKERS)] = "auto"
    """Processes that accept connections and serve hits, beside the one that owns the cache. With 1 the owner does all
    of it. `auto` is the number of whole cores that the process may use by its affinity and by the quota of its control
    group, at most one for each 256 MiB of memory that the group permits, and at most 8. It is 1 on other systems than
    Linux, which more than 1 needs, and without the fast path. Each takes 20 to 25 MiB. See
    [docs/workers.md](workers.md)."""
    stop_delay: Duration = 0.0
    """How long the proxy goes on to serve after SIGTERM, with `/readyz` at 503 and `Connection: close` in each
    response. Set it to the time that load balancers need to notice, in Kubernetes about `10s`. After it no connection
    is accepted, and running responses have 25 s to end."""
    client_share: Percentage | None = Percent(25)
    """Share that one client may have of what is limited, once it runs short: connections, requests and uploads at
    once, unfinished resumable uploads, connections to the origin. A client is its credential for a rule of
    `access`, or else its address, in IPv6 the first 64 bits of one. If it has more, it gets none of the last
    eighth: requests get 429, and new connections 503. Its idle connections are the first to make way for others.
    Addresses of this machine and of `server.trusted_proxies` have no such limit, because a server in front stands for
    many clients. Those that it names have one each. `null` sets none for any."""

    @field_validator("trusted_proxies")
    @classmethod
    def _fronts_of_proxy_protocol(cls, fronts: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        networks = [front for front in fronts if front != UNIX]
        own = (("server", "proxy_protocol"), info.data.get("proxy_protocol") and info.data.get("port") is not None)
        further = (
            (("server", "listeners", number, "proxy_protocol"), listener.proxy_protocol and listener.host is not None)
            for number, listener in enumerate(info.data.get("listeners", ()))
        )
        for at, needs_networks in (own, *further):
            if needs_networks and not networks:
                raise SettingError(
                    "needs server.trusted_proxies, which has the networks of the fronts that are believed",
                    at,
                    ("server", "trusted_proxies"),
                )
        return fronts

    @field_validator("listeners")
    @classmethod
    def _distinct(cls, listeners: tuple[ListenerSettings, ...], info: ValidationInfo) -> tuple[ListenerSettings, ...]:
        host, port = info.data.get("host"), info.data.get("port")
        if port is None and not listeners and "port" in info.data:
            raise SettingError("must be a port, because server.listeners has no other listener", ("server", "port"))
        places: list[tuple[str, str | None, int | None, str | None]]
        places = [("server.port", host, port, None)] if host is not None and port is not None else []
        for number, one in enumerate(listeners):
            named = one.unix or one.systemd
            for earlier, its_host, its_port, its_name in places:
                same_port = one.port is not None and one.port == its_port != 0
                if (named is not None and named == its_name) or (same_port and overlap(str(one.host), str(its_host))):
                    raise SettingError(
                        f"the same place as {earlier}: each listener needs its own", ("server", "listeners", number)
                    )
            places.append((f"server.listeners[{number}]", one.host, one.port, named))
        return listeners

    @property
    def all_tls(self) -> list[tuple[Loc, ClientTlsSettings]]:
        """Return the TLS of all listeners for clients, each with its place."""
        own = [] if self.tls is None else [(("server", "tls"), self.tls)]
        places = ((("server", "listeners", number, "tls"), one.tls) for number, one in enumerate(self.listeners))
        return [*own, *((at, tls) for at, tls in places if tls is not None)]

    @property
    def share_of_one(self) -> float:
        """Return `client_share` as a number from 0 to 1."""
        return 1.0 if self.client_share is None else self.client_share.value / 100

    @property
    def names(self) -> tuple[str, ...]:
        """Return the names that are served: `hosts`, and those of the listeners, which may be addresses as well."""
        return (*self.hosts, self.host, *(one.host for one in self.listeners if one.host is not None))

    @property
    def is_local(self) -> bool:
        """Return whether only this machine reaches the listeners.

        A Unix socket counts as local, because no more programs reach it than reach a loopback address.
        """
        return (self.port is None or is_loopback(self.host)) and all(one.is_local for one in self.listeners)

    @property
    def has_only_tls(self) -> bool:
        """Return whether each listener speaks TLS for sure, so that no page of theirs has the scheme http."""
        return (self.port is None or self.tls is not None) and all(
            one.tls is not None or (one.host is not None and self.tcp_tls(one) is not None) for one in self.listeners
        )

    def tcp_tls(self, listener: ListenerSettings) -> ClientTlsSettings | None:
        """Return the TLS of a further listener's TCP connections. Returns None if they are plain."""
        return None if listener.plain else listener.tls or self.tls

    @property
    def front_networks(self) -> tuple[str, ...]:
        """Return the networks of `trusted_proxies`."""
        return tuple(front for front in self.trusted_proxies if front != UNIX)


class AdminSettings(Section):
    """The listener for operators: health, metrics, statistics, purge."""

    host: Host = "127.0.0.1"
    """Address to listen on, as in `server.host`."""
    port: Port = 8081
    """TCP port. 0 takes a free one."""
    token: BearerToken | None = Field(default=None, validate_default=True)
    """What operators send as `Authorization: Bearer …`. It has at least 16 characters, and is required if `admin.host`
    is not a loopback address."""
    tls: TlsSettings | None = None
    """Certificates for HTTPS. With `null` the listener speaks plain HTTP. `bucketfront purge` and `stats` trust the
    configured certificate, and no authority."""

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
    fields: tuple[Literal["user_agent", "referer"], ...] = ("user_agent",)
    """Further fields of each line, as clients send them, cut after 256 characters. `referer` lacks its query. A field
    costs a hit 2 % of its time if its request has it: see [docs/log-fields.md](log-fields.md)."""
    path: Text = "-"
    """File to append to. `-` is standard output. After SIGUSR1 bucketfront opens the path again, so a rotation by
    rename loses no line. If it cannot be opened, the lines go on in the old file, with a warning. `/dev/null` turns the
    log off, and saves what it costs."""
