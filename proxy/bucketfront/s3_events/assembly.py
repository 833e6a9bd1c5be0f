"""Start what takes events: the reader of the queue, the receiver of the webhook, and what applies their events."""

from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path

from bucketfront.cache import Cache
from bucketfront.config.mount_settings import MountSettings
from bucketfront.config.settings import Settings
from bucketfront.keys import ObjectKey
from bucketfront.s3_events.continuity import Continuity
from bucketfront.s3_events.event_applier import EventApplier, places_of
from bucketfront.s3_events.queue_reader import QueueReader
from bucketfront.s3_events.sqs_queue import SqsQueue
from bucketfront.s3_events.webhook_receiver import WebhookReceiver
from bucketfront.task_set import TaskSet
from bucketfront.troubles import Troubles

QUEUE_FILE = "s3-events-queue.json"
WEBHOOK_FILE = "s3-events-webhook.json"


class S3Events:
    """What runs of `invalidation`. `reader` and `webhook` are None if the settings have no queue or no webhook."""

    def __init__(self, applier: EventApplier, reader: QueueReader | None, webhook: WebhookReceiver | None) -> None:
        self.applier = applier
        self.reader = reader
        self.webhook = webhook

    def adopt(self, mounts: Sequence[MountSettings]) -> None:
        """Follow other mounts from now on."""
        self.applier.adopt(mounts)


async def start_events(
    stack: AsyncExitStack,
    settings: Settings,
    cache: Cache,
    folder: Path,
    troubles: Troubles,
    clock: Callable[[], float],
    may_apply: Callable[[], bool],
    refresh: Callable[[Sequence[ObjectKey]], None],
) -> S3Events | None:
    """Start to take events, until `stack` closes. Returns None if the settings have no source of events.

    `folder` is that of the cache, and `refresh` is as for `EventApplier`. Raises OriginError if the SDK has no usable
    configuration for the queue.
    """
    wanted = settings.invalidation
    if wanted is None:
        return None
    applier = EventApplier(cache, settings.mounts, clock, refresh)
    reader = webhook = None
    tasks = TaskSet()
    if wanted.sqs is not None:
        queue = await stack.enter_async_context(SqsQueue(wanted.sqs, settings.origin))
        continuity = _opened(folder / QUEUE_FILE, wanted.sqs.queue_url, settings)
        reader = QueueReader(queue, applier, continuity, troubles, clock, may_apply)
        tasks.start(reader.run(), name="events of the queue")
    if wanted.webhook is not None:
        continuity = _opened(folder / WEBHOOK_FILE, wanted.webhook.path, settings)
        webhook = WebhookReceiver(wanted.webhook.path, applier, continuity, troubles, clock, may_apply)
        tasks.start(webhook.run(), name="events of the webhook")
    stack.push_async_callback(tasks.close)
    return S3Events(applier, reader, webhook)


def _opened(path: Path, source: str, settings: Settings) -> Continuity:
    continuity = Continuity(path, source, places_of(settings.mounts))
    continuity.open()
    return continuity
