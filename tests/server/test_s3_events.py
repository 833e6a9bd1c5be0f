"""Events of S3 through the whole proxy: by SQS from an S3 that sends them, and by the webhook (I7)."""

import asyncio
import base64
import json
from collections.abc import Callable
from functools import partial
from typing import Any

import boto3
import pytest
from messages import TEST_EVENT, message, record
from proxy_under_test import S3, Proxy, StartProxy, until
from rows import each_row
from stopwatch import HANG_S

from bucketfront.config.origin_settings import OriginSettings
from bucketfront.s3_events import event_parser
from bucketfront.s3_events.assembly import QUEUE_FILE

PATH = "/api/v1/s3-events"
TOKEN = "0123456789abcdef"
RIGHT = {"Authorization": f"Bearer {TOKEN}"}
DAY = {"default_ttl": "1d", "negative_ttl": "1d", "stale_while_revalidate": "1d"}


@pytest.fixture(scope="session")
def origin_server(moto_aws: OriginSettings) -> OriginSettings:
    """An S3 that sends events."""
    return moto_aws


@pytest.fixture
def notified(s3: S3, sqs: Any, queue_url: str) -> str:
    """The URL of a queue that has the events of the bucket."""
    arn = sqs.get_queue_attributes(QueueUrl=queue_url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    events = ["s3:ObjectCreated:*", "s3:ObjectRemoved:*"]
    configuration = {"QueueConfigurations": [{"QueueArn": arn, "Events": events}]}
    s3.client.put_bucket_notification_configuration(Bucket=s3.bucket, NotificationConfiguration=configuration)
    return queue_url


async def body_of(proxy: Proxy, path: str) -> bytes:
    return (await proxy.get(path)).body


def has_body(body: bytes, response: Any) -> bool:
    return bool(response.body == body)


async def served(proxy: Proxy, path: str, holds: Callable[[Any], bool]) -> None:
    """Wait until the response to a GET is as expected."""
    async with asyncio.timeout(HANG_S):
        while not holds(await proxy.get(path)):  # noqa: ASYNC110 - there is no such event
            await asyncio.sleep(0.01)


async def metric(proxy: Proxy, name: str) -> float:
    text = (await proxy.admin("GET", "/metrics")).body.decode()
    found = [line for line in text.splitlines() if line.startswith(f"bucketfront_{name}")]
    return sum(float(line.rsplit(" ", 1)[1]) for line in found)


async def test_changes_at_s3_show_within_seconds(start: StartProxy, s3: S3, notified: str, sqs: Any) -> None:
    """A write and a delete past the proxy show soon, although lifetimes are a day, and the queue is empty then."""
    proxy = await start(freshness=DAY, invalidation={"sqs": {"queue_url": notified}})
    path = "/a%20b%2Bc%25/%C3%BC.txt"
    key = "a b+c%/ü.txt"
    for body in (b"one", b"two!", b"three"):
        s3.put(key, body)
        await served(proxy, path, partial(has_body, body))
    s3.client.delete_object(Bucket=s3.bucket, Key=key)
    await served(proxy, path, lambda response: response.status == 404)
    assert await metric(proxy, "s3_event_delay_seconds_count") >= 4
    names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]

    def is_empty() -> bool:
        attributes = sqs.get_queue_attributes(QueueUrl=notified, AttributeNames=names)["Attributes"]
        return set(attributes.values()) == {"0"}

    async with asyncio.timeout(HANG_S):
        while not await asyncio.to_thread(is_empty):  # noqa: ASYNC110 - there is no such event
            await asyncio.sleep(0.01)


async def test_own_writes_stay_in_the_cache(start: StartProxy, s3: S3, notified: str) -> None:
    """The event of a write through the proxy costs no request: the object is still a hit (I5)."""
    proxy = await start(freshness=DAY, invalidation={"sqs": {"queue_url": notified}})
    figures = proxy.app.events.applier.figures if proxy.app.events is not None else None
    assert figures is not None
    # The first read of the queue marks all stale, and no version that is published meanwhile is certain.
    await until((proxy.app.settings.cache.dir / QUEUE_FILE).exists)
    for number in range(5):
        put = await proxy.request("PUT", f"/{number}", body=b"own")
        assert put.status in (200, 201)
    await until(lambda: sum(figures.events.values()) >= 5)
    found = [(await proxy.get(f"/{number}")).cache_status.split(";")[0] for number in range(5)]
    assert found == ["hit"] * 5


async def posted(proxy: Proxy, body: bytes | str, headers: dict[str, str] | None = None, path: str = PATH) -> Any:
    octets = body.encode() if isinstance(body, str) else body
    return await proxy.admin("POST", path, octets, RIGHT if headers is None else headers)


@pytest.fixture
async def hooked(start: StartProxy, s3: S3) -> Proxy:
    """A proxy with the webhook, which has `x` in its cache, and S3 has a newer version."""
    proxy = await start(freshness=DAY, invalidation={"webhook": {"token": TOKEN}}, admin={"token": TOKEN[::-1]})
    s3.put("x", b"one")
    assert await body_of(proxy, "/x") == b"one"
    await proxy.settled()
    s3.put("x", b"two")
    assert await body_of(proxy, "/x") == b"one"
    return proxy


async def test_a_posted_event_is_applied_before_the_response(hooked: Proxy, s3: S3) -> None:
    """After the response to the post the next request gets the new version."""
    response = await posted(hooked, message(record("x", bucket=s3.bucket, source="minio:s3")))
    assert (response.status, response.json()) == (200, {"outcome": "applied"})
    assert await body_of(hooked, "/x") == b"two"


@each_row(
    "fields",
    [
        {"Authorization": f"bearer {TOKEN}", "expected": "401"},
        {"Content-Type": "text/plain; charset=UTF-8", "expected": "200"},
        {"Authorization": "Basic " + base64.b64encode(f"any:{TOKEN}".encode()).decode(), "expected": "200"},
        {"Authorization": "Basic " + base64.b64encode(f"{TOKEN}:x".encode()).decode(), "expected": "401"},
        {"Authorization": "Basic %%%", "expected": "401"},
        {"Authorization": f"Bearer {TOKEN[::-1]}", "expected": "401"},
        {"Authorization": "", "expected": "401"},
        {"Host": "minio.example", "expected": "421"},
        {"Origin": "https://evil.example", "expected": "403"},
        {"Content-Encoding": "gzip", "expected": "415"},
    ],
    ids=str,
)
async def test_who_may_post(hooked: Proxy, s3: S3, fields: dict[str, str]) -> None:
    """The token of the webhook is needed, in one of two forms. The operators' token does not do."""
    given = {**RIGHT, **fields}
    expected = int(given.pop("expected"))
    if not given["Authorization"]:
        del given["Authorization"]
    response = await posted(hooked, message(record("other", bucket=s3.bucket)), given)
    assert response.status == expected
    assert await body_of(hooked, "/x") == b"one"


async def test_refused_posts_are_counted(hooked: Proxy) -> None:
    """A post without the token is counted, and the token of the webhook opens no other path (I27)."""
    assert (await posted(hooked, message(), {})).status == 401
    assert await metric_with(hooked, 's3_event_messages_total{outcome="unauthorized",source="webhook"}') == 1
    for path in ("/api/v1/stats", "/metrics"):
        assert (await hooked.admin("GET", path, headers=RIGHT)).status == 401
    assert (await hooked.admin("GET", PATH, headers=RIGHT)).status == 405
    assert (await posted(hooked, message(), path=f"{PATH}/x")).status == 401


async def metric_with(proxy: Proxy, series: str) -> float:
    text = (await proxy.admin("GET", "/metrics", headers={"Authorization": f"Bearer {TOKEN[::-1]}"})).body.decode()
    found = [line for line in text.splitlines() if line.startswith(f"bucketfront_{series}")]
    return sum(float(line.rsplit(" ", 1)[1]) for line in found)


@each_row(
    ("body", "status"),
    [
        (TEST_EVENT, 200),
        ("", 400),
        ("hello", 400),
        ("[" * 200_000, 400),
        (b"\xff\0", 400),
        (message({"s3": {"object": {"key": "%00"}}}), 200),
        (json.dumps({"Type": "SubscriptionConfirmation", "SubscribeURL": "http://127.0.0.1:1/"}), 200),
    ],
    ids=lambda value: repr(value)[:40],
)
async def test_hostile_posts(hooked: Proxy, body: str | bytes, status: int) -> None:
    """What is no event is refused or counted, leads to no other host, and leaves the cache as it is (I29)."""
    response = await posted(hooked, body)
    assert response.status == status
    assert await body_of(hooked, "/x") == b"one"


async def test_a_post_that_is_too_large(hooked: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    """A body has a bound, whether its length is declared or not (I19)."""
    for headers in (RIGHT, {**RIGHT, "Content-Type": "application/json"}):
        response = await posted(hooked, b" " * (event_parser.MAX_MESSAGE_BYTES + 1), headers)
        assert response.status == 413


async def test_a_path_of_its_own(start: StartProxy, s3: S3) -> None:
    """The webhook is at the configured path alone. Without the section no path is one."""
    path = f"{PATH}/minio"
    proxy = await start(invalidation={"webhook": {"token": TOKEN, "path": path}})
    assert (await posted(proxy, message(), path=path)).status == 200
    assert (await posted(proxy, message())).status == 404
    assert (await posted(proxy, message(), path=f"{path}/")).status == 404
    await proxy.stop()
    proxy = await start()
    assert (await posted(proxy, message())).status == 404


async def test_a_new_token(start: StartProxy, tmp_path: Any) -> None:
    """A reload takes the token of the webhook anew."""
    proxy = await start(invalidation={"webhook": {"token": TOKEN}})
    settings = proxy.app.settings
    assert settings.invalidation is not None
    assert settings.invalidation.webhook is not None
    webhook = settings.invalidation.webhook.model_validate({"token": TOKEN[::-1]})
    after = settings.model_copy(update={"invalidation": settings.invalidation.model_copy(update={"webhook": webhook})})
    proxy.app._admin.application.adopt(after)
    assert (await posted(proxy, message())).status == 401
    assert (await posted(proxy, message(), {"Authorization": f"Bearer {TOKEN[::-1]}"})).status == 200


async def test_a_queue_that_is_gone(start: StartProxy, s3: S3, sqs: Any, notified: str) -> None:
    """A deleted queue shows in `/readyz` and in the log, and requests are served as before."""
    sqs.delete_queue(QueueUrl=notified)
    proxy = await start(invalidation={"sqs": {"queue_url": notified}})
    s3.put("x", b"one")
    assert await body_of(proxy, "/x") == b"one"
    await until(lambda: proxy.app.troubles.failing)
    ready = await proxy.admin("GET", "/readyz", headers={"Accept": "application/json"})
    assert (ready.status, ready.json()["status"]) == (200, "degraded")
    assert ready.json()["reasons"][0]["reason"] == "events-not-read"
    assert ready.json()["reasons"][0]["name"] == "queue-missing"
    assert await metric(proxy, "s3_event_queue_failures_total") >= 1


@each_row("is_raw", [True, False])
async def test_events_by_way_of_sns(
    start: StartProxy, s3: S3, sqs: Any, moto_aws: OriginSettings, is_raw: bool
) -> None:
    """Events that a topic passes on to the queue of a node count as well, in its envelope or without."""
    keys = {"aws_access_key_id": "any", "aws_secret_access_key": "any-secret"}
    sns = boto3.client("sns", endpoint_url=moto_aws.endpoint_url, region_name="us-east-1", **keys)
    topic = sns.create_topic(Name=f"t-{s3.bucket}-{is_raw}")["TopicArn"]
    url = sqs.create_queue(QueueName=f"q-{s3.bucket}-{is_raw}")["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    raw = {"RawMessageDelivery": str(is_raw).lower()}
    sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=arn, Attributes=raw)
    configuration = {"TopicConfigurations": [{"TopicArn": topic, "Events": ["s3:ObjectCreated:*"]}]}
    s3.client.put_bucket_notification_configuration(Bucket=s3.bucket, NotificationConfiguration=configuration)
    proxy = await start(freshness=DAY, invalidation={"sqs": {"queue_url": url}})
    for body in (b"one", b"two!"):
        s3.put("x", body)
        await served(proxy, "/x", partial(has_body, body))
    await proxy.stop()
