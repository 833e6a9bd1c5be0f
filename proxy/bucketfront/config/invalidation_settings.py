"""The settings of S3's event notifications, which invalidate objects that were changed past the proxy."""

import re
from typing import Annotated, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, model_validator

from bucketfront.config.checked_text import BearerToken
from bucketfront.config.origin_settings import Credentials
from bucketfront.config.quantities import Size
from bucketfront.config.section import Section

DEFAULT_WEBHOOK_PATH = "/api/v1/s3-events"

_WEBHOOK_PATH = re.compile(rf"{DEFAULT_WEBHOOK_PATH}(?:/[A-Za-z0-9._~-]+)*")
# SQS Developer Guide, "Queue and message identifiers": a number of 12 digits and a name. Others have other numbers.
_QUEUE_PATH = re.compile(r"/(?:[A-Za-z0-9._~-]+/)*[A-Za-z0-9_-]{1,80}(?:\.fifo)?")


def _queue_url(url: str) -> str:
    wanted = "must be the URL of a queue, as https://sqs.eu-central-1.amazonaws.com/123456789012/name"
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise ValueError(wanted) from None
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0 or not url.isascii():
        raise ValueError(wanted)
    if "@" in parts.netloc:
        raise ValueError("must not hold credentials: they belong into invalidation.sqs.credentials")
    if "?" in url or "#" in url or not _QUEUE_PATH.fullmatch(parts.path):
        raise ValueError(wanted)
    return url


def _webhook_path(path: str) -> str:
    if not _WEBHOOK_PATH.fullmatch(path):
        raise ValueError(f"must be {DEFAULT_WEBHOOK_PATH}, or a path below it, as {DEFAULT_WEBHOOK_PATH}/name")
    return path


QueueUrl = Annotated[str, "URL of a queue", AfterValidator(_queue_url)]
WebhookPath = Annotated[str, "URL path", AfterValidator(_webhook_path)]


class SqsSettings(Section):
    """A queue of SQS with the events of the buckets: from S3 itself, or by way of SNS or EventBridge."""

    queue_url: QueueUrl = Field(examples=["https://sqs.eu-central-1.amazonaws.com/123456789012/bucketfront"])
    """URL of the queue. All requests go to its host. A host of AWS names the region, and for any other host
    `origin.region` counts. Each node needs a queue of its own, because a message comes to one reader only."""
    credentials: Credentials | None = None
    """Credentials for the queue, as in `origin.credentials`. `null` takes those of the origin."""


class WebhookSettings(Section):
    """A path of the admin port that takes events as MinIO, Ceph and SeaweedFS post them."""

    path: WebhookPath = DEFAULT_WEBHOOK_PATH
    """Path of the admin port: the default one, or one below it."""
    token: BearerToken
    """What senders must send as `Authorization: Bearer …`, or as the password of Basic authentication. It opens
    nothing else, and `admin.token` does not open this path."""


class InvalidationSettings(Section):
    """Where events of S3 come from. Objects that they name are revalidated at their next use, within seconds after a
    change. Without the section, lifetimes alone decide. See [fleet.md](fleet.md#events-of-s3).
    """

    sqs: SqsSettings | None = None
    """The queue to read. With `null` none is read."""
    webhook: WebhookSettings | None = None
    """The webhook to serve. With `null` no webhook is served."""
    refresh_rate: Annotated[Size, Field(gt=0)] | None = Field(default=None, examples=["20MB"])
    """The bytes a second at which new versions are fetched at once, in place of at their next use. It concerns objects
    that were whole in the cache, and that a client has read since they last changed. `null` fetches nothing."""

    @model_validator(mode="after")
    def _has_a_source(self) -> Self:
        if self.sqs is None and self.webhook is None:
            raise ValueError("must have sqs, webhook or both")
        return self
