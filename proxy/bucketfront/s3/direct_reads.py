"""GetObject and HeadObject as single HTTP exchanges, without the rest of a call of the SDK.

Theory of operation
-------------------
A call of the SDK takes more than half of the time of a small read. Most of it goes into what is the same for each
object of a bucket, and into parsing fields that bucketfront reads itself.

- The first read of a bucket begins as a call of the SDK. A hook stops it right before it would be sent, and a
  `ReadTemplate` takes over what the SDK has resolved: endpoint, addressing, region, fields.
- Each read is made from the template, signed by the SDK's signer with the present credentials, and sent by the SDK's
  HTTP session (`transport`).
- A success, and a 304, need no more. Any other response is given to a call of the SDK in place of the one that it would
  get by sending. So errors are parsed, judged, repeated with another signature and translated in one place.
- A bucket without a template, such as an access point or a directory bucket, is read by calls of the SDK, and so is a
  read with unusual parameters.
"""

from collections.abc import Awaitable, Callable, Mapping
from contextvars import ContextVar
from typing import Any, NamedTuple

from bucketfront.http.response_fields import ResponseFields
from bucketfront.keys import ObjectKey
from bucketfront.s3.billing import Billing
from bucketfront.s3.error_translation import VersionUnchanged, is_unchanged
from bucketfront.s3.read_template import GET, HEAD, ReadRequest, ReadTemplate, is_plain
from bucketfront.s3.sdk_client import add_trace
from bucketfront.s3.sdk_response import SdkResponse
from bucketfront.s3.signature import Signature, mark_signed

_FIRST_ERROR = 300


class ReadResponse(NamedTuple):
    """A successful response. The body of a GET is still to be read from `raw`."""

    status: int
    fields: ResponseFields
    raw: SdkResponse


class _Rehearsed(Exception):
    """The SDK has prepared `request`, and a hook has stopped it."""

    def __init__(self, request: Any) -> None:
        super().__init__()
        self.request = request


class _Rehearsal:
    """Stops a call of the SDK before it sends its request."""

    def response(self, request: Any) -> Any:
        raise _Rehearsed(request)


class _Received:
    """A response that a call of the SDK gets for its first request, which is `sent` in other words."""

    def __init__(self, response: Any, sent: ReadRequest) -> None:
        self._response = response
        self._sent = sent

    def response(self, request: Any) -> Any:
        """Return the response, and None for any further request of the call."""
        found, self._response = self._response, None
        if found is not None:
            mark_signed(request, self._sent)
        return found

    def close(self) -> None:
        """Close the connection, unless the call has taken the response."""
        if self._response is not None:
            self._response.raw.close()


_stand_in: ContextVar[_Rehearsal | _Received | None] = ContextVar("stand_in", default=None)


class DirectReads:
    """The reads of one client of the SDK."""

    def __init__(self, client: Any, signature: Signature, billing: Billing) -> None:
        self._calls = {GET: client.get_object, HEAD: client.head_object}
        self._session = client._endpoint.http_session  # noqa: SLF001 - it has no public name
        self._signature = signature
        self._billing = billing
        self._templates: dict[tuple[str, str], ReadTemplate | None] = {}  # by operation and bucket
        client.meta.events.register_first("before-send.s3", _before_send)

    async def get_object(self, **params: str) -> ReadResponse:
        """Send GetObject. Raises VersionUnchanged, and the SDK's errors."""
        return await self._read(GET, params)

    async def head_object(self, **params: str) -> ReadResponse:
        """Send HeadObject. Raises VersionUnchanged, and the SDK's errors."""
        return await self._read(HEAD, params)

    async def _read(self, operation: str, params: Mapping[str, str]) -> ReadResponse:
        template = await self._template(operation, params) if is_plain(params) else None
        if template is None:
            return await self._call(operation, params)
        request = template.request(params)
        if template.scope is not None:
            await self._signature.sign(request, template.scope)
        add_trace(request)
        response = await self._session.send(request)
        status: int = response.status_code
        fields: ResponseFields = response.raw.fields
        if status >= _FIRST_ERROR and not is_unchanged(status, params):
            received = _Received(response, request)
            try:
                return await self._call(operation, params, received)
            finally:
                received.close()
        self._billing.count(operation, status, ObjectKey(params["Bucket"], params["Key"]))
        if status >= _FIRST_ERROR:
            await response.content
            raise VersionUnchanged(fields)
        return ReadResponse(status, fields, response.raw)

    async def _template(self, operation: str, params: Mapping[str, str]) -> ReadTemplate | None:
        place = operation, params["Bucket"]
        if place not in self._templates:
            prepared = await rehearsed(self._calls[operation], params)
            self._templates[place] = ReadTemplate.of(operation, params, prepared)
        return self._templates[place]

    async def _call(self, operation: str, params: Mapping[str, str], stand_in: _Received | None = None) -> ReadResponse:
        """Run a call of the SDK. `stand_in` takes the place of its first exchange with the origin."""
        token = _stand_in.set(stand_in)
        try:
            parsed = await self._calls[operation](**params)
        finally:
            _stand_in.reset(token)
        details = parsed["ResponseMetadata"]
        return ReadResponse(details["HTTPStatusCode"], details["HTTPHeaders"], details["Raw"])


async def rehearsed(call: Callable[..., Awaitable[Any]], params: Mapping[str, str]) -> Any:
    """Return the request that a call of the SDK has prepared, and do not send it. Raises the SDK's errors."""
    token = _stand_in.set(_Rehearsal())
    try:
        await call(**params)
    except _Rehearsed as stopped:
        return stopped.request
    finally:
        _stand_in.reset(token)
    raise AssertionError("the call has sent its request")


def _before_send(request: Any, **_: Any) -> Any:
    stand_in = _stand_in.get()
    return None if stand_in is None else stand_in.response(request)
