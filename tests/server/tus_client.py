"""The requests of a tus client: creation, a piece at an offset, and the offset."""

import base64
from collections.abc import Mapping

from proxy_under_test import Proxy
from wire import Response

TUS = {"Tus-Resumable": "1.0.0"}
BODY = {**TUS, "Content-Type": "application/offset+octet-stream"}


def metadata(**pairs: str) -> str:
    return ",".join(f"{name} {base64.b64encode(value.encode()).decode()}" for name, value in pairs.items())


async def created(proxy: Proxy, length: int, key: str = "x", **headers: str) -> str:
    """Create an upload. Return its URL."""
    sent_headers = {**TUS, "Upload-Length": str(length), "Upload-Metadata": metadata(key=key)}
    sent_headers |= {name.replace("_", "-"): value for name, value in headers.items()}
    response = await proxy.request("POST", "/upload", sent_headers)
    assert response.status == 201, response.body
    return response.headers["Location"]


async def patched(proxy: Proxy, url: str, offset: int, body: bytes, headers: Mapping[str, str] = BODY) -> Response:
    return await proxy.request("PATCH", url, {**headers, "Upload-Offset": str(offset)}, body)


async def offset_of(proxy: Proxy, url: str) -> int:
    response = await proxy.request("HEAD", url, TUS)
    assert response.status == 200
    assert response.headers["Cache-Control"] == "no-store"
    return int(response.headers["Upload-Offset"])
