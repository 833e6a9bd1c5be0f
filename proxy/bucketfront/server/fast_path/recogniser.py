"""Recognises plain requests with one regular expression: a complete and well-formed GET or HEAD.

1. It is strict. Each request that it recognises is also accepted by aiohttp's parser and by `framing`, with the same
   meaning. An unusual request stays unrecognised and is never refused. Examples are a body, a folded line, HTTP/1.0,
   a second request behind it, or a second field of a name that matters.
2. A field that changes a response is either read here or makes the request unrecognised. Any other field may occur
   with any value: cookies, request ids, forwarding chains.
"""

import functools
import re
import string
from collections.abc import Callable

from bucketfront.http import request_ids, trace_context
from bucketfront.server.telemetry import logged_fields

MAX_REQUEST_BYTES = 7 << 10  # below each bound that the parser has for a line, a field or a head

PlainRequest = tuple[bytes | None, ...]
"""The groups of the expression: method, target, If-None-Match, If-Modified-Since, Origin, Accept-Encoding, the fields
of `logged_fields.NAMES`, the first and the last position of Range, Host, and X-Forwarded-For if that is declared. A
group is None if its field is absent. It is a plain tuple, because a NamedTuple would cost each hit another
allocation."""

RESPONSE_KEY = slice(6)
"""The groups that decide on the response, except for its Range."""
LOGGED = slice(6, 11)
"""The groups of the fields that the access log has. Of the responses to them, only that to a request id has it."""
REQUEST_ID = 7
FIRST, LAST, _HOST_AT = 11, 12, 13
FORWARDED_FOR = 14
"""The group of the field that names the client. Responses do not depend on it, only the access log does."""

KEYED_FIELDS = ("if-none-match", "if-modified-since", "origin", "accept-encoding")
"""Fields whose values keep prepared responses apart, in the order of `PlainRequest`."""
UNKEYED_FIELDS = frozenset({"host", "user-agent", "connection", "range"})
"""Fields of plain requests that do not keep prepared responses apart. A stage that reads one turns it off."""

_X_FORWARDED_FOR = "x-forwarded-for"
_USER_AGENT = "user-agent"
_READ = ("if-none-match", "if-modified-since", "origin")
_UNUSUAL = (
    "if-match", "if-unmodified-since", "if-range", "expect", "content-length", "transfer-encoding", "upgrade",
    "proxy-connection", "sec-websocket-key1",
    # aiohttp refuses a second one of these.
    "content-location", "content-range", "content-type", "etag", "max-forwards", "server",
)  # fmt: skip
# The beginning of names that make a request unrecognised: the key of an object with SSE-C, which the ordinary path
# refuses. Names with this initial are compared with these alone, because load balancers add many of them.
_UNUSUAL_X = ("x-amz-server-side-encryption-customer-",)
_HARMLESS = ("cookie", "referer", "sec-fetch-", "sec-ch-")  # prefixes of names; no known name has one of them
_MAX_FIELDS = 64  # of a request; browsers send about 20, and aiohttp accepts more

# RFC 3986 sections 3.3 and 3.4. The first segment is not empty, because some parsers read "//" as an authority.
_TARGET = rb"/(?:[A-Za-z0-9\-._~!$&'()*+,;=:@%][A-Za-z0-9\-._~!$&'()*+,;=:@%/?]*+)?"
_TOKEN_CHARS = "!#$%&'*+-.^_`|~" + string.digits + string.ascii_letters  # RFC 9110 section 5.6.2
_TOKEN = b"[" + "".join(re.escape(char) for char in _TOKEN_CHARS).encode() + b"]"
_VALUE = rb"[\x20-\x7e\t]*+"
_HOST = rb"[A-Za-z0-9.-]++(?::[0-9]{1,5})?"


def recogniser(
    reads: frozenset[str], hosts: tuple[str, ...] = (), logged: frozenset[str] = frozenset()
) -> Callable[[bytes], PlainRequest | None]:
    """Return the function that recognises plain requests.

    `reads` are the fields that the pipeline's stages declare, in lower case. Accept-Encoding is read only if it is
    declared. A declared field that does not keep prepared responses apart makes a request unrecognised. So does a Host
    other than `hosts`, in lower case and with any port, unless they are empty. `logged` are the fields that the access
    log has. One that is malformed makes a request unrecognised.

    Raises ValueError if that is impossible for a field.
    """
    if reads & UNKEYED_FIELDS:
        raise ValueError(f"the fast path cannot keep responses apart by {sorted(reads & UNKEYED_FIELDS)}")
    reads_accept_encoding = "accept-encoding" in reads
    unusual = tuple(sorted(reads.difference(KEYED_FIELDS, _UNUSUAL, {_X_FORWARDED_FOR})))
    forwarded_for = _X_FORWARDED_FOR if _X_FORWARDED_FOR in reads else ""
    # A field that is not read keeps its place in `PlainRequest`.
    read = (*_READ, "accept-encoding" if reads_accept_encoding else "")
    captured = tuple(name if name in logged or name == "range" else "" for name in logged_fields.NAMES)
    match = re.compile(_pattern(read, captured, forwarded_for, (*_UNUSUAL, *unusual), _host_of(hosts))).match

    def recognise(data: bytes) -> PlainRequest | None:
        if len(data) > MAX_REQUEST_BYTES:
            return None
        found = match(data)
        # The end is compared here, because as a part of the pattern it would make a failed match backtrack.
        if found is None or data[found.end() :] != b"\r\n":
            return None
        request = found.groups()
        return None if request[_HOST_AT] is None else request

    return recognise


def _host_of(hosts: tuple[str, ...]) -> bytes:
    """Return the expression for a value of Host."""
    if not hosts:
        return _HOST
    return rb"(?:" + rb"|".join(_any_case(host) for host in hosts) + rb")(?::[0-9]{1,5})?"


@functools.lru_cache(maxsize=8)  # its parts take milliseconds, and most reloads change none
def _pattern(
    read: tuple[str, ...], logged: tuple[str, ...], forwarded_for: str, unusual: tuple[str, ...], host: bytes
) -> bytes:
    """Return the expression for a head without its empty line.

    `logged` are the fields of the log, the last of which is Range. `forwarded_for` is the name of the field that names
    the client, or empty.

    A line fits at most one alternative. No group is repeated possessively, because Python before 3.11.5 matches that
    wrongly.
    """
    lines, group = [], 3  # groups 1 and 2 are the method and the target
    for name in (*read, *logged):
        lines.append(_once(name, _value_of(name), group))
        group += 3 if name == "range" else 1
    lines.append(_once("host", rb"(" + host + rb")[ \t]*+", group))
    lines.append(_once(forwarded_for, _value_of(forwarded_for), group + 1))
    if _USER_AGENT not in logged:  # aiohttp refuses a second one
        lines.append(_once(_USER_AGENT, rb"()" + _VALUE, group + 2))
    lines.append(_any_case("connection") + rb":[ \t]*+" + _any_case("keep-alive") + rb"[ \t]*+")
    names = (name for name in (*read, *logged, forwarded_for) if name and name != _USER_AGENT)
    known = ("host", _USER_AGENT, "connection", *names, *unusual)
    ignored = tuple(start for start in _HARMLESS if not any(name.startswith(start) for name in known))
    # Long fields of browsers that no response depends on. Their alternatives save the comparison with the known names.
    harmless = (_any_case(name) + _TOKEN + rb"*+:" + _VALUE for name in ignored)
    initials = {char for name in (*known, *_UNUSUAL_X) for char in (name[0], name[0].upper())}
    # A name with another initial is unknown, so most lines need the comparison of one character.
    other_initials = "".join(re.escape(char) for char in _TOKEN_CHARS if char not in initials).encode()
    other = rb"[" + other_initials + rb"]" + _TOKEN + rb"*+:" + _VALUE
    refused_x = (*_UNUSUAL_X, *(f"{name}:" for name in known if name.startswith("x")))
    # A lookahead costs as much as a line, so a name that differs at its third character is matched without one.
    thirds = {char for name in refused_x if name[1] == "-" for char in (name[2], name[2].upper())}
    other_third = b"-[" + "".join(re.escape(char) for char in _TOKEN_CHARS if char not in thirds).encode() + b"]"
    most_x = rb"[Xx]" + other_third + _TOKEN + rb"*+:" + _VALUE
    not_x = (other_third, *(_any_case(name[1:]) for name in refused_x))
    other_x = rb"[Xx](?!" + rb"|".join(not_x) + rb")" + _TOKEN + rb"*+:" + _VALUE
    other_alternatives = (rb"[Xx]", *(_any_case(name) + rb":" for name in known), *map(_any_case, ignored))
    # The first lookahead fails at once at the empty line, which each head ends with.
    unknown = rb"(?=" + _TOKEN + rb")(?!" + rb"|".join(other_alternatives) + rb")" + _TOKEN + rb"++:" + _VALUE
    line = rb"(?:" + rb"|".join((other, most_x, *harmless, *lines, other_x, unknown)) + rb")\r\n"
    head = rb"(GET|HEAD) (" + _TARGET + rb") HTTP/1\.1\r\n"
    return head + rb"(?:" + line + rb"){0,%d}" % _MAX_FIELDS


def _once(name: str, value: bytes, group: int) -> bytes:
    """Return the expression for a field that may occur once: it fails if its value's `group` has matched before.

    The initial stands before that condition, so that most lines fail at one character. Without a name, the expression
    never matches, and only keeps the group's number.
    """
    if not name:
        return rb"(?!)()"
    initial, others = _any_case(name[0]), _any_case(name[1:])
    return initial + rb"(?(%d)(?!)|" % group + others + rb":[ \t]*+" + value + rb")"


def _value_of(name: str) -> bytes:
    match name:
        case "range":
            return rb"(bytes=([0-9]{0,15}+)-([0-9]{0,15}+))[ \t]*+"
        case "user-agent" | "referer":
            return rb"([\x20-\x7e\t]*+)"
        case "x-request-id":
            return b"(" + request_ids.SAFE.encode() + rb")[ \t]*+"
        case "traceparent":
            return b"(" + trace_context.VERSION_0.encode() + rb")[ \t]*+"
    return rb"([\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?)[ \t]*+"


def _any_case(name: str) -> bytes:
    return "".join(f"[{char.upper()}{char}]" if char.isalpha() else re.escape(char) for char in name).encode()
