"""A queue of SQS, over aiobotocore.

All requests go to the host of the queue's URL (docs/invariants.md#fixed-egress).
"""

import asyncio
import re
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

from aiobotocore.config import AioConfig
from aiobotocore.session import AioSession
from aiohttp import ClientError as ConnectionFailed
from botocore import UNSIGNED
from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError, NoCredentialsError

from bucketfront import __version__
from bucketfront.cache import boottime
from bucketfront.config.invalidation_settings import SqsSettings
from bucketfront.config.origin_settings import OriginSettings, ProfileCredentials
from bucketfront.s3 import sdk_start
from bucketfront.s3.credentials import credentials_of
from bucketfront.s3.transport import StrictHTTPSession
from bucketfront.s3.trust import bundle_of
from bucketfront.s3_events.event_queue import QueuedMessage, QueueError, QueueFacts, QueueFault

BATCH = 10  # messages in one call, the most that SQS allows
WAIT_S = 20  # for a message to come, the most that SQS allows: a queue at rest costs three calls a minute
VISIBILITY_S = 30  # until a message comes again; a batch takes a fraction of a second
MAX_READERS = 8  # connections; as many calls run at once while there is a backlog

# SQS Developer Guide, "Amazon SQS endpoints", with those of VPCs and the names before 2014.
_REGION = re.compile(
    r"(?:(?:[\w-]+\.)?sqs(?:-fips)?\.(?P<a>[a-z0-9-]+)\.(?:amazonaws\.com(?:\.cn)?|vpce\.amazonaws\.com|api\.aws)"
    r"|(?P<b>[a-z0-9-]+)\.queue\.amazonaws\.com(?:\.cn)?)"
)
_MISSING = frozenset({"AWS.SimpleQueueService.NonExistentQueue", "QueueDoesNotExist", "QueueDeletedRecently"})
_DENIED = frozenset({"AccessDenied", "AccessDeniedException", "KMS.AccessDeniedException", "KmsAccessDenied"})
_CREDENTIALS = frozenset(
    {"InvalidClientTokenId", "UnrecognizedClientException", "SignatureDoesNotMatch", "ExpiredToken",
     "ExpiredTokenException", "InvalidSecurity", "MissingAuthenticationToken", "InvalidAccessKeyId",
     "InvalidSignatureException", "IncompleteSignature", "AuthFailure"}
)  # fmt: skip
_THROTTLED = frozenset(
    {"Throttling", "ThrottlingException", "RequestThrottled", "RequestThrottledException", "TooManyRequests",
     "OverLimit", "KmsThrottled"}
)  # fmt: skip
ACTIONS = ("sqs:ReceiveMessage", "sqs:DeleteMessage", "sqs:ChangeMessageVisibility", "sqs:GetQueueAttributes")
"""The permissions that the reader needs."""


class SqsQueue:
    """An async context manager, in whose block the queue can be read. It implements `EventQueue`.

    `wait` is how many seconds a call waits for messages. The start raises OriginError if the SDK has no usable
    credentials or configuration.
    """

    def __init__(self, settings: SqsSettings, origin: OriginSettings, wait: int = WAIT_S) -> None:
        self._url = settings.queue_url
        self._origin = origin
        self._wait = wait
        self._named = settings.credentials or origin.credentials
        self._credentials = credentials_of(self._named, boottime)
        self._stack = AsyncExitStack()
        self._client: Any

    async def __aenter__(self) -> Self:
        with sdk_start.explained(self._origin):
            self._client = await self._stack.enter_async_context(self._create_client())
        self._stack.push_async_callback(self._credentials.close)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    def _create_client(self) -> Any:
        named, origin = self._named, self._origin
        session = AioSession(profile=named.profile if isinstance(named, ProfileCredentials) else None)
        session.register_component("credential_provider", self._credentials)
        parts = urlsplit(self._url)
        return session.create_client(
            "sqs",
            endpoint_url=f"{parts.scheme}://{parts.netloc}",
            region_name=region_of(self._url) or origin.region,
            verify=bundle_of(origin.ca_bundle, session),
            config=AioConfig(
                http_session_cls=StrictHTTPSession,
                connector_args={"keepalive_timeout": origin.keep_alive_timeout},
                signature_version=UNSIGNED if named == "anonymous" else None,
                connect_timeout=origin.connect_timeout,
                read_timeout=self._wait + origin.read_timeout,
                proxies=None if origin.environment_proxy else {},
                max_pool_connections=2 * MAX_READERS,
                retries={"total_max_attempts": 1, "mode": "standard"},
                user_agent=f"bucketfront/{__version__}",
            ),
        )

    async def receive(self) -> Sequence[QueuedMessage]:
        found = await self._call(
            self._client.receive_message,
            MaxNumberOfMessages=BATCH,
            WaitTimeSeconds=self._wait,
            VisibilityTimeout=VISIBILITY_S,
            MessageSystemAttributeNames=["SentTimestamp"],
        )
        return [_message(each) for each in found.get("Messages", ()) if each.get("ReceiptHandle")]

    async def delete(self, messages: Sequence[QueuedMessage]) -> None:
        entries = [{"Id": str(number), "ReceiptHandle": each.receipt} for number, each in enumerate(messages)]
        await self._batches(self._client.delete_message_batch, entries)

    async def release(self, messages: Sequence[QueuedMessage]) -> None:
        entries = [
            {"Id": str(number), "ReceiptHandle": each.receipt, "VisibilityTimeout": 0}
            for number, each in enumerate(messages)
        ]
        await self._batches(self._client.change_message_visibility_batch, entries)

    async def facts(self) -> QueueFacts:
        names = ["MessageRetentionPeriod", "ApproximateNumberOfMessages", "RedrivePolicy"]
        try:
            found = await self._call(self._client.get_queue_attributes, AttributeNames=names)
        except QueueError as error:
            if error.fault is not QueueFault.FAILING:
                raise
            found = await self._call(self._client.get_queue_attributes, AttributeNames=["All"])
        given = found.get("Attributes", {})
        retention = given.get("MessageRetentionPeriod", "")
        backlog = given.get("ApproximateNumberOfMessages", "")
        return QueueFacts(
            retention=float(retention) if retention.isdigit() else None,
            has_dead_letters="deadLetterTargetArn" in given.get("RedrivePolicy", ""),
            backlog=int(backlog) if backlog.isdigit() else 0,
        )

    async def renew_credentials(self) -> None:
        try:
            refused = await self._credentials.get_frozen_credentials()
        except NoCredentialsError:
            return
        await self._credentials.replaced(refused)

    async def _batches(self, call: Callable[..., Awaitable[Any]], entries: Sequence[dict[str, Any]]) -> None:
        for at in range(0, len(entries), BATCH):
            found = await self._call(call, Entries=entries[at : at + BATCH])
            if found.get("Failed"):
                raise QueueError(QueueFault.FAILING, "the queue refused a part of a batch")

    async def _call(self, call: Callable[..., Awaitable[Any]], **params: Any) -> Any:
        try:
            async with asyncio.timeout(self._wait + self._origin.connect_timeout + self._origin.read_timeout):
                return await call(QueueUrl=self._url, **params)
        except ClientError as error:
            raise _of_response(error) from error
        except NoCredentialsError as error:
            raise QueueError(
                QueueFault.CREDENTIALS, "there are no credentials; see invalidation.sqs.credentials"
            ) from error
        except (TypeError, ValueError, LookupError, AttributeError, RecursionError) as error:
            raise QueueError(QueueFault.FAILING, "the response is not one of SQS") from error
        except (HTTPClientError, BotoCoreError, ConnectionFailed, OSError, TimeoutError) as error:
            # The message may quote a URL, and the class is enough.
            raise QueueError(QueueFault.UNREACHABLE, f"the queue cannot be reached ({type(error).__name__})") from error


def region_of(url: str) -> str | None:
    """Return the region that the host of a queue's URL names. Returns None for a host that is not AWS's."""
    host = urlsplit(url).hostname or ""
    if host == "queue.amazonaws.com":
        return "us-east-1"
    found = _REGION.fullmatch(host)
    return None if found is None else found["a"] or found["b"]


def _message(found: dict[str, Any]) -> QueuedMessage:
    sent = found.get("Attributes", {}).get("SentTimestamp", "")
    return QueuedMessage(
        receipt=found["ReceiptHandle"],
        body=found.get("Body", ""),
        sent_at=int(sent) / 1000 if sent.isdigit() else None,
    )


def _of_response(error: ClientError) -> QueueError:
    """Return the error with the cure. Its text has S3's code only if that is known."""
    code = str(error.response.get("Error", {}).get("Code", ""))
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    short = code.rpartition("#")[2]
    if short in _MISSING:
        return QueueError(
            QueueFault.MISSING, "there is no such queue: check invalidation.sqs.queue_url, and whether it was deleted"
        )
    if short in _DENIED:
        return QueueError(
            QueueFault.DENIED, f"access denied: the queue's readers need the permissions {', '.join(ACTIONS)}"
        )
    if short in _CREDENTIALS:
        return QueueError(QueueFault.CREDENTIALS, "the queue refuses our credentials; see invalidation.sqs.credentials")
    if short in _THROTTLED or status == 429:
        return QueueError(QueueFault.THROTTLED, "the queue asks for fewer requests")
    return QueueError(QueueFault.FAILING, f"the queue fails with status {status}")
