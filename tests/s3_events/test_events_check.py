"""`bucketfront check` asks the queue, takes no message, and names the cure."""

from typing import Any

import pytest
from fakes import RawServer, answering, response
from rows import each_row

from bucketfront.checks.events import check_events
from bucketfront.checks.result import CheckResult, CheckVerdict
from bucketfront.config.origin_settings import OriginSettings
from bucketfront.config.settings import Settings


def settings_of(url: str, bucket: str = "bucket") -> Settings:
    keys = {"access_key_id": "any", "secret_access_key": "any-secret"}
    return Settings.model_validate(
        {
            "origin": {"credentials": keys},
            "mounts": [{"path": "/", "bucket": bucket}],
            "invalidation": {"sqs": {"queue_url": url}},
        }
    )


async def results(settings: Settings) -> list[CheckResult]:
    return [result async for result in check_events(settings)]


async def test_a_queue_that_can_be_read(moto_aws: OriginSettings, sqs: Any, queue_url: str) -> None:
    """The result has the backlog and the retention, and the messages stay in the queue."""
    sqs.send_message(QueueUrl=queue_url, MessageBody="x")
    (result,) = await results(settings_of(queue_url))
    assert result.verdict is CheckVerdict.FINE
    assert "1 messages wait, which it keeps for 96 h" in result.message
    assert len(sqs.receive_message(QueueUrl=queue_url)["Messages"]) == 1


@each_row(
    ("status", "code", "cure"),
    [
        (403, "AccessDenied", "sqs:ReceiveMessage, sqs:DeleteMessage"),
        (403, "InvalidClientTokenId", "invalidation.sqs.credentials"),
        (400, "QueueDoesNotExist", "invalidation.sqs.queue_url"),
        (500, "InternalFailure", "is the URL of a queue"),
        (400, "ThrottlingException", "try again"),
    ],
)
async def test_cures(status: int, code: str, cure: str) -> None:
    """Each error has its cure, and no part of the response."""
    body = b'{"__type": "com.amazonaws.sqs#%s", "message": "SECRET"}' % code.encode()
    async with RawServer(answering(response(f"{status} X", body, Content_Type="application/x-amz-json-1.0"))) as server:
        (result,) = await results(settings_of(f"{server.endpoint_url}/123456789012/q"))
    assert result.verdict is CheckVerdict.FAILED
    assert cure in result.message
    assert "SECRET" not in result.message


async def test_a_host_that_is_away() -> None:
    """A queue out of reach names the network and the VPC endpoint."""
    (result,) = await results(settings_of("http://127.0.0.1:1/123456789012/q"))
    assert (result.verdict, "VPC" in result.message) == (CheckVerdict.FAILED, True)


async def test_a_mount_without_events(monkeypatch: pytest.MonkeyPatch) -> None:
    """A mount of an access point gets a warning, because events name buckets. Without the section nothing is tried."""
    arn = "arn:aws:s3:eu-west-1:123456789012:accesspoint/name"
    found = await results(settings_of("http://127.0.0.1:1/123456789012/q", arn))
    assert (found[0].verdict, found[0].name) == (CheckVerdict.WARNING, arn)
    settings = settings_of("http://127.0.0.1:1/1/q").model_copy(update={"invalidation": None})
    assert await results(settings) == []


@each_row(("host", "is_remote"), [("127.0.0.1", False), ("::1", False), ("10.0.0.5", True)])
async def test_a_webhook(host: str, is_remote: bool) -> None:
    """The result has the path of the webhook, and whether other machines reach it."""
    settings = Settings.model_validate(
        {
            "mounts": [{"path": "/", "bucket": "bucket"}],
            "admin": {"host": host, "token": "fedcba9876543210"},
            "invalidation": {"webhook": {"token": "0123456789abcdef"}},
        }
    )
    (result,) = await results(settings)
    assert (result.verdict, result.name) == (CheckVerdict.FINE, "webhook")
    assert "/api/v1/s3-events of the admin port 8081" in result.message
    assert ("see admin.host" in result.message) is not is_remote
