"""One forwarded request as a call whose outcome is observed: the response, or its error as others are."""

from bucketfront.errors import OriginError
from bucketfront.s3.calls import Calls
from bucketfront.s3.finished_call import reported
from bucketfront.s3.forwarded_request import ForwardedRequest
from bucketfront.s3.forwarded_response import ForwardedResponse
from bucketfront.s3.forwarder import Forwarder


class ForwardedCall:
    """The attempts of one request. `response` is that of the last one which the client may get, None without one.

    `what` names the request in messages, and `stall_timeout` is how many seconds may pass without progress.
    """

    def __init__(
        self, what: str, request: ForwardedRequest, calls: Calls, forwarder: Forwarder, stall_timeout: float
    ) -> None:
        self._what = what
        self._request = request
        self._calls = calls
        self._forwarder = forwarder
        self._stall_timeout = stall_timeout
        self._params = {"Bucket": request.bucket or ""} | ({"Key": request.key} if request.key else {})
        self.response: ForwardedResponse | None = None

    async def send(self) -> None:
        """Send the request once. Raises the refusal of the response, so that it counts, and what `exchange` raises."""
        async with self._calls.judged(self._params):
            if self._calls.on_call is None:
                await self._send()
            else:
                await reported(self._request.operation, self._params, self._send, self._calls.on_call)

    def is_refusal(self, error: OriginError) -> bool:
        """Return whether an error is the refusal of the response, which the client gets."""
        return self.response is not None and self.response.refusal is error

    async def _send(self) -> ForwardedResponse:
        self.response = await self._forwarder.exchange(self._what, self._request, self._stall_timeout)
        # A refusal of the client's own signature shows that the origin works, and nothing about our credentials.
        if self.response.refusal is not None and self._request.signed_target is None:
            raise self.response.refusal
        return self.response
