"""The suite of a queue of events: SQS over real sockets, and the fake that other tests use."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from fake_queue import FakeQueue
from fakes import Head, RawServer, answering, response
from pydantic import SecretStr
from rows import each_row

from bucketfront.config.invalidation_settings import SqsSettings
from bucketfront.config.origin_settings import OriginSettings, StaticCredentials
from bucketfront.s3_events.event_queue import EventQueue, QueueError, QueueFault
from bucketfront.s3_events.sqs_queue import SqsQueue, region_of

Send = Callable[..., None]


@pytest.fixture(params=["sqs", "fake"])
async def subject(
    request: pytest.FixtureRequest, moto_aws: OriginSettings, sqs: Any, queue_url: str
) -> AsyncIterator[tuple[EventQueue, Send]]:
    if request.param == "fake":
        fake = FakeQueue(lambda: 1000.0)
        yield fake, fake.send
        return

    def send(*bodies: str) -> None:
        for body in bodies:
            sqs.send_message(QueueUrl=queue_url, MessageBody=body)

    async with SqsQueue(SqsSettings(queue_url=queue_url), moto_aws, wait=1) as queue:
        yield queue, send


async def received(queue: EventQueue, count: int) -> list[Any]:
    found: list[Any] = []
    while len(found) < count:
        found += await queue.receive()
    return found


async def test_messages_come_once_they_are_sent(subject: tuple[EventQueue, Send]) -> None:
    """Messages come with body and time, at most ten at a time, and none is left out."""
    queue, send = subject
    send(*(f"body {number}" for number in range(12)))
    first = await queue.receive()
    assert 0 < len(first) <= 10
    found = [*first, *await received(queue, 12 - len(first))]
    assert sorted(each.body for each in found) == sorted(f"body {number}" for number in range(12))
    assert all(each.sent_at is not None and each.sent_at > 0 for each in found)


async def test_a_deleted_message_is_gone(subject: tuple[EventQueue, Send]) -> None:
    """A released message comes again at once, a deleted one does not."""
    queue, send = subject
    send("one", "two")
    found = await received(queue, 2)
    await queue.delete([each for each in found if each.body == "one"])
    await queue.release([each for each in found if each.body == "two"])
    (again,) = await received(queue, 1)
    assert again.body == "two"


async def test_facts(subject: tuple[EventQueue, Send]) -> None:
    """The retention is that of SQS's default, and the queue has no dead letters."""
    queue, send = subject
    send("one")
    facts = await queue.facts()
    assert (facts.retention, facts.has_dead_letters, facts.backlog) == (345_600.0, False, 1)


async def test_a_deleted_queue(moto_aws: OriginSettings, sqs: Any, queue_url: str) -> None:
    """A queue that does not exist is named as such, with the setting."""
    async with SqsQueue(SqsSettings(queue_url=queue_url), moto_aws, wait=1) as queue:
        sqs.delete_queue(QueueUrl=queue_url)
        with pytest.raises(QueueError, match="queue_url") as raised:
            await queue.receive()
    assert raised.value.fault is QueueFault.MISSING


async def test_dead_letters(moto_aws: OriginSettings, sqs: Any, queue_url: str) -> None:
    """A redrive policy shows."""
    arn = sqs.get_queue_attributes(QueueUrl=queue_url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    policy = f'{{"deadLetterTargetArn": "{arn}", "maxReceiveCount": 3}}'
    url = sqs.create_queue(QueueName="with-dead-letters", Attributes={"RedrivePolicy": policy})["QueueUrl"]
    async with SqsQueue(SqsSettings(queue_url=url), moto_aws, wait=1) as queue:
        assert (await queue.facts()).has_dead_letters


@asynccontextmanager
async def served(status: int, code: str, body: bytes | None = None) -> AsyncIterator[tuple[SqsQueue, list[Head]]]:
    """A queue whose server sends one response to all calls."""
    payload = b'{"__type": "com.amazonaws.sqs#%s", "message": "no"}' % code.encode() if body is None else body
    script = answering(response(f"{status} X", payload, Content_Type="application/x-amz-json-1.0"))
    async with RawServer(script) as server:
        settings = OriginSettings(
            endpoint_url="http://127.0.0.1:1",
            region="eu-west-3",
            credentials=StaticCredentials(access_key_id=SecretStr("id"), secret_access_key=SecretStr("secret")),
        )
        url = f"{server.endpoint_url}/123456789012/q"
        async with SqsQueue(SqsSettings(queue_url=url), settings, wait=0) as queue:
            yield queue, server.heads


@each_row(
    ("status", "code", "fault"),
    [
        (400, "AccessDeniedException", QueueFault.DENIED),
        (403, "AccessDenied", QueueFault.DENIED),
        (400, "KmsAccessDenied", QueueFault.DENIED),
        (403, "InvalidClientTokenId", QueueFault.CREDENTIALS),
        (403, "ExpiredToken", QueueFault.CREDENTIALS),
        (403, "SignatureDoesNotMatch", QueueFault.CREDENTIALS),
        (400, "ThrottlingException", QueueFault.THROTTLED),
        (403, "RequestThrottled", QueueFault.THROTTLED),
        (400, "QueueDoesNotExist", QueueFault.MISSING),
        (400, "AWS.SimpleQueueService.NonExistentQueue", QueueFault.MISSING),
        (500, "InternalFailure", QueueFault.FAILING),
        (503, "Other", QueueFault.FAILING),
    ],
)
async def test_faults(status: int, code: str, fault: QueueFault) -> None:
    """Each error of SQS has its kind, and one request was sent: the reader alone repeats."""
    async with served(status, code) as (queue, heads):
        with pytest.raises(QueueError) as raised:
            await queue.receive()
    assert (raised.value.fault, len(heads)) == (fault, 1)


@each_row("body", [b"", b"<html>", b"[]", b'{"Messages": 3}', b'{"Messages": [{}]}', b"\xff"], ids=repr)
async def test_responses_of_no_queue(body: bytes) -> None:
    """A response that is none of SQS is an error of the queue, or no message, and never a defect of the reader."""
    async with served(200, "", body) as (queue, _):
        faults: list[QueueFault] = []
        found: list[Any] = []
        try:
            found += await queue.receive()
        except QueueError as error:
            faults.append(error.fault)
    assert found == []
    assert set(faults) <= {QueueFault.FAILING, QueueFault.UNREACHABLE}


async def test_requests_stay_at_the_host_of_the_queue() -> None:
    """Requests go to the host of the URL, signed for the region of the origin if the host names none (I29)."""
    async with served(200, "", b"{}") as (queue, heads):
        assert list(await queue.receive()) == []
    (head,) = heads
    assert "/eu-west-3/sqs/" in head.headers["authorization"]


async def test_a_host_that_is_away(moto_aws: OriginSettings) -> None:
    """A refused connection is a fault of the network, and the text has neither URL nor key."""
    settings = SqsSettings(queue_url="http://127.0.0.1:1/123456789012/q")
    async with SqsQueue(settings, moto_aws, wait=0) as queue:
        with pytest.raises(QueueError) as raised:
            await queue.receive()
    assert raised.value.fault is QueueFault.UNREACHABLE
    assert "127.0.0.1" not in str(raised.value)


@each_row(
    ("host", "region"),
    [
        ("sqs.eu-central-1.amazonaws.com", "eu-central-1"),
        ("sqs.cn-north-1.amazonaws.com.cn", "cn-north-1"),
        ("sqs-fips.us-gov-west-1.amazonaws.com", "us-gov-west-1"),
        ("eu-west-1.queue.amazonaws.com", "eu-west-1"),
        ("queue.amazonaws.com", "us-east-1"),
        ("vpce-0a1b-c2d3.sqs.us-east-2.vpce.amazonaws.com", "us-east-2"),
        ("sqs.us-east-1.api.aws", "us-east-1"),
        ("localhost:9324", None),
        ("sqs.eu-central-1.amazonaws.com.evil.example", None),
    ],
)
def test_regions(host: str, region: str | None) -> None:
    """A host of AWS names the region of the queue, any other does not."""
    assert region_of(f"https://{host}/123456789012/name") == region
