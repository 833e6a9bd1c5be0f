"""`POST /api/v1/s3-events`: takes events of S3 from servers that post them (docs/fleet.md#events-of-s3)."""

from collections.abc import Mapping

from aiohttp import hdrs, web
from pydantic import BaseModel, ConfigDict

from bucketfront.admin.operation import FAILURE, Body, Media, Operation
from bucketfront.admin.refusal import Refused
from bucketfront.admin.request_body import read_body
from bucketfront.admin.tokens import Token, TokenVerdict
from bucketfront.config.invalidation_settings import DEFAULT_WEBHOOK_PATH, WebhookSettings
from bucketfront.errors import StoreError
from bucketfront.s3_events.event import UnreadableMessage
from bucketfront.s3_events.event_parser import MAX_MESSAGE_BYTES
from bucketfront.s3_events.webhook_receiver import WebhookReceiver, as_bearer

TEMPLATE = DEFAULT_WEBHOOK_PATH


class TakenEvents(BaseModel):
    """What became of the message. Its events are applied before the response."""

    model_config = ConfigDict(extra="forbid")

    outcome: str


OPERATIONS: Mapping[str, Operation] = {
    TEMPLATE: Operation(
        hdrs.METH_POST,
        "Take events of S3, with the token of `invalidation.webhook`",
        {200: (Body(Media.JSON, TakenEvents),), **dict.fromkeys((404, 408, 413, 415), FAILURE)},
        takes=Media.JSON,
    ),
}


class Webhook:
    """Serves the webhook, or nothing if there is no `receiver`. `settings` have the token."""

    def __init__(self, receiver: WebhookReceiver | None, settings: WebhookSettings | None) -> None:
        self._receiver = None if settings is None else receiver
        self.token = Token(None if settings is None else settings.token.get_secret_value())
        self.handlers = {TEMPLATE: self._take}

    def is_at(self, path: str) -> bool:
        """Return whether the webhook is at a path, as it was sent."""
        return self._receiver is not None and path == self._receiver.path

    def judge(self, authorization: str | None) -> TokenVerdict:
        """Return what a request's Authorization is worth here, and count a refusal."""
        verdict = self.token.judge(as_bearer(authorization))
        if verdict is not TokenVerdict.RIGHT and self._receiver is not None:
            self._receiver.refuse()
        return verdict

    async def _take(self, request: web.BaseRequest) -> web.Response:
        if self._receiver is None or not self.is_at(request.rel_url.raw_path):
            raise Refused(404, "there is no webhook here: see invalidation.webhook")
        try:
            outcome = await self._receiver.take(await read_body(request, MAX_MESSAGE_BYTES))
        except UnreadableMessage as error:
            raise Refused(400, f"the body cannot be taken: {error}") from error
        except StoreError as error:
            raise Refused(503, f"the events are not applied, send them again: {error}", {"Retry-After": "1"}) from error
        return web.json_response({"outcome": outcome.value})
