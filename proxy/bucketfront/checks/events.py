"""Check where S3's events come from: the webhook, and the queue without taking a message from it."""

from collections.abc import AsyncIterator

from bucketfront.checks.result import CheckResult, failed, fine, warning
from bucketfront.config.invalidation_settings import SqsSettings, WebhookSettings
from bucketfront.config.listen_host import is_loopback
from bucketfront.config.listener_settings import AdminSettings
from bucketfront.config.origin_settings import OriginSettings
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
    """Yield the results for mounts that no event can name, for the webhook and for the queue."""
    wanted = settings.invalidation
    if wanted is None:
        return
    for bucket in dict.fromkeys(mount.bucket for mount in settings.mounts if mount.bucket.startswith("arn:")):
        yield warning(_SUBJECT, "events name buckets, and never an access point: mount the bucket itself", bucket)
    if wanted.webhook is not None:
        yield _webhook(wanted.webhook, settings.admin)
    if wanted.sqs is not None:
        yield await _queue(wanted.sqs, settings.origin)


def _webhook(webhook: WebhookSettings, admin: AdminSettings) -> CheckResult:
    """Return where senders post. Only they can find out whether they reach it."""
    found = f"senders post to {webhook.path} of the admin port {admin.port}"
    if is_loopback(admin.host):
        found = f"{found}, which only this machine reaches: see admin.host"
    return fine(_SUBJECT, found, "webhook")


async def _queue(wanted: SqsSettings, origin: OriginSettings) -> CheckResult:
    try:
        async with SqsQueue(wanted, origin) as queue:
            facts = await queue.facts()
    except QueueError as error:
        cure = _CURES.get(error.fault)
        return failed(_SUBJECT, str(error) if cure is None else f"{error}: {cure}", "queue")
    except OriginError as error:
        return failed(_SUBJECT, str(error), "queue")
    kept = "" if facts.retention is None else f", which it keeps for {facts.retention / 3600:g} h"
    others = ", ".join(ACTIONS[:-1])
    found = f"the queue can be reached, about {facts.backlog} messages wait{kept}; {others} are not tried"
    return fine(_SUBJECT, found, "queue")
