"""What the owner and a front end send each other: one datagram of a Unix socket for each message, with descriptors.

A message is a kind, facts that JSON can hold, and bytes. Descriptors travel beside it (unix(7), SCM_RIGHTS).
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

_LENGTH_BYTES = 4  # of the length of the facts, behind the octet of the kind


class Kind(IntEnum):
    """The kinds of messages. The comment names who sends it, and the descriptors that it has."""

    CONFIGURE = 1  # owner: the settings to begin with; the lock of the cache folder, and the listening sockets
    READY = 2  # front end: it accepts connections; a pidfd of its process
    WANT = 3  # front end: a lease on a key
    GRANT = 4  # owner: the lease; its file, unless the body came along
    DENY = 5  # owner: there is no lease on a key
    REVOKE = 6  # owner: a lease has ended
    GONE = 7  # front end: it uses a lease for no further response
    CLOSED = 8  # front end: a lease that ended has no descriptor left
    HAND_OVER = 9  # front end: a connection whose request the owner serves; its socket
    GIVE_BACK = 10  # owner: a connection that was handed over, and is at rest; its socket
    SERVED = 11  # front end: the requests that have ended, and the uses of leases
    FLUSH = 12  # owner: send what has ended
    FLUSHED = 13  # front end: all that ended before FLUSH has been sent, and counts
    BEGIN_TO_DRAIN = 14  # owner: hand each request over, because its response has to say that it is the last
    DRAIN = 15  # owner: serve no further hits, accept no connections, and end those that are open within some seconds
    DRAINED = 16  # front end: no connection is open
    ADOPT = 17  # owner: other settings
    IN_STEP = 18  # owner: until when all changes elsewhere are known, which bounds the freshness of leases


@dataclass(frozen=True, slots=True)
class Message:
    kind: Kind
    facts: Mapping[str, Any] = field(default_factory=dict)
    data: bytes | memoryview = b""

    def encoded(self) -> bytes:
        facts = json.dumps(self.facts, separators=(",", ":")).encode()
        return b"".join((bytes((self.kind,)), len(facts).to_bytes(_LENGTH_BYTES), facts, self.data))

    @classmethod
    def decoded(cls, octets: bytes) -> "Message":
        """Return the message of a datagram. Raises ValueError if it is none."""
        begin = 1 + _LENGTH_BYTES
        end = begin + int.from_bytes(octets[1:begin])
        return cls(Kind(octets[0]), json.loads(octets[begin:end]), octets[end:])
