"""The values that access rules exchange with their caller: the facts of a request, and the verdict on it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from ipaddress import IPv4Address, IPv6Address
from typing import Protocol

from bucketfront.server.access.client_certificate import ClientCertificate

Address = IPv4Address | IPv6Address


@dataclass(frozen=True, slots=True)
class AccessRequest:
    """The facts of a request that rules decide on.

    `method` is what the request does: DELETE for S3's DeleteObjects, and for tus the method that overrides POST.
    `path` is the path as sent and `query` the raw query. `field` returns a request field's value, or None. `address` is
    the client's, None if it is unknown. `now` is in seconds since the epoch. `certificate` is that of the connection.
    """

    method: str
    path: str
    query: str
    field: Callable[[str], str | None]
    address: Address | None
    now: float
    certificate: ClientCertificate | None = None


class Scope(Enum):
    """Which keys a grant is for."""

    MOUNT = "mount"  # all keys of each mount that lists the rule
    PATH = "path"  # those that the path of the request leads to, in its mount


@dataclass(frozen=True, slots=True)
class Grant:
    """A rule holds for a request.

    `prefixes` are those of the S3 keys that it permits, and `methods` the methods. None stands for all. `holder` names
    the client that has the credential. It is None without a credential, or if several clients have the same one.
    """

    scope: Scope = Scope.MOUNT
    prefixes: tuple[bytes, ...] | None = None
    methods: frozenset[str] | None = None
    holder: str | None = None

    def permits(self, method: str, key: bytes | None = None, *, is_of_path: bool = True) -> bool:
        """Return whether the grant is for a method and a key.

        `key` is None for a request that names no key; its keys are checked one by one. `is_of_path` is false if the
        deciding mount is not the mount of the path.
        """
        if self.scope is Scope.PATH and not is_of_path:
            return False
        if self.methods is not None and method not in self.methods:
            return False
        return self.prefixes is None or key is None or key.startswith(self.prefixes)


@dataclass(frozen=True, slots=True)
class Denial:
    """A rule does not hold for a request. `reason` is None if the request has no credential of the rule's kind."""

    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Unavailable:
    """A rule cannot decide at present."""

    reason: str


RuleVerdict = Grant | Denial | Unavailable


class Rule(Protocol):
    """One way to let clients in.

    `scope` is that of its grants. `challenge` is its WWW-Authenticate (RFC 9110 section 11.6.1), or None if it has no
    such scheme.
    """

    @property
    def scope(self) -> Scope: ...

    @property
    def challenge(self) -> str | None: ...

    async def examine(self, request: AccessRequest) -> RuleVerdict:
        """Return the verdict. Raises AccessUnavailable if it cannot be had at present."""

    async def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Caller:
    """The client of one request: the verdicts of the rules that were examined, by their names."""

    verdicts: Mapping[str, RuleVerdict] = field(default_factory=dict)

    @property
    def credential(self) -> str | None:
        """Return the name of the client's credential, by rule and holder. Returns None if it has none of its own."""
        for name, verdict in self.verdicts.items():
            if isinstance(verdict, Grant) and verdict.holder is not None:
                # A subject of a token may have lone surrogates, which no file takes.
                return f"{name}:{verdict.holder}".encode("ascii", "backslashreplace").decode()
        return None


NOBODY = Caller()
"""A client without an address and without credentials, for whom only `public` mounts are open."""


def credentials(value: str | None, scheme: str) -> str | None:
    """Return the credentials of an Authorization field (RFC 9110 section 11.4). Returns None for another scheme."""
    if value is None:
        return None
    name, _, rest = value.partition(" ")
    return rest.strip(" ") if name.lower() == scheme else None
