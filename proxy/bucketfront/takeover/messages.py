"""What the two processes of a take-over send each other.

Theory of operation
-------------------
The process that has the lock of the cache folder listens at SOCKET_NAME in it. One connection has one conversation:

    new process          running process
    HELLO           →
                    ←    SOCKETS, with descriptors, or REFUSED
    RELEASE         →                           the new process has checked its configuration, and only lacks the lock
                    ←    RELEASED, or REFUSED   no connection is accepted, and the folder is not locked
    SERVING         →                           the new process has the lock, and accepts connections
                    ←    DONE, or WITHDRAWN     the running process has given the sockets up, or serves again

Until DONE the running process keeps its sockets open. If the conversation breaks, it serves as before. A new process
whose conversation breaks goes on alone, because then the running one has died: without it the lock is free.

INVALIDATE has the owner of the folder invalidate keys. The former one sends it for its last writes.
"""

from collections.abc import Iterable, Iterator, Sequence
from enum import StrEnum
from itertools import islice
from typing import Any

from bucketfront.descriptor_channel import BadMessage
from bucketfront.keys import ObjectKey

VERSION = 1  # of the conversation: processes of another one do not talk
SOCKET_NAME = "takeover.sock"
KEYS_AT_ONCE = 8  # of 1024 bytes each, which JSON may write as 6 KiB

CHECK_TIMEOUT_S = 120.0  # for the new process to check its configuration, of which names and TLS may be slow
RELEASE_TIMEOUT_S = 60.0  # for the running process: above the bounds of its steps together
SERVE_TIMEOUT_S = 60.0  # for the new process to open the cache; a migrated index may be large
REPLY_TIMEOUT_S = 10.0  # for messages that only need the other event loop


class Step(StrEnum):
    HELLO = "hello"
    SOCKETS = "sockets"
    RELEASE = "release"
    RELEASED = "released"
    SERVING = "serving"
    DONE = "done"
    REFUSED = "refused"
    WITHDRAWN = "withdrawn"
    INVALIDATE = "invalidate"
    INVALIDATED = "invalidated"


def message(step: Step, **fields: Any) -> dict[str, Any]:
    return {"step": step.value, **fields}


def step_of(fields: Any) -> Step:
    """Return the step of a message. Raises BadMessage."""
    try:
        return Step(fields["step"])
    except (KeyError, ValueError) as error:
        raise BadMessage("a message of an unknown kind") from error


def invalidations(keys: Iterable[ObjectKey]) -> Iterator[dict[str, Any]]:
    """Yield the messages that invalidate these keys."""
    left = iter(keys)
    while batch := list(islice(left, KEYS_AT_ONCE)):
        yield message(Step.INVALIDATE, keys=[[key.bucket, key.key, key.version] for key in batch])


def keys_of(fields: Any) -> Sequence[ObjectKey]:
    """Return the keys of an invalidation. Raises BadMessage."""
    try:
        return [
            ObjectKey(str(bucket), str(key), None if version is None else str(version))
            for bucket, key, version in fields["keys"]
        ]
    except (KeyError, TypeError, ValueError) as error:
        raise BadMessage("an invalidation without keys") from error
