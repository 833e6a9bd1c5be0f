"""Recognises the commonest requests at a glance: a complete, plainly well-formed GET or HEAD.

Rule 1: it is strict. A message that it takes is one that aiohttp's parser and `framing` take as well, and reads the
same to both. Whatever is unusual - a body, an odd byte, a folded line, HTTP/1.0, a second request behind it, a
second field of a name that matters - makes it unrecognised, never refused.
Rule 2: the fields that change an answer are either read here or make the request unrecognised; any other may come,
whatever it says: cookies, request ids, forwarding chains.
"""

import re
import string
from collections.abc import Callable

MAX_SIZE = 7 << 10  # bytes: below every bound that the parser has for one line, one field, and a head

Asked = tuple[bytes | None, ...]
"""method, target, If-None-Match, If-Modified-Since, Origin, Accept-Encoding; then the Range's first and last position.
None where the field is absent."""

_READ = ("if-none-match", "if-modified-since", "origin")
_UNUSUAL = (
    "if-match", "if-unmodified-since", "if-range", "expect", "content-length", "transfer-encoding", "upgrade",
    "proxy-connection", "sec-websocket-key1",
    # aiohttp refuses a second one of these, and of User-Agent.
    "content-location", "content-range", "content-type", "etag", "max-forwards", "server",
)  # fmt: skip
_MAX_FIELDS = 64

# RFC 3986 section 3.3 and 3.4, the first segment not empty: "//" would be an authority to some.
_TARGET = rb"/(?:[A-Za-z0-9\-._~!$&'()*+,;=:@%][A-Za-z0-9\-._~!$&'()*+,;=:@%/?]*+)?+"
_TOKEN_CHARS = "!#$%&'*+-.^_`|~" + string.digits + string.ascii_letters  # RFC 9110 section 5.6.2
_TOKEN = b"[" + "".join(re.escape(char) for char in _TOKEN_CHARS).encode() + b"]"
_VALUE = rb"[\x20-\x7e\t]*+"
_HOST = rb"[A-Za-z0-9.-]++(?::[0-9]{1,5})?+"


def recogniser(*, reads_accept_encoding: bool, unusual: tuple[str, ...] = ()) -> Callable[[bytes], Asked | None]:
    """What reads a request, or gives None. `reads_accept_encoding`: that field can change an answer; else it is not
    looked at. `unusual` are further fields, in lower case, that make a request unrecognised.
    """
    # A field that is not read keeps its place in `Asked`.
    read = (*_READ, "accept-encoding" if reads_accept_encoding else "", "range")
    match, match_late = (
        re.compile(_pattern(read, (*_UNUSUAL, *unusual), late=late)).fullmatch for late in (False, True)
    )
    if_none_match, if_modified_since, origin, accept_encoding, range_ = (b"\n%b:" % name.encode() for name in read)

    def recognise(data: bytes) -> Asked | None:
        if len(data) > MAX_SIZE:
            return None
        found = match(data) or match_late(data)
        if found is None:
            return None
        asked = found.groups()
        lower = data.lower()
        if lower.count(b"\nuser-agent:") > 1:
            return None
        if found.lastindex == 2:  # method and target, and none of the fields that are read
            return asked
        if (
            (asked[6] is not None and lower.count(range_) > 1)
            or (asked[2] is not None and lower.count(if_none_match) > 1)
            or (asked[3] is not None and lower.count(if_modified_since) > 1)
            or (asked[4] is not None and lower.count(origin) > 1)
            or (asked[5] is not None and lower.count(accept_encoding) > 1)
        ):
            return None
        return asked

    return recognise


def _pattern(read: tuple[str, ...], unusual: tuple[str, ...], *, late: bool) -> bytes:
    """`late`: the one Host stands behind all fields that are read; else before them."""
    known = ("host", "connection", *(name for name in read if name), *unusual)
    initials = {char for name in known for char in (name[0], name[0].upper())}
    # A name that begins with another letter is none of these: most lines are over after one look.
    other_initials = "".join(re.escape(char) for char in _TOKEN_CHARS if char not in initials).encode()
    other = rb"[" + other_initials + rb"]" + _TOKEN + rb"*+:" + _VALUE
    unknown = rb"(?!(?:" + rb"|".join(_any_case(name) for name in known) + rb"):)" + _TOKEN + rb"++:" + _VALUE
    connection = _any_case("connection") + rb":[ \t]*+" + _any_case("keep-alive") + rb"[ \t]*+"
    host = _any_case("host") + rb":[ \t]*+" + _HOST + rb"[ \t]*+\r\n"
    some = _lines(other, connection, unknown)
    all_ = _lines(other, connection, *map(_line, read), unknown)
    return (
        rb"(GET|HEAD) ("
        + _TARGET
        + rb") HTTP/1\.1\r\n"
        + (all_ + host + some if late else some + host + all_)
        + rb"\r\n"
    )


def _lines(*kinds: bytes) -> bytes:
    return rb"(?:(?:" + rb"|".join(kinds) + rb")\r\n){0,%d}+" % (_MAX_FIELDS // 2)


def _line(name: str) -> bytes:
    """A field that is read, its value a group; without a name, a group that never takes part."""
    if not name:
        return rb"(?!)()"
    if name == "range":
        return _any_case(name) + rb":[ \t]*+bytes=([0-9]{0,15}+)-([0-9]{0,15}+)[ \t]*+"
    return _any_case(name) + rb":[ \t]*+([\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?+)[ \t]*+"


def _any_case(name: str) -> bytes:
    return "".join(f"[{char.upper()}{char}]" if char.isalpha() else re.escape(char) for char in name).encode()
