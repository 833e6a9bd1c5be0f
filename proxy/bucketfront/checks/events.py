"""Check that the queue with S3's events can be read, without taking a message from it."""

from collections.abc import AsyncIterator

from bucketfront.checks.result import CheckResult, failed, fine, warning
from bucketfront.config.settings import Settings
from bucketfront.errors import OriginError
from bucketfront.s3_events.event_queue import QueueError, QueueFault
from bucketfront.s3_events.sqs_queue import ACTIONS, SqsQueue

_CURES = {
    QueueFault.UNREACHABLE: "check invalidation.sqs.queue_url, the network, and a VPC endpoint of SQS",
    QueueFault.THROTTLED: "try again in a minute",
    QueueFault.FAILING: "check that invalidation.sqs.queue_url is the URL of a queue of SQS",
}
_SUBJECT = "events"


async def check_events(settings: Settings) -> AsyncIterator[CheckResult]:
    """Yield the result for the queue, and for mounts that no event can name."""
    wanted = settings.invalidation
    if wanted is None:
        return
    for bucket in dict.fromkeys(mount.bucket for mount in settings.mounts if mount.bucket.startswith("arn:")):
        yield warning(_SUBJECT, "events name buckets, and never an access point: mount the bucket itself", bucket)
    if wanted.sqs is None:
        return
    try:
        async with SqsQueue(wanted.sqs, settings.origin) as queue:
            facts = await queue.facts()
    except QueueError as error:
        cure = _CURES.get(error.fault)
        yield failed(_SUBJECT, str(error) if cure is None else f"{error}: {cure}", "queue")
        return
    except OriginError as error:
        yield failed(_SUBJECT, str(error), "queue")
        return
    kept = "" if facts.retention is None else f", which it keeps for {facts.retention / 3600:g} h"
    others = ", ".join(ACTIONS[:-1])
    found = f"the queue can be reached, about {facts.backlog} messages wait{kept}; {others} are not tried"
    yield fine(_SUBJECT, found, "queue")
