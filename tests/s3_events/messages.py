"""Messages as the senders of events document them, with keys of a test."""

import json
from typing import Any
from urllib.parse import quote_plus

BUCKET = "bucket"
TIME = "2026-03-01T12:00:00.500Z"
AT = 1_772_366_400.5
ETAG = "9b2cf535f27731c974343645a3985328"


def record(
    key: str = "a/b.txt",
    name: str = "ObjectCreated:Put",
    *,
    bucket: str = BUCKET,
    source: str = "aws:s3",
    time: str = TIME,
    encoded: bool = True,
    **of_object: Any,
) -> dict[str, Any]:
    """Return a record of S3's form. `of_object` are further fields of the object."""
    return {
        "eventVersion": "2.1", "eventSource": source, "awsRegion": "eu-central-1", "eventTime": time,
        "eventName": name, "userIdentity": {"principalId": "AWS:AIDA"},
        "requestParameters": {"sourceIPAddress": "192.0.2.1"},
        "responseElements": {"x-amz-request-id": "C3D13FE58DE4C810"},
        "s3": {
            "s3SchemaVersion": "1.0", "configurationId": "all",
            "bucket": {"name": bucket, "ownerIdentity": {"principalId": "A1"}, "arn": f"arn:aws:s3:::{bucket}"},
            "object": {"key": quote_plus(key, safe="/") if encoded else key, **of_object},
        },
    }  # fmt: skip


def message(*records: dict[str, Any], **others: Any) -> str:
    return json.dumps({**others, "Records": list(records)})


def event_bridge(key: str = "a/b.txt", kind: str = "Object Created", **detail: Any) -> dict[str, Any]:
    """Return an event of EventBridge. `detail` adds fields, those of `object` to the object."""
    of_object = detail.pop("object", {})
    return {
        "version": "0", "id": "17793124-05d4-b198-2fde-7ededc63b103", "detail-type": kind, "source": "aws.s3",
        "account": "111122223333", "time": "2026-03-01T12:00:00Z", "region": "ca-central-1",
        "resources": [f"arn:aws:s3:::{BUCKET}"],
        "detail": {
            "version": "0", "bucket": {"name": BUCKET}, "request-id": "N4N7GDK58NMKJ12R", "requester": "111122223333",
            "object": {"key": key, **of_object}, **detail,
        },
    }  # fmt: skip


def sns(inner: str) -> str:
    return json.dumps(
        {
            "Type": "Notification", "MessageId": "22b80b92", "TopicArn": "arn:aws:sns:us-east-1:1:t",
            "Subject": "Amazon S3 Notification", "Message": inner, "Timestamp": TIME, "SignatureVersion": "1",
        }
    )  # fmt: skip


def seaweed(path: str, kind: str, *, old: object = None, new: object = None, **others: object) -> str:
    entries = {name: entry for name, entry in (("old_entry", old), ("new_entry", new)) if entry is not None}
    return json.dumps({"key": path, "event_type": kind, "message": {**entries, **others}})


TEST_EVENT = json.dumps(
    {"Service": "Amazon S3", "Event": "s3:TestEvent", "Time": TIME, "Bucket": BUCKET, "RequestId": "5582815E1AEA5ADF"}
)
