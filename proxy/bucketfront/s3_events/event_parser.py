"""Read the messages of S3 and of other senders as events. No I/O here.

Known forms, which may be inside each other: the `Records` of S3, MinIO and Ceph, the test event of S3, an envelope of
SNS, an event of EventBridge, and what SeaweedFS posts. Messages come from outside, so each field may have any type.
"""

import json
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from bucketfront.errors import BadPath
from bucketfront.keys import percent_decode, to_key
from bucketfront.s3_events.event import EventKind, EventMessage, S3Event, UnreadableMessage

MAX_MESSAGE_BYTES = 4 << 20  # of SeaweedFS, which lists the chunks of an object; one of SQS has at most 1 MiB
MAX_NESTED = 50_000  # objects and lists, which the JSON parser makes in some 10 ms without a pause for other threads
MAX_DEPTH = 3  # of envelopes: EventBridge or S3 in SNS, and one to spare

_Fields = Mapping[str, Any]

# By the name without "s3:". Names that begin with one of these are of the kind.
_KINDS = (
    ("ObjectCreated:", EventKind.WRITTEN),
    ("ObjectSynced:", EventKind.WRITTEN),  # of Ceph, from another zone
    ("ObjectRemoved:", EventKind.DELETED),
    ("LifecycleExpiration:", EventKind.DELETED),
    ("ObjectLifecycle:Expiration", EventKind.DELETED),  # of Ceph
    ("ObjectAcl:", EventKind.ACCESS),
)
_DETAIL_TYPES = {
    "Object Created": EventKind.WRITTEN,
    "Object Deleted": EventKind.DELETED,
    "Object ACL Updated": EventKind.ACCESS,
}
_PLAIN_DELETES = ("Delete", "DeleteMarkerCreated", "DeleteMarker")
_ENCODED = frozenset({"aws:s3", "minio:s3"})  # the senders that always encode keys as a form does
_ORDERED = frozenset({"aws:s3"})  # others take the clock of a node, or bytes of a time in no order
_SEAWEED_KINDS = {
    "create": EventKind.WRITTEN, "update": EventKind.WRITTEN, "rename": EventKind.WRITTEN, "delete": EventKind.DELETED,
}  # fmt: skip
_SEAWEED_ROOT = "/buckets/"
_SEAWEED_VERSIONS = ".versions"  # the folder beside an object that has its versions


def parse(body: str | bytes, depth: int = 0) -> EventMessage:
    """Return what a message holds. Raises UnreadableMessage."""
    if len(body) > MAX_MESSAGE_BYTES:
        raise UnreadableMessage(f"it has more than {MAX_MESSAGE_BYTES} bytes")
    if _nested(body) > MAX_NESTED:
        raise UnreadableMessage(f"it has more than {MAX_NESTED} objects and lists")
    try:
        found = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise UnreadableMessage("it is no JSON") from error
    if not isinstance(found, dict):
        raise UnreadableMessage("it is no JSON object")
    if (message := _unfolded(found, depth)) is not None:
        return message
    if isinstance(found.get("Records"), list):
        return _collected(_of_record(each) for each in found["Records"])
    if found.get("source") == "aws.s3" and isinstance(found.get("detail"), dict):
        return _collected(iter([_of_event_bridge(found)]))
    if isinstance(found.get("event_type"), str) and isinstance(found.get("key"), str):
        return _collected(iter([_of_seaweed(found)]))
    raise UnreadableMessage("it is no event of a known sender")


def _nested(body: str | bytes) -> int:
    """Return how many objects and lists a message has at most."""
    return body.count("{") + body.count("[") if isinstance(body, str) else body.count(b"{") + body.count(b"[")


def _unfolded(found: _Fields, depth: int) -> EventMessage | None:
    """Return what an envelope or a message for a trial holds. Returns None for any other message."""
    if found.get("Event") == "s3:TestEvent":
        return EventMessage(is_test=True)
    kind, inner = found.get("Type"), found.get("Message")
    if kind in ("SubscriptionConfirmation", "UnsubscribeConfirmation"):
        return EventMessage(subscription=True)
    if kind == "Notification" and isinstance(inner, str):
        if depth >= MAX_DEPTH:
            raise UnreadableMessage("it has too many envelopes")
        return parse(inner, depth + 1)
    return None


def _collected(found: Iterator[list[S3Event] | None]) -> EventMessage:
    events: list[S3Event] = []
    unreadable = 0
    for each in found:
        if each is None:
            unreadable += 1
        else:
            events += each
    return EventMessage(tuple(events), unreadable=unreadable)


def _of_record(record: Any) -> list[S3Event] | None:
    """Return the events of a record. Returns None if it is malformed."""
    s3 = _fields(record, "s3")
    obj, bucket = _fields(s3, "object"), _text(_fields(s3, "bucket"), "name")
    name, raw, source = _text(record, "eventName"), _text(obj, "key"), _text(record, "eventSource")
    if name is None or raw is None or bucket is None:
        return None
    name = name.removeprefix("s3:")
    version = _version(_text(obj, "versionId"))
    kind = next((kind for begin, kind in _KINDS if name.startswith(begin)), EventKind.OTHER)
    if kind is EventKind.DELETED:
        kind = _kind_of_deletion(name.rpartition(":")[2], version)
    keys = _keys(raw, is_encoded=source in _ENCODED)
    if not keys:
        return None
    event = S3Event(
        kind,
        bucket,
        keys[0],
        at=_time(_text(record, "eventTime")),
        etag=_etag(_text(obj, "eTag") or _text(obj, "etag")),
        size=_size(obj.get("size")),
        version=version,
        sequencer=_text(obj, "sequencer") if source in _ORDERED else None,
    )
    return [event, *(S3Event(kind, bucket, other, at=event.at, version=version) for other in keys[1:])]


def _kind_of_deletion(how: str, version: str | None) -> EventKind:
    """Return what is deleted. The version of a delete marker is that of the marker, which no response has."""
    if version is None or "Marker" in how or how == "Current":
        return EventKind.DELETED
    return EventKind.VERSION_DELETED


def _keys(raw: str, *, is_encoded: bool) -> list[str]:
    """Return the keys that the text of a record may mean, because some senders encode them, and others do not."""
    decoded = _decoded(raw)
    return decoded if is_encoded else list(dict.fromkeys((*_plain(raw), *decoded)))


def _decoded(raw: str) -> list[str]:
    try:
        return [to_key(percent_decode(raw.replace("+", " ").encode()))]
    except (BadPath, UnicodeEncodeError):
        return []


def _plain(raw: str) -> list[str]:
    try:
        return [to_key(raw.encode())]
    except (BadPath, UnicodeEncodeError):
        return []


def _of_event_bridge(found: _Fields) -> list[S3Event] | None:
    """Return the event of EventBridge. Its key is not encoded."""
    detail = _fields(found, "detail")
    obj, bucket = _fields(detail, "object"), _text(_fields(detail, "bucket"), "name")
    keys = _plain(_text(obj, "key") or "")
    if bucket is None or not keys:
        return None
    kind = _DETAIL_TYPES.get(_text(found, "detail-type") or "", EventKind.OTHER)
    version = _version(_text(obj, "version-id"))
    if kind is EventKind.DELETED:
        kind = _kind_of_deletion((_text(detail, "deletion-type") or "").replace(" ", ""), version)
    return [
        S3Event(
            kind,
            bucket,
            keys[0],
            at=_time(_text(found, "time")),
            etag=_etag(_text(obj, "etag")),
            size=_size(obj.get("size")),
            version=version,
            sequencer=_text(obj, "sequencer"),
        )
    ]


def _of_seaweed(found: _Fields) -> list[S3Event]:
    """Return the events of SeaweedFS, whose keys are paths of its filer. A rename has two, another folder none."""
    kind = _SEAWEED_KINDS.get(found["event_type"], EventKind.OTHER)
    message = _fields(found, "message") or _fields(found, "message_data")
    old, new = _fields(message, "old_entry"), _fields(message, "new_entry")
    is_folder = (new or old).get("is_directory") is True
    at = _fields(new, "attributes").get("mtime")
    seconds = float(at) if isinstance(at, int) and not isinstance(at, bool) and at > 0 else None
    paths = [found["key"]]
    parent, name = _text(message, "new_parent_path"), _text(new, "name")
    if parent is not None and name is not None:
        paths.append(f"{parent.rstrip('/')}/{name}")
    return [
        event for path in dict.fromkeys(paths) for event in _of_filer_path(path, kind, seconds, is_folder=is_folder)
    ]


def _of_filer_path(path: str, kind: EventKind, at: float | None, *, is_folder: bool) -> list[S3Event]:
    if not path.startswith(_SEAWEED_ROOT):
        return []
    bucket, _, key = path.removeprefix(_SEAWEED_ROOT).partition("/")
    if is_folder and kind is EventKind.WRITTEN and not key.endswith(_SEAWEED_VERSIONS):
        kind = EventKind.OTHER  # a new folder, in which each object has an event of its own
    names = ([f"{key}/" if key else ""] if is_folder else _plain(key)) if _plain(key or "/") else []
    found = [S3Event(kind, bucket, name, at=at, is_folder=is_folder) for name in names]
    # The version that is the current one shows in this folder only.
    if (place := key.find(f"{_SEAWEED_VERSIONS}/")) > 0 or key.endswith(_SEAWEED_VERSIONS):
        base = key[:place] if place > 0 else key.removesuffix(_SEAWEED_VERSIONS)
        found += [S3Event(EventKind.WRITTEN, bucket, each, at=at) for each in _plain(base)]
    return found


# --- fields of any type ------------------------------------------------------------------------------------------


def _fields(value: Any, name: str) -> _Fields:
    found = value.get(name) if isinstance(value, dict) else None
    return found if isinstance(found, dict) else {}


def _text(value: Any, name: str) -> str | None:
    found = value.get(name) if isinstance(value, dict) else None
    return found if isinstance(found, str) else None


def _version(text: str | None) -> str | None:
    return text or None


def _etag(text: str | None) -> str | None:
    return (text or "").strip('"') or None


def _size(value: Any) -> int | None:
    """Return a size, which Ceph has sent as text."""
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 20:
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _time(text: str | None) -> float | None:
    try:
        found = datetime.fromisoformat(text or "")
    except ValueError:
        return None
    try:
        return (found if found.tzinfo is not None else found.replace(tzinfo=UTC)).timestamp()
    except (OverflowError, ValueError):
        return None
