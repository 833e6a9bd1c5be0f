"""The messages of each sender become the same events, and a message of anybody else becomes none."""

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from messages import AT, BUCKET, ETAG, TEST_EVENT, event_bridge, message, record, seaweed, sns
from rows import each_row

from bucketfront.s3_events.event import EventKind, EventMessage, S3Event, UnreadableMessage, is_later
from bucketfront.s3_events.event_parser import MAX_MESSAGE_BYTES, MAX_NESTED, parse

WRITTEN, DELETED, VERSION_DELETED = EventKind.WRITTEN, EventKind.DELETED, EventKind.VERSION_DELETED
KEY = "a/b.txt"


def event(kind: EventKind = WRITTEN, key: str = KEY, **others: Any) -> S3Event:
    return S3Event(kind, BUCKET, key, **{"at": AT, **others})


AWS_PUT = record(size=5, eTag=ETAG, versionId="v1", sequencer="0055AED6DCD90281E5")
MINIO_PUT = record("a b/ü+.txt", "s3:ObjectCreated:Put", source="minio:s3", size=5, eTag=ETAG, sequencer="17A9AB4FA93B")
SAMPLES: dict[str, tuple[str, list[S3Event]]] = {
    "a put at AWS": (
        message(AWS_PUT),
        [event(etag=ETAG, size=5, version="v1", sequencer="0055AED6DCD90281E5")],
    ),
    "several records": (message(record("1"), record("2")), [event(key="1"), event(key="2")]),
    "a key of a form": (message(record("a b+c%/ü&=.txt")), [event(key="a b+c%/ü&=.txt")]),
    "an escaped slash": (
        message({**record(), "s3": {"bucket": {"name": BUCKET}, "object": {"key": "a%2Fb.txt"}}}),
        [event()],
    ),
    "a copy": (message(record(name="ObjectCreated:Copy", eTag=ETAG)), [event(etag=ETAG)]),
    "a multipart upload": (
        message(record(name="ObjectCreated:CompleteMultipartUpload", eTag=f"{ETAG}-2")),
        [event(etag=f"{ETAG}-2")],
    ),
    "a delete without versions": (message(record(name="ObjectRemoved:Delete")), [event(DELETED)]),
    "a delete of a version": (
        message(record(name="ObjectRemoved:Delete", versionId="v1")),
        [event(VERSION_DELETED, version="v1")],
    ),
    "a delete marker": (
        message(record(name="ObjectRemoved:DeleteMarkerCreated", versionId="m1")),
        [event(DELETED, version="m1")],
    ),
    "a lifecycle that expires": (message(record(name="LifecycleExpiration:Delete")), [event(DELETED)]),
    "a lifecycle that expires a version": (
        message(record(name="LifecycleExpiration:Delete", versionId="v1")),
        [event(VERSION_DELETED, version="v1")],
    ),
    "a lifecycle that adds a marker": (
        message(record(name="s3:LifecycleExpiration:DeleteMarkerCreated", versionId="m1")),
        [event(DELETED, version="m1")],
    ),
    "an access list": (message(record(name="ObjectAcl:Put", versionId="v1")), [event(EventKind.ACCESS, version="v1")]),
    "tags": (message(record(name="ObjectTagging:Put")), [event(EventKind.OTHER)]),
    "a restore": (message(record(name="ObjectRestore:Completed")), [event(EventKind.OTHER)]),
    "a read at MinIO": (
        message(record(name="s3:ObjectAccessed:Get", source="minio:s3")),
        [event(EventKind.OTHER)],
    ),
    "no records": (message(), []),
    "SNS": (sns(message(AWS_PUT)), [event(etag=ETAG, size=5, version="v1", sequencer="0055AED6DCD90281E5")]),
    "EventBridge": (
        json.dumps(
            event_bridge(
                "a b+c%20.txt",
                object={"size": 5, "etag": ETAG, "version-id": "v1", "sequencer": "617f08299329d189"},
                reason="PutObject",
            )
        ),
        [event(key="a b+c%20.txt", at=AT - 0.5, etag=ETAG, size=5, version="v1", sequencer="617f08299329d189")],
    ),
    "EventBridge in SNS": (sns(json.dumps(event_bridge())), [event(at=AT - 0.5)]),
    "EventBridge, a delete marker": (
        json.dumps(
            event_bridge(
                kind="Object Deleted",
                object={"version-id": "m1"},
                reason="DeleteObject",
                **{"deletion-type": "Delete Marker Created"},
            )
        ),
        [event(DELETED, at=AT - 0.5, version="m1")],
    ),
    "EventBridge, a version": (
        json.dumps(
            event_bridge(
                kind="Object Deleted",
                object={"version-id": "v1"},
                reason="Lifecycle Expiration",
                **{"deletion-type": "Permanently Deleted"},
            )
        ),
        [event(VERSION_DELETED, at=AT - 0.5, version="v1")],
    ),
    "EventBridge, a storage class": (
        json.dumps(event_bridge(kind="Object Storage Class Changed")),
        [event(EventKind.OTHER, at=AT - 0.5)],
    ),
    "MinIO": (
        message(MINIO_PUT, EventName="s3:ObjectCreated:Put", Key=f"{BUCKET}/a b/ü+.txt"),
        [event(key="a b/ü+.txt", etag=ETAG, size=5)],
    ),
    "Ceph": (
        message(
            record(source="ceph:s3", size="1024", eTag=ETAG, versionId="", sequencer="F7E6D75DC742D108", metadata=[])
        ),
        [event(etag=ETAG, size=1024)],
    ),
    "Ceph, whose keys are not encoded": (
        message(record("a+b c%41.txt", source="ceph:s3", encoded=False)),
        [event(key="a+b c%41.txt"), event(key="a b cA.txt")],
    ),
    "Ceph, a lifecycle": (
        message(record(name="ObjectLifecycle:Expiration:Current", source="ceph:s3", versionId="v1")),
        [event(DELETED, version="v1")],
    ),
    "Ceph, an old version": (
        message(record(name="s3:ObjectLifecycle:Expiration:NonCurrent", source="ceph:s3", versionId="v1")),
        [event(VERSION_DELETED, version="v1")],
    ),
    "SeaweedFS, a write": (
        seaweed(f"/buckets/{BUCKET}/a/b.txt", "create", new={"name": "b.txt", "attributes": {"mtime": 1_772_366_400}}),
        [event(at=1_772_366_400.0)],
    ),
    "SeaweedFS, a delete": (
        seaweed(f"/buckets/{BUCKET}/a/b.txt", "delete", old={"name": "b.txt"}, delete_chunks=True),
        [event(DELETED, at=None)],
    ),
    "SeaweedFS, a rename": (
        seaweed(
            f"/buckets/{BUCKET}/a/b.txt",
            "rename",
            old={"name": "b.txt"},
            new={"name": "c.txt"},
            new_parent_path=f"/buckets/{BUCKET}/d",
        ),
        [event(at=None), event(key="d/c.txt", at=None)],
    ),
    "SeaweedFS, a folder that goes": (
        seaweed(f"/buckets/{BUCKET}/a", "delete", old={"name": "a", "is_directory": True}),
        [event(DELETED, "a/", at=None, is_folder=True)],
    ),
    "SeaweedFS, a bucket that goes": (
        seaweed(f"/buckets/{BUCKET}", "delete", old={"name": BUCKET, "is_directory": True}),
        [event(DELETED, "", at=None, is_folder=True)],
    ),
    "SeaweedFS, outside of buckets": (seaweed("/etc/x", "create", new={"name": "x"}), []),
}


@each_row(("body", "expected"), SAMPLES.values(), ids=SAMPLES)
def test_messages_of_each_sender(body: str, expected: list[S3Event]) -> None:
    """Each documented message becomes its events, with keys as S3 has them."""
    assert parse(body) == EventMessage(tuple(expected))
    assert parse(body.encode()) == parse(body)


def test_messages_for_a_trial() -> None:
    """S3's test event and SNS's confirmations hold no event, and are told apart."""
    assert parse(TEST_EVENT) == EventMessage(is_test=True)
    assert parse(sns(TEST_EVENT)) == EventMessage(is_test=True)
    assert parse(json.dumps({"Type": "SubscriptionConfirmation", "Message": "…", "Token": "t"})).subscription


def nested(depth: int) -> str:
    body = message(record())
    for _ in range(depth):
        body = sns(body)
    return body


@each_row(
    "body",
    [
        "", "{", "null", "[]", "7", '"text"', "{}", '{"Records": {}}', '{"Records": "x"}', '{"detail": {}}',
        '{"source": "aws.s3", "detail": 3}', '{"event_type": 3, "key": "x"}', '{"Type": "Notification", "Message": {}}',
        '{"Type": "Notification", "Message": "hello"}', "[" * 100_000, '{"a":' * 100_000, "9" * 10_000, nested(4),
        b"\xff\xfe{}", b"\0" * 10, " " * (MAX_MESSAGE_BYTES + 1), "[" * 40_000, '{"a":' * 40_000,
        '{"Records": [' + "{}," * MAX_NESTED + "{}]}", b'{"Records": [' + b"[]," * MAX_NESTED + b"[]]}",
    ],
    ids=lambda body: repr(body[:40]),
)  # fmt: skip
def test_other_messages(body: str | bytes) -> None:
    """What is no event raises one error, at any depth and length, and its text has nothing of the message."""
    with pytest.raises(UnreadableMessage) as raised:
        parse(body)
    assert len(str(raised.value)) < 60


@each_row(
    "key",
    ["", "%", "%zz", "%00", "a%00b", "%ff", "%ED%A0%80", "%C0%AF", "a" * 1025, "\ud800"],
    ids=lambda key: repr(key[:20]),
)
def test_keys_that_no_object_has(key: str) -> None:
    """A record whose key is malformed is counted, and the other records of its message are read."""
    broken = record()
    broken["s3"]["object"]["key"] = key
    assert parse(message(broken, record())) == EventMessage((event(),), unreadable=1)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
)


@given(st.data())
def test_fields_of_any_type(data: st.DataObject) -> None:
    """A field of any type in any place gives events or the one error."""
    bodies = [json.loads(body) for body, _ in SAMPLES.values()]
    body = data.draw(st.sampled_from(bodies))
    place: Any = body
    while True:
        names = list(range(len(place))) if isinstance(place, list) else list(place)
        if not names:
            break
        name = data.draw(st.sampled_from(names))
        if not isinstance(place[name], dict | list) or data.draw(st.booleans()):
            place[name] = data.draw(VALUES)
            break
        place = place[name]
    with suppress(UnreadableMessage):
        assert isinstance(parse(json.dumps(body)), EventMessage)


@each_row(
    ("first", "second", "expected"),
    [
        ("0055AED6DCD90281E5", "0055AED6DCD90281E4", True),
        ("0055AED6DCD90281E4", "0055AED6DCD90281E5", False),
        ("0055AED6DCD90281E5", "0055AED6DCD90281E5", False),
        ("0055AED6DCD9", "0055AED6DCD90281E5", None),
    ],
)
def test_order_of_sequencers(first: str, second: str, expected: bool | None) -> None:
    """Sequencers of one length compare as text. For others the documents disagree, so no order is assumed."""
    assert is_later(first, second) is expected
