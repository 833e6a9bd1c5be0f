"""Parse `multipart/form-data` (RFC 7578, RFC 2046 section 5.1) piece by piece.

The parser buffers only bytes that may belong to a boundary. Unlike other messages, a form marks its end in its bytes.
So a part is complete once the boundary after it was read.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from bucketfront.errors import ProxyError
from bucketfront.http.grammar import QUOTED_TEXT, TOKEN, Headers

MAX_HEAD_BYTES = 8 << 10  # of one part's headers; browsers send a few hundred bytes
MAX_HEAD_LINES = 64  # in one part; browsers send two, and programs add the fields of an object
MAX_HEADS_BYTES = 512 << 10  # of all parts: MAX_PARTS files with long paths
MAX_PARAMETERS = 16  # of one header; browsers send three
MAX_PADDING_BYTES = 64  # of spaces after a boundary, which RFC 2046 allows; browsers send none
MAX_PARTS = 1000  # as many as DeleteObjects takes keys

# RFC 2046 section 5.1.1: 1 to 70 characters, no space at the end.
_BOUNDARY = re.compile(r"[0-9A-Za-z'()+_,./:=? -]{0,69}[0-9A-Za-z'()+_,./:=?-]")
_PARAMETER = re.compile(rf'[ \t]*+({TOKEN})[ \t]*+=[ \t]*+(?:"({QUOTED_TEXT})"|([^\s;"]*+))[ \t]*+(?:;|$)')
_NAME = re.compile(TOKEN)
_ESCAPED = re.compile(r'\\(["\\])')
# WHATWG, "Multipart form data": browsers, and curl since 7.81, escape these three characters in a name.
_PERCENT = {"%22": '"', "%0D": "\r", "%0A": "\n", "%0d": "\r", "%0a": "\n"}
_QUOTED = re.compile("|".join(_PERCENT))


class BadForm(ProxyError):
    """A form that is malformed, or ended before its last boundary."""


class FormWithoutFile(ProxyError):
    """The body of a POST is a form of a type that has no files."""


@dataclass(frozen=True, slots=True)
class Part:
    """The head of a part. `filename` is as sent, or None if the part is not a file.

    `headers` are the other headers of the part, with lower-case names.
    """

    name: str
    filename: str | None
    headers: Headers = ()


class PartEnd:
    """The event that a part is complete."""


END = PartEnd()

Event = Part | bytes | PartEnd
"""The parser yields a part as its `Part`, its bytes in pieces, and `END`."""


class FormParser:
    """A parser for one form. `boundary` comes from `boundary_of`.

    Each step consumes what it can of the buffer. It returns whether another step may follow at once, and its event.
    """

    def __init__(self, boundary: str) -> None:
        self._delimiter = b"\r\n--" + boundary.encode()
        self._buffer = bytearray(b"\r\n")  # the first boundary may be the first line of the body
        self._step = self._content
        self._in_part = False
        self._skip = 0  # bytes of a line break that belong neither to the head nor to the content
        self._parts = 0
        self._head_bytes = 0  # of all parts so far
        self._searched = 0  # bytes of the buffer that have no end of a head

    def feed(self, data: bytes) -> Iterator[Event]:
        """Yield the events of the next piece. Raises BadForm."""
        self._buffer += data
        goes_on = True
        while goes_on:
            goes_on, event = self._step()
            if event is not None:
                yield event

    def close(self) -> None:
        """Check, at the end of the body, that the form is complete. Raises BadForm."""
        if self._step != self._over:
            raise BadForm("the form ends before its last boundary")

    def _content(self) -> tuple[bool, Event | None]:
        """Read the content of a part, or skip the text before the first boundary."""
        buffer = self._buffer
        end = buffer.find(self._delimiter)
        # Without a delimiter, the last bytes may still be the beginning of one.
        stop = end if end >= 0 else max(0, len(buffer) - len(self._delimiter) + 1)
        content = bytes(buffer[self._skip : stop])
        self._skip = max(0, self._skip - stop)
        if end < 0:
            del buffer[:stop]
        else:
            del buffer[: end + len(self._delimiter)]
            self._step = self._end if self._in_part else self._boundary
        return end >= 0, content if content and self._in_part else None

    def _end(self) -> tuple[bool, Event | None]:
        self._in_part = False
        self._step = self._boundary
        return True, END

    def _boundary(self) -> tuple[bool, Event | None]:
        """Read the rest of the boundary's line, which marks the last boundary by `--`."""
        buffer = self._buffer
        if buffer[:2] == b"--":
            self._step = self._over
            return True, None
        end = buffer.find(b"\r\n", 0, MAX_PADDING_BYTES + 2)
        if end < 0 and len(buffer) < 2:
            return False, None
        padding = buffer[:end] if end >= 0 else buffer.removesuffix(b"\r")
        if padding.strip(b" \t") or len(padding) > MAX_PADDING_BYTES:
            raise BadForm("a boundary has more than spaces behind it")
        if end < 0:
            return False, None
        del buffer[:end]  # the line break stays, so that a part without headers is found as well
        self._step = self._head
        return True, None

    def _head(self) -> tuple[bool, Event | None]:
        buffer = self._buffer
        end = buffer.find(b"\r\n\r\n", max(0, self._searched - 3), MAX_HEAD_BYTES)
        if end < 0:
            if len(buffer) >= MAX_HEAD_BYTES:
                raise BadForm(f"the headers of a part have more than {MAX_HEAD_BYTES} bytes")
            self._searched = len(buffer)
            return False, None
        self._searched = 0
        self._parts += 1
        if self._parts > MAX_PARTS:
            raise BadForm(f"a form has {MAX_PARTS} parts at most")
        self._head_bytes += end
        if self._head_bytes > MAX_HEADS_BYTES:
            raise BadForm(f"the headers of all parts have more than {MAX_HEADS_BYTES} bytes")
        lines = bytes(buffer[2:end]).split(b"\r\n")
        # The second line break stays. Without content it belongs to the boundary (RFC 2046, `body-part`).
        del buffer[: end + 2]
        self._skip = 2
        self._in_part = True
        self._step = self._content
        return True, _part(lines)

    def _over(self) -> tuple[bool, Event | None]:
        self._buffer.clear()
        return False, None


def is_form(content_type: str | None) -> bool:
    """Return whether a request's Content-Type is that of a form with files."""
    return _media_type(content_type) == "multipart/form-data"


def refuse_without_file(fields: Mapping[str, str]) -> None:
    """Refuse the POST of a form without files, whose fields would become an object. Raises FormWithoutFile.

    HTML has two such types of forms. Programs send text/plain for other bodies too, so only a browser that navigates
    (Fetch Metadata) means a form by it.
    """
    kind = _media_type(fields.get("Content-Type"))
    is_text_form = kind == "text/plain" and fields.get("Sec-Fetch-Mode") == "navigate"
    if kind == "application/x-www-form-urlencoded" or is_text_form:
        raise FormWithoutFile(
            "a form of this type has no file: send multipart/form-data, or the file itself with its own type"
        )


def _media_type(content_type: str | None) -> str:
    return (content_type or "").partition(";")[0].strip(" \t").lower()


def boundary_of(content_type: str) -> str:
    """Return the boundary of a form's Content-Type. Raises BadForm."""
    boundary = (_parameters(content_type.partition(";")[2]) or {}).get("boundary")
    if boundary is None or _BOUNDARY.fullmatch(boundary) is None:
        raise BadForm("the form's Content-Type has no boundary that can be used")
    return boundary


def _part(lines: list[bytes]) -> Part:
    headers: dict[str, str] = {}
    if len(lines) > MAX_HEAD_LINES:
        raise BadForm(f"a part has {MAX_HEAD_LINES} headers at most")
    for line in lines:
        name, colon, value = line.decode(errors="replace").partition(":")
        if not colon or _NAME.fullmatch(name) is None or name.lower() in headers:
            raise BadForm("the headers of a part are malformed")
        headers[name.lower()] = value.strip(" \t")
    kind, _, rest = headers.pop("content-disposition", "").partition(";")
    parameters = _parameters(rest)
    if kind.strip(" \t").lower() != "form-data" or parameters is None or "name" not in parameters:
        raise BadForm("a part has no Content-Disposition: form-data with a name")
    # RFC 7578 section 4.7 deprecates it. Without decoding, the object would be stored as Base64.
    if headers.pop("content-transfer-encoding", "binary").lower() not in ("binary", "7bit", "8bit"):
        raise BadForm("a Content-Transfer-Encoding is not undone here")
    if headers.get("content-type", "").lower().startswith("multipart/"):
        raise BadForm("a form within a form is not taken apart")
    filename = parameters.get("filename")
    return Part(
        _unescaped(parameters["name"]),
        None if filename is None else _unescaped(filename),
        tuple(headers.items()),
    )


def _parameters(text: str) -> dict[str, str] | None:
    """Return parameters (RFC 9110 section 5.6.6), values as written, or None if malformed, repeated or too many."""
    found: dict[str, str] = {}
    position, text = 0, text.rstrip(" \t;")
    while position < len(text):
        match = _PARAMETER.match(text, position)
        if match is None or match[1].lower() in found or len(found) == MAX_PARAMETERS:
            return None
        found[match[1].lower()] = match[3] if match[2] is None else match[2]
        position = match.end()
    return found


def _unescaped(value: str) -> str:
    return _QUOTED.sub(lambda match: _PERCENT[match[0]], _ESCAPED.sub(r"\1", value))
