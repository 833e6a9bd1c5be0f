"""What aiohttp's parser lets through and RFC 9112 does not: refused before anything else is looked at (I24)."""

from aiohttp import HttpVersion10, HttpVersion11, hdrs, web

from proxy.errors import ProxyError

# Fields of which a second one makes the message ambiguous.
_SINGLE = (
    hdrs.HOST,
    hdrs.CONTENT_LENGTH,
    hdrs.TRANSFER_ENCODING,
    hdrs.RANGE,
    hdrs.CONTENT_RANGE,
    hdrs.EXPECT,
)


class BadFraming(ProxyError):
    """The message could be read in two ways, or is not HTTP/1.x. The connection closes."""


def check(request: web.BaseRequest) -> None:
    """Raises BadFraming."""
    if request.version not in (HttpVersion10, HttpVersion11):
        raise BadFraming("only HTTP/1.0 and HTTP/1.1 are spoken here")
    headers = request.headers
    for name in _SINGLE:
        if len(headers.getall(name, ())) > 1:
            raise BadFraming(f"more than one {name} field")
    if request.version == HttpVersion11 and hdrs.HOST not in headers:
        raise BadFraming("HTTP/1.1 without Host")
    if hdrs.TRANSFER_ENCODING in headers:
        if request.version == HttpVersion10 or hdrs.CONTENT_LENGTH in headers:
            raise BadFraming("Transfer-Encoding together with Content-Length, or in HTTP/1.0")
        if headers[hdrs.TRANSFER_ENCODING].strip().lower() != "chunked":
            raise BadFraming("the only transfer coding understood is chunked")
    expectation = headers.get(hdrs.EXPECT)
    if expectation is not None and expectation.lower() != "100-continue":
        raise BadFraming("the only expectation understood is 100-continue")
