"""Refuses requests that aiohttp's parser accepts and RFC 9112 does not (docs/invariants.md#one-framing).

The parser itself refuses bad HTTP/1 syntax, a second Host, Content-Length or Transfer-Encoding, both of the last two
together, and an HTTP/1.1 request without Host. `status_of_parser_error` returns the status for those.
"""

import re
import string

from aiohttp import HttpVersion, HttpVersion10, HttpVersion11, hdrs, web
from aiohttp.http_exceptions import BadHttpMethod, BadStatusLine, HttpProcessingError, LineTooLong
from multidict import CIMultiDictProxy

from bucketfront.errors import ProxyError

# Fields of which a second one makes the message ambiguous.
_SINGLE = (hdrs.RANGE, hdrs.IF_RANGE, hdrs.EXPECT)
MAX_LENGTH = (1 << 63) - 1  # bytes of a body or a chunk; the parser takes 2**64 - 1 for the absence of a length
_MAX_DIGITS = 100  # zeros at its begin included; `int` refuses thousands of them
_NO_METHODS = (hdrs.METH_CONNECT, hdrs.METH_TRACE)

_TOKEN_CHARS = frozenset("!#$%&*+-.^_`|~" + string.digits + string.ascii_letters)  # RFC 9110 section 5.6.2

# RFC 9110 section 7.2 and RFC 3986 section 3.2: a name, perhaps an empty one, or an IP literal; perhaps a port.
_HOST = re.compile(r"(?:\[[0-9A-Fa-f:.]+\]|(?:[A-Za-z0-9._~!$&'()*+,;=-]|%[0-9A-Fa-f]{2})*)(?::[0-9]*)?", re.ASCII)


class BadFraming(ProxyError):
    """The message is ambiguous or not supported. The response has `status`, and the connection closes."""

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.status = status


def check(request: web.BaseRequest) -> None:
    """Check a request before any other code sees it. Raises BadFraming."""
    if request.method in _NO_METHODS:
        raise BadFraming("CONNECT and TRACE are not implemented", 501)
    for name in _SINGLE:
        if len(request.headers.getall(name, ())) > 1:
            raise BadFraming(f"more than one {name} field")
    if _HOST.fullmatch(request.headers.get(hdrs.HOST, "")) is None:
        raise BadFraming("the Host field is malformed")
    _check_body(request)
    # HTTP/1.0 has neither Upgrade nor Expect: RFC 9110 sections 7.8 and 10.1.1.
    if request.version == HttpVersion11:
        _check_upgrade_and_expect(request.headers)


def check_version(version: HttpVersion) -> None:
    """Check the version: RFC 9112 section 2.3. Raises BadFraming.

    This is not part of `check`, because aiohttp's response repeats the version of the request.
    """
    if version not in (HttpVersion10, HttpVersion11):
        # aiohttp sets 0.9 if the request line has no version at all.
        raise BadFraming("neither HTTP/1.0 nor HTTP/1.1", 505 if version.major else 400)


def body_length(headers: CIMultiDictProxy[str]) -> int:
    """Return the length of a body that is not chunked. Raises BadFraming.

    The parser found only digits in it.
    """
    value = headers.get(hdrs.CONTENT_LENGTH, "0")
    if len(value) > _MAX_DIGITS or (length := int(value)) > MAX_LENGTH:
        raise BadFraming("the Content-Length is too large")
    return length


def status_of_parser_error(error: HttpProcessingError, max_line_size: int) -> int:
    """Return the status for an error of the parser, which itself has 400 for everything.

    `max_line_size` is the longest target that the parser accepts, in bytes.
    """
    match error:
        case LineTooLong(args=(_, limit, *_)):
            return 414 if limit == max_line_size else 431
        case BadHttpMethod() if _is_in_a_token(error.message):
            return 501  # RFC 9110 section 9.1; RFC 9112 section 3 for one that is longer than any known method
        case BadStatusLine() if error.message.startswith("Bad status line:\n  Invalid HTTP version:"):
            return 505
    if error.message.startswith("Pause on PRI/Upgrade:"):  # RFC 9113 section 3.4: HTTP/2 with prior knowledge
        return 505
    return 431 if error.message == "Too many headers received" else 400


def _is_in_a_token(message: str) -> bool:
    """Return whether the parser refused a method because no method that it knows goes on so.

    Its message has the bytes in one line, and a caret below the one that it refused. Another byte than that of a token
    makes the request malformed.
    """
    _, _, places = message.partition("\n\n")
    sent, _, caret = places.partition("\n")
    return sent[caret.find("^") :][:1] in _TOKEN_CHARS


def _check_body(request: web.BaseRequest) -> None:
    """Check the framing of the body: RFC 9112 sections 6.1 and 6.3. Raises BadFraming."""
    if isinstance(error := request.content.exception(), BadFraming):
        raise error
    value = request.headers.get(hdrs.TRANSFER_ENCODING)
    if value is None:
        return
    if request.version == HttpVersion10:
        raise BadFraming("Transfer-Encoding in HTTP/1.0")
    *others, last = (coding.strip().lower() for coding in value.split(","))
    if last != "chunked" or "chunked" in others:
        raise BadFraming("the last transfer coding is not chunked, or not the only chunked")
    if others:
        raise BadFraming("the only transfer coding understood is chunked", 501)


def _check_upgrade_and_expect(headers: CIMultiDictProxy[str]) -> None:
    """Raises BadFraming."""
    upgrades = headers.getall(hdrs.UPGRADE, ())
    # Some clients send `h2c` along with any plain request; RFC 9110 section 7.8 lets a server ignore it.
    if not {token.strip().lower() for value in upgrades for token in value.split(",")} <= {"h2c", ""}:
        raise BadFraming("no protocol but HTTP/1.1 is spoken here")
    if headers.get(hdrs.EXPECT, "100-continue").lower() != "100-continue":
        raise BadFraming("the only expectation understood is 100-continue", 417)
