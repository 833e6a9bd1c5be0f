"""The bodies of requests to the admin port, of a bounded size and in a bounded time, and JSON of them as a model."""

import asyncio
from typing import TypeVar

from aiohttp import hdrs, web
from pydantic import BaseModel, ValidationError

from bucketfront.admin.refusal import Refused
from bucketfront.http import media_types
from bucketfront.server.receive.request_body import invite

MAX_BODY_BYTES = 4 << 20  # of a purge request: 10,000 paths of common length
BODY_TIMEOUT_S = 10.0  # for such a request to arrive

M = TypeVar("M", bound=BaseModel)


async def read_json(request: web.BaseRequest, model: type[M]) -> M:
    """Return the body as a `model`. Raises Refused unless it is JSON of a bounded size that fits, and comes in time."""
    # A page can send other types without a preflight (Fetch standard, section 2.2.2).
    if media_types.essence(request.headers.get(hdrs.CONTENT_TYPE, "")) != "application/json":
        raise Refused(415, "the body must be JSON, with Content-Type: application/json")
    try:
        return model.model_validate_json(await read_body(request, MAX_BODY_BYTES))
    except ValidationError as error:
        places = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'body'}: {e['msg']}" for e in error.errors())
        raise Refused(400, places) from error


async def read_body(request: web.BaseRequest, limit: int) -> bytes:
    """Return the body, whatever its type is. Raises Refused if it has more than `limit` bytes, or is slow or coded."""
    if hdrs.CONTENT_ENCODING in request.headers:
        raise Refused(415, "the body must not have a Content-Encoding")
    too_large = Refused(413, f"the body has more than {limit} bytes")
    if (request.content_length or 0) > limit:
        raise too_large
    invite(request)
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_TIMEOUT_S):
            while chunk := await request.content.readany():
                body += chunk
                if len(body) > limit:
                    raise too_large
    except TimeoutError as error:
        late = f"the request did not come in within {BODY_TIMEOUT_S:g} s"
        raise Refused(408, late, {"Connection": "close"}) from error
    except web.RequestPayloadError as error:
        raise Refused(400, "the body broke off") from error
    return bytes(body)
