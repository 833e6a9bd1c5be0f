"""One change at S3, as an event reports it. No I/O here."""

from dataclasses import dataclass
from enum import Enum


class EventKind(Enum):
    """What an event is about. The values are labels of metrics, so they are stable."""

    WRITTEN = "written"  # the key has a new current version
    DELETED = "deleted"  # the key has no current version any more, or S3 does not name the version
    VERSION_DELETED = "version-deleted"  # a version, current or not, is gone for good
    ACCESS = "access"  # who may read the object
    OTHER = "other"  # no change of bytes, metadata or access


@dataclass(frozen=True, slots=True)
class S3Event:
    """A change of one object. What the event does not name is None.

    `at` is S3's time of the change, in seconds since the epoch. `etag` has no quotes, and `version` is not empty.
    `sequencer` is only there if its sender orders the events of a key by it. With `is_folder`, all keys are meant that
    begin with `key`.
    """

    kind: EventKind
    bucket: str
    key: str
    at: float | None = None
    etag: str | None = None
    size: int | None = None
    version: str | None = None
    sequencer: str | None = None
    is_folder: bool = False


@dataclass(frozen=True, slots=True)
class EventMessage:
    """What a message holds: events, or one of those that senders try a target with.

    `unreadable` counts the records that are no events. `subscription` is true for a message of SNS that waits for a
    confirmation.
    """

    events: tuple[S3Event, ...] = ()
    is_test: bool = False
    subscription: bool = False
    unreadable: int = 0


class UnreadableMessage(Exception):
    """The message is no event of any known sender. The text has nothing of the message."""


def is_later(sequencer: str, other: str) -> bool | None:
    """Return whether an event comes after another one of the same key.

    Returns None if that is not known: the documents of S3 disagree on how sequencers of different length compare.
    """
    if len(sequencer) != len(other):
        return None
    return sequencer > other
