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

PlainRequest = tuple[bytes | None, ...]
"""method, target, If-None-Match, If-Modified-Since, Origin, Accept-Encoding; then the Range's first and last position,
Host, and one that says nothing more. None where the field is absent."""

ANSWERED_BY = slice(6)
"""What of it two requests have in common that have the same answer, but for the Range."""
FIRST, LAST, _HOST_AT = 6, 7, 8

KEYED_FIELDS = ("if-none-match", "if-modified-since", "origin", "accept-encoding")
"""Fields whose values keep prepared responses apart, in their order in `PlainRequest`."""
UNKEYED_FIELDS = frozenset({"host", "user-agent", "connection", "range"})
"""Fields that plain requests carry and that do not keep prepared responses apart: a stage cannot read them here."""

_READ = ("if-none-match", "if-modified-since", "origin")
_UNUSUAL = (
    "if-match", "if-unmodified-since", "if-range", "expect", "content-length", "transfer-encoding", "upgrade",
    "proxy-connection", "sec-websocket-key1",
    # aiohttp refuses a second one of these.
    "content-location", "content-range", "content-type", "etag", "max-forwards", "server",
)  # fmt: skip
_HARMLESS = ("cookie", "referer", "sec-fetch-", "sec-ch-")  # the beginnings of names, none of a known one
_MAX_FIELDS = 64

# RFC 3986 section 3.3 and 3.4, the first segment not empty: "//" would be an authority to some.
_TARGET = rb"/(?:[A-Za-z0-9\-._~!$&'()*+,;=:@%][A-Za-z0-9\-._~!$&'()*+,;=:@%/?]*+)?"
_TOKEN_CHARS = "!#$%&'*+-.^_`|~" + string.digits + string.ascii_letters  # RFC 9110 section 5.6.2
_TOKEN = b"[" + "".join(re.escape(char) for char in _TOKEN_CHARS).encode() + b"]"
_VALUE = rb"[\x20-\x7e\t]*+"
_HOST = rb"[A-Za-z0-9.-]++(?::[0-9]{1,5})?"


def recogniser(reads: frozenset[str]) -> Callable[[bytes], PlainRequest | None]:
    """Return the function that recognises plain requests. `reads` are the fields that the pipeline's stages declare,
    in lower case. Accept-Encoding is read only if it is declared. A declared field that does not keep prepared
    responses apart makes a request unrecognised. Raises ValueError if that is impossible for a field.
    """
    if reads & UNKEYED_FIELDS:
        raise ValueError(f"the fast path cannot keep responses apart by {sorted(reads & UNKEYED_FIELDS)}")
    reads_accept_encoding = "accept-encoding" in reads
    unusual = tuple(sorted(reads.difference(KEYED_FIELDS, _UNUSUAL)))
    # A field that is not read keeps its place in `PlainRequest`.
    read = (*_READ, "accept-encoding" if reads_accept_encoding else "", "range")
    match = re.compile(_pattern(read, (*_UNUSUAL, *unusual))).match

    def recognise(data: bytes) -> PlainRequest | None:
        if len(data) > MAX_SIZE:
            return None
        found = match(data)
        # Not a part of the pattern: where they do not fit, nothing before them is tried in another way.
        if found is None or data[found.end() :] != b"\r\n":
            return None
        asked = found.groups()
        return None if asked[_HOST_AT] is None else asked

    return recognise


def _pattern(read: tuple[str, ...], unusual: tuple[str, ...]) -> bytes:
    """Of a head without its empty line. No line is one of two kinds, and no group is repeated possessively: Python
    before 3.11.5 matches that wrongly.
    """
    lines, group = [], 3  # behind method and target
    for name in read:
        lines.append(_once(name, _value_of(name), group))
        group += 2 if name == "range" else 1
    lines.append(_once("host", rb"(" + _HOST + rb")[ \t]*+", group))
    # aiohttp refuses a second one.
    lines.append(_once("user-agent", rb"()" + _VALUE, group + 1))
    lines.append(_any_case("connection") + rb":[ \t]*+" + _any_case("keep-alive") + rb"[ \t]*+")
    known = ("host", "user-agent", "connection", *(name for name in read if name), *unusual)
    ignored = tuple(start for start in _HARMLESS if not any(name.startswith(start) for name in known))
    # What browsers send and nothing depends on, past the question whether it is one of the known ones.
    harmless = (_any_case(name) + _TOKEN + rb"*+:" + _VALUE for name in ignored)
    initials = {char for name in known for char in (name[0], name[0].upper())}
    # A name that begins with another letter is none of these: most lines are over after one look.
    other_initials = "".join(re.escape(char) for char in _TOKEN_CHARS if char not in initials).encode()
    other = rb"[" + other_initials + rb"]" + _TOKEN + rb"*+:" + _VALUE
    read_elsewhere = (*(_any_case(name) + rb":" for name in known), *map(_any_case, ignored))
    unknown = rb"(?!" + rb"|".join(read_elsewhere) + rb")" + _TOKEN + rb"++:" + _VALUE
    line = rb"(?:" + rb"|".join((other, *harmless, *lines, unknown)) + rb")\r\n"
    head = rb"(GET|HEAD) (" + _TARGET + rb") HTTP/1\.1\r\n"
    return head + rb"(?:" + line + rb"){0,%d}" % _MAX_FIELDS


def _once(name: str, value: bytes, group: int) -> bytes:
    """A field that may come once: not where its value's `group` has taken part. The initial stands before that
    question, so that a line with another one is passed over at a look. Without a name, a group that never takes part.
    """
    if not name:
        return rb"(?!)()"
    initial, others = _any_case(name[0]), _any_case(name[1:])
    return initial + rb"(?(%d)(?!)|" % group + others + rb":[ \t]*+" + value + rb")"


def _value_of(name: str) -> bytes:
    if name == "range":
        return rb"bytes=([0-9]{0,15}+)-([0-9]{0,15}+)[ \t]*+"
    return rb"([\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?)[ \t]*+"


def _any_case(name: str) -> bytes:
    return "".join(f"[{char.upper()}{char}]" if char.isalpha() else re.escape(char) for char in name).encode()
