"""Requests of S3's clients as single HTTP exchanges with the origin, re-signed. `client` adds slots, retries and the
circuit breaker.

Theory of operation
-------------------
A request is made from the `BucketAddress` of its bucket, signed by the SDK's signer with the present credentials, and
sent by the SDK's HTTP session (`transport`). Bodies stream in both directions.

- A success is handed on as it comes.
- An error is received whole and judged. If the client's request caused it, or if it is a fact about the bucket or the
  object, it is handed on as it is. If our credentials, clock or settings caused it, or if the origin failed, it is
  raised as for other requests (docs/invariants.md#whose-fault).
- A request whose signature S3 refuses is signed anew once, if its body can be sent again.
- A request that the client has signed is sent once, as it is. S3 decides on it, so each status of the client's passes,
  whatever it would mean of our own signature.
- The response to a HEAD has no body, and so no code of S3. A GET of the same shows it, and is sent if the status may be
  our fault.
- A body has the declared length, or its connection is closed. So S3 never stores a part of it
  (docs/invariants.md#write-atomicity).
"""

import asyncio
from collections import OrderedDict
from dataclasses import replace
from typing import Any

from bucketfront.errors import (
    AccessDenied,
    ErrorResponse,
    InvalidOriginResponse,
    ObjectNotFound,
    OriginError,
    OriginUnavailable,
    RequestRefused,
)
from bucketfront.keys import ObjectKey
from bucketfront.s3 import responses
from bucketfront.s3.billing import Billing
from bucketfront.s3.bucket_address import BucketAddress
from bucketfront.s3.error_translation import code_in, error_of_forwarded, facts_of, translated
from bucketfront.s3.forwarded_body import Progress, SentBody
from bucketfront.s3.forwarded_request import ForwardedRequest
from bucketfront.s3.forwarded_response import ForwardedResponse, body_of, headers_of
from bucketfront.s3.sdk_client import add_hops, add_trace
from bucketfront.s3.sdk_response import MAX_ERROR_BYTES, SdkResponse
from bucketfront.s3.signature import Signature
from bucketfront.s3.transport import accept_encoding
from bucketfront.s3.upload.upload_slots import UploadSlots

MAX_ADDRESSES = 1024  # buckets whose address is remembered: clients may name any bucket
SLOW_TIMEOUT_S = 300.0  # S3 takes minutes to put 10,000 parts together, or to copy 5 GiB

_FIRST_ERROR = 300
_CONDITIONS = frozenset({"if-none-match", "if-modified-since"})
_MAYBE_OURS = frozenset({400, 401, 403})  # statuses to a HEAD that our credentials or clock can cause
_OF_CLIENT: dict[int, type[OriginError]] = {401: AccessDenied, 403: AccessDenied, 404: ObjectNotFound}
_XML = ("", "application/xml", "text/xml")


class Forwarder:
    """The exchanges of one client of the SDK.

    `read_timeout` is for each piece of a body, and `slow_timeout` for operations that may take minutes, in seconds.
    """

    def __init__(
        self,
        client: Any,
        signature: Signature,
        billing: Billing,
        slots: UploadSlots,
        read_timeout: float,
        slow_timeout: float = SLOW_TIMEOUT_S,
    ) -> None:
        self._client = client
        self._session = client._endpoint.http_session  # noqa: SLF001 - it has no public name
        self._signature = signature
        self._billing = billing
        self._slots = slots
        self._read_timeout = read_timeout
        self._slow_timeout = slow_timeout
        self._addresses: OrderedDict[str | None, BucketAddress] = OrderedDict()

    async def exchange(self, what: str, request: ForwardedRequest, stall_timeout: float) -> ForwardedResponse:
        """Send a request, and return the response once its head has come. An error, or a short list, has come whole.

        `what` names the request in messages, and `stall_timeout` is how many seconds may pass without progress. Raises
        BucketNotForwarded, RequestRefused or AccessDenied before anything is sent, OriginTimeout, OriginUnavailable.
        What the body raises passes through.
        """
        seconds = self._slow_timeout if request.is_slow else stall_timeout
        body: SentBody | None = None
        progress: Progress | None = None
        try:
            with translated(what):
                async with asyncio.timeout(seconds) as deadline:
                    progress = Progress(deadline, seconds)
                    body = SentBody(request, progress, self._slots)
                    return await self._exchange(what, request, body)
        except OriginError as error:
            if body is not None and body.failure is not None:
                raise body.failure from error
            raise
        finally:
            if progress is not None:
                progress.end()

    async def _exchange(self, what: str, request: ForwardedRequest, body: SentBody) -> ForwardedResponse:
        if request.signed_target is not None:
            response = _judged(request, await self._send(what, request, await self._address(None), body, {}))
            return await _with_list(request, response)
        address = await self._address(request.bucket)
        response = await self._signed_exchange(what, request, address, body)
        if request.method == "HEAD" and _is_unexplained(response):
            changes = self._signature.changes
            await self._explain(what, request, address, body)
            if self._signature.changes != changes:
                response = await self._signed_exchange(what, request, address, body)
        return await _with_list(request, response)

    async def _address(self, bucket: str | None) -> BucketAddress:
        if bucket not in self._addresses:
            self._addresses[bucket] = await BucketAddress.of(self._client, bucket)
            if len(self._addresses) > MAX_ADDRESSES:
                self._addresses.popitem(last=False)
        self._addresses.move_to_end(bucket)
        return self._addresses[bucket]

    async def _signed_exchange(
        self, what: str, request: ForwardedRequest, address: BucketAddress, body: SentBody
    ) -> ForwardedResponse:
        """Send a request, and once more if S3 refuses its signature and another one may help."""
        context: dict[str, Any] = {}
        response = await self._send(what, request, address, body, context)
        if not await self._cures(context, response, was_repeated=False) or not body.is_repeatable:
            return _judged(request, response)
        response.close()
        response = await self._send(what, request, address, body, context)
        await self._cures(context, response, was_repeated=True)
        return _judged(request, response)

    async def _cures(self, context: dict[str, Any], response: ForwardedResponse, *, was_repeated: bool) -> bool:
        sent = None if response.refusal is None else response.refusal.response
        if sent is None:
            return False
        date = response.headers.get("date", "")
        return await self._signature.cures(context, sent.status, sent.code, date, was_repeated=was_repeated)

    async def _send(
        self, what: str, request: ForwardedRequest, address: BucketAddress, body: SentBody, context: dict[str, Any]
    ) -> ForwardedResponse:
        if request.is_slow:
            context["read_timeout"] = self._slow_timeout
        prepared = address.request(request, None if request.body is None else body, context)
        is_ours = request.signed_target is None
        if is_ours and address.scope is not None:
            await self._signature.sign(prepared, address.scope)
        # As in requests of the SDK, the framing is no part of our signature.
        prepared.headers |= request.framing()
        (add_trace if is_ours else add_hops)(prepared)
        coding = accept_encoding.set(prepared.headers.get("accept-encoding", "identity"))  # a client may have signed it
        try:
            raw: SdkResponse = (await self._session.send(prepared)).raw
        finally:
            accept_encoding.reset(coding)
        try:
            self._billing.count(request.operation, raw.status, ObjectKey(request.bucket or "", request.key))
            if raw.status >= _FIRST_ERROR and not _is_unchanged(raw.status, request):
                return await self._refused(what, request, raw)
            self._check_success(what, request, raw, body)
            found = body_of(
                raw, what, self._slow_timeout if request.is_slow else self._read_timeout, is_slow=request.is_slow
            )
        except BaseException:
            raw.close()
            raise
        return ForwardedResponse(raw.status, headers_of(raw.lines), found)

    def _check_success(self, what: str, request: ForwardedRequest, raw: SdkResponse, body: SentBody) -> None:
        is_empty = raw.status == 204 or raw.fields.get("content-length") == "0"
        if not is_empty and responses.is_page(raw.fields):
            raise InvalidOriginResponse(f"{what}: the origin sent an HTML page without a field of S3")
        if raw.status < 200 or not (body.is_complete or request.length is None):
            raise InvalidOriginResponse(f"{what}: the origin answered {raw.status} before it had the body")

    async def _refused(self, what: str, request: ForwardedRequest, raw: SdkResponse) -> ForwardedResponse:
        """Return an error response, which is received to its end, with the error that it means."""
        headers = headers_of(raw.lines)
        is_head = request.method == "HEAD"
        data = b"" if is_head else await raw.read()
        raw.release()
        if len(data) >= MAX_ERROR_BYTES:
            raise InvalidOriginResponse(f"{what}: the error of the origin is too long")
        if not is_head:
            headers.popall("content-encoding", None)  # `read` has decoded it
            headers["content-length"] = str(len(data))
        sent = facts_of(raw.status, raw.fields, code_in(data))
        is_signed = request.signed_target is not None
        refusal = _error_of_client(what, sent, lowest=300 if is_signed else 400) if is_head or is_signed else None
        if refusal is None:
            refusal = error_of_forwarded(what, sent, raw.fields, is_read=request.is_read)
        return ForwardedResponse(raw.status, headers, None, data, refusal)

    async def _explain(self, what: str, request: ForwardedRequest, address: BucketAddress, body: SentBody) -> None:
        """Send a GET of what a HEAD was about, and raise its error if that is ours or the origin's."""
        fields = [(name, value) for name, value in request.fields if name != "range"]
        query = request.query if request.key else "list-type=2&max-keys=1"
        operation, one = ("GetObject", (("range", "bytes=0-0"),)) if request.key else ("ListObjectsV2", ())
        asked = replace(request, operation=operation, method="GET", query=query, fields=(*fields, *one))
        (await self._signed_exchange(f"{what}, as a GET", asked, address, body)).close()


def _judged(request: ForwardedRequest, response: ForwardedResponse) -> ForwardedResponse:
    """Return the response if a client may get it. Raises its error otherwise.

    An error without a code of S3 comes from a server before it, whose pages no client of S3 can read.
    """
    error = response.refusal
    if error is not None:
        is_from_s3 = request.method == "HEAD" or (error.response is not None and error.response.code)
        if isinstance(error, OriginUnavailable) or not is_from_s3:
            raise error
    return response


def _is_unexplained(response: ForwardedResponse) -> bool:
    """Return whether the status of a response to HEAD may be our fault, or a load balancer's."""
    if response.status == 404:
        return responses.media_type(response.headers) not in _XML
    return response.status in _MAYBE_OURS


def _is_unchanged(status: int, request: ForwardedRequest) -> bool:
    """Return whether the status of a read confirms the version of its condition."""
    return status == 304 and request.is_read and any(name in _CONDITIONS for name, _ in request.fields)


async def _with_list(request: ForwardedRequest, response: ForwardedResponse) -> ForwardedResponse:
    """Return the response, of which a short list was received as a whole."""
    if request.is_list and response.refusal is None:
        try:
            await response.read_ahead()
        except BaseException:
            response.close()
            raise
    return response


def _error_of_client(what: str, sent: ErrorResponse, lowest: int) -> OriginError | None:
    """Return the error of a response that is no error of ours or of the origin, as far as its status shows.

    That is one to a HEAD, or to a request that the client has signed, from the status `lowest` on. The client's own
    signature may be for another region, to which S3 redirects it.
    """
    message = f"{what}: the origin answered {sent.status}"
    if not lowest <= sent.status < 500 or sent.status in (407, 408, 429):
        return None
    found = _OF_CLIENT.get(sent.status, RequestRefused)(message)
    found.response = sent
    return found
