"""Requests as an attacker sends them: framings that two parsers may read differently, and random changes to them."""

import random
from dataclasses import dataclass

from mutation import HEADS, mutated

BODY = b"hello"
HIDDEN_CLIENT = "203.0.113.9"  # whom only a hidden request names as its client, RFC 5737
_HIDDEN = b"GET /hidden-%d HTTP/1.1\r\nHost: localhost\r\nX-Forwarded-For: 203.0.113.9\r\n\r\n"
_HUGE = (b"18446744073709551615", b"0" * 5000 + b"5", b"18446744073709551616", b"9223372036854775808", b"9" * 400)

# The length of BODY, in values that are none.
_LENGTHS = (
    b"+5", b"-5", b"5,5", b"5, 5", b"5, 6", b"0x5", b"5\x0b", b"\xd9\xa5", b"", b"5;q=1", b"1e3", b"5 5", b"five",
    b"5.0", b"0b101", b"5\x00", b"\xc2\xa05", *_HUGE,
)  # fmt: skip
_CODINGS = (
    b"xchunked", b"chunkedx", b"chunked, identity", b"chunked, chunked", b"\x0bchunked", b"chunked\x00", b'"chunked"',
    b"chunked;a=b", b"chun ked", b"", b"identity", b"gzip", b"gzip, chunked", b"identity, chunked",
    b"chunked\xa0", b"\xefchunked", b"chunked, gzip", b"c\x68unked ,x",
)  # fmt: skip
_CODED_NAMES = (
    b"Transfer-Encoding : chunked", b" Transfer-Encoding: chunked", b"Transfer-Encoding\x00: chunked",
    b"Transfer-Encoding\t: chunked", b"X: y\nTransfer-Encoding: chunked", b"X: y\rTransfer-Encoding: chunked",
    b"Transfer-Encoding:\r\n chunked", b"X: y\r\n Transfer-Encoding: chunked", b"Content-Length: 5\r\n\t5",
    b"Transfer-Encoding\r\n: chunked", b"\x85Transfer-Encoding: chunked",
)  # fmt: skip
_CHUNKS = (
    b"0x5\r\nhello\r\n0\r\n\r\n", b"+5\r\nhello\r\n0\r\n\r\n", b"-5\r\nhello\r\n0\r\n\r\n", b" 5\r\nhello\r\n0\r\n\r\n",
    b"5\nhello\n0\n\n", b"5\rhello\r\n0\r\n\r\n", b"5\r\nhello0\r\n\r\n", b"5\r\nhelloXX0\r\n\r\n",
    b"\r\nhello\r\n0\r\n\r\n", b"FFFFFFFFFFFFFFFF5\r\nhello\r\n0\r\n\r\n",
    b"5;a\nb\r\nhello\r\n0\r\n\r\n", b"5;a=\x00\r\nhello\r\n0\r\n\r\n",
    b"5\r\nhello\r\n0\r\nContent Length: 5\r\n\r\n", b"5g\r\nhello\r\n0\r\n\r\n", b"5,5\r\nhello\r\n0\r\n\r\n",
    b"5_0\r\nhello\r\n0\r\n\r\n", b"5\r\r\nhello\r\n0\r\n\r\n", b"00000000000000000\r\n5\r\nhello\r\n0\r\n\r\n",
)  # fmt: skip
_TARGETS = (
    b"/x", b"/x", b"/x", b"http://other.example/x", b"HTTP://other.example:1/x", b"//other.example/x", b"/%78",
    b"/x?a=b", b"/x%00", b"/x%0d%0aSet-Cookie:a=b", b"/../x", b"/%2e%2e/x", b"/x\x00", b"/\\x", b"*", b"x",
    b"http:///x", b"/x#y",
    b"http://user:word@other.example/x", b"/" + b"a" * 9000,
)  # fmt: skip
_VERSIONS = (b"HTTP/1.1",) * 12 + (
    b"HTTP/1.0", b"HTTP/0.9", b"HTTP/1.2", b"HTTP/2.0", b"HTTP/11", b"http/1.1", b"HTTP/1.1 ", b"HTTP/1,1", b"",
)  # fmt: skip
_ENDS = (b"\r\n",) * 15 + (b"\n", b"\r", b"\r\r\n", b"\n\r\n", b"\r\n\x00")
_NOISE = bytes(range(33)) + b"\x7f\x80\x85\xa0\xff:;,/?#%+-0159AZaz"


@dataclass(frozen=True, slots=True)
class Attack:
    """One request. `is_ambiguous` is True if RFC 9112 lets no server respond to it with anything but an error.

    `key` is the key that it writes, if it writes one, and no other request names it.
    """

    data: bytes
    is_ambiguous: bool = False
    key: str = ""


def attack(dice: random.Random, number: int) -> Attack:
    """Return a random request. One of three has a body, whose framing may be anything."""
    if dice.randrange(3):
        return Attack(mutated(dice))
    made = framed(dice, number)
    changes = dice.choice((0, 0, 1, 1, 3))
    if not changes:
        return made
    data = bytearray(made.data)
    for _ in range(changes):
        at = dice.randrange(len(data))
        match dice.randrange(3):
            case 0:
                data[at] = dice.choice(_NOISE)
            case 1:
                data.insert(at, dice.choice(_NOISE))
            case _:
                del data[at]
    # A change may have made it another request, so all that is known of it is its key, unless that has changed as well.
    return Attack(bytes(data), key=made.key if f"/{made.key} ".encode() in data else "")


def honest(dice: random.Random) -> Attack:
    """Return a request without a fault."""
    return Attack(dice.choice(HEADS))


def framed(dice: random.Random, number: int) -> Attack:
    """Return a request with a body, behind or within which there is a hidden request."""
    hidden = _HIDDEN % number
    is_write = not dice.randrange(10)
    key = f"written-{number}" if is_write else ""
    method = b"PUT" if is_write else dice.choice((b"GET", b"GET", b"HEAD", b"POST", b"OPTIONS"))
    target = f"/{key}".encode() if is_write else dice.choice(_TARGETS)
    fields, body, is_ambiguous = _framing(dice, hidden)
    lines = [b" ".join((method, target, dice.choice(_VERSIONS))).rstrip(b" "), b"Host: localhost", *fields]
    lines[1:] = dice.sample(lines[1:], len(lines) - 1)
    end = dice.choice(_ENDS)
    return Attack(end.join((*lines, b"", b"")) + body, is_ambiguous and end == b"\r\n", key)


def _framing(dice: random.Random, hidden: bytes) -> tuple[list[bytes], bytes, bool]:
    """Return fields, the body, and whether they are ambiguous in each request."""
    length = b"Content-Length: %d"
    chunked = b"5\r\nhello\r\n0\r\n\r\n"
    both = [length % len(chunked), b"Transfer-Encoding: chunked"]
    twice = [length % 5, length % dice.choice((5, 6, len(hidden) + 5))]
    coded = b"Transfer-Encoding: chunked"
    extended = b"5;name=value\r\nhello\r\n0\r\nX-Trailer: y\r\n\r\n"
    return dice.choice(
        (
            (both, chunked + hidden, True),
            (twice, BODY + hidden, True),
            ([b"Content-Length: " + dice.choice(_LENGTHS)], BODY + hidden, True),
            ([b"Transfer-Encoding: " + dice.choice(_CODINGS)], chunked + hidden, True),
            ([dice.choice(_CODED_NAMES), length % 5], BODY + hidden, True),
            ([coded, coded], chunked + hidden, True),
            ([coded], dice.choice(_CHUNKS) + hidden, True),
            ([length % len(hidden)], hidden, False),
            ([coded], dice.choice((chunked, extended)), False),
            ([length % dice.choice((3, 3, 3, 7, 7, 7, 400, 70_000))], BODY, False),
        )
    )
