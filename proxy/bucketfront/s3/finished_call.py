"""One call of S3 up to the head of its response, for traces."""

import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from bucketfront.errors import OriginError
from bucketfront.request_trace import RequestTrace, current_trace
from bucketfront.s3.error_translation import VersionUnchanged


@dataclass(frozen=True, slots=True)
class FinishedCall:
    """A call with its outcome. `began` is in seconds since the epoch. `error` is a name from a closed set.

    `trace` is that of the request that the call works for.
    """

    operation: str
    bucket: str
    key: str | None
    began: float
    seconds: float
    status: int | None
    request_id: str | None
    error: str | None
    trace: RequestTrace | None


OnCall = Callable[[FinishedCall], None]


async def reported(
    operation: str, params: Mapping[str, Any], run: Callable[[], Awaitable[Any]], on_call: OnCall
) -> Any:
    """Run a call, and report it at its end, also if it fails or is cancelled."""
    began, since = time.time(), time.monotonic()
    status: int | None = None
    error: str | None = None
    request_id: str | None = None
    try:
        response = await run()
        status, request_id = _facts(response)
    except VersionUnchanged:
        status = 304
        raise
    except OriginError as failure:
        status = None if failure.response is None else failure.response.status
        error = type(failure).__name__
        raise
    except BaseException as failure:
        error = type(failure).__name__
        raise
    finally:
        key = params.get("Key")
        on_call(
            FinishedCall(
                operation, params["Bucket"], key, began, time.monotonic() - since, status, request_id, error,
                current_trace(),
            )
        )  # fmt: skip
    return response


def _facts(response: Any) -> tuple[int | None, str | None]:
    """Return status and request id of a response, of the SDK or of a direct read."""
    if not isinstance(response, Mapping):
        fields = getattr(response, "fields", {})
        return getattr(response, "status", None), fields.get("x-amz-request-id")
    details = response.get("ResponseMetadata", {})
    return details.get("HTTPStatusCode"), details.get("RequestId") or None
