"""Heads of requests as clients send them, and random changes to them."""

import random

_BROWSER = b"""\
GET /x HTTP/1.1
Host: cdn.example.com:8080
User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:130.0) Gecko/20100101 Firefox/130.0
Accept: image/avif,image/webp,*/*;q=0.8
Accept-Language: en-US,en;q=0.5
Accept-Encoding: gzip, deflate, br, zstd
Cookie: session=0123456789abcdef; theme=dark
Origin: https://app.example
Connection: keep-alive
"""
_PLAYER = b"""\
GET /x HTTP/1.1
Host: a
Range: bytes=5-99
Accept: */*
Icy-MetaData: 1
User-Agent: Lavf/60.16.100
"""
_CDN = b"""\
GET /x HTTP/1.1
X-Forwarded-For: 203.0.113.7, 10.0.0.1
If-None-Match: "0123456789abcdef0123456789abcdef"
If-Modified-Since: Sun, 06 Nov 1994 08:49:37 GMT
Host: 127.0.0.1
X-Request-Id: 6f1c0e8e-70d4-4f5c-a5bb-6b8f6a5e0d5b
Via: 1.1 edge
"""
_CURL = b"""\
HEAD /x HTTP/1.1
Host: 127.0.0.1:8080
User-Agent: curl/8.5.0
Accept: */*
"""
HEADS = tuple(head.replace(b"\n", b"\r\n") + b"\r\n" for head in (_BROWSER, _PLAYER, _CDN, _CURL))

_LINES = (
    b"Host: b", b"host:c", b"Range: bytes=0-",
    b"range:bytes=-5", b"Range: bytes=9-2", b"Range: bytes=0-1,3-4", b"Range: x",
    b"RANGE:\tbytes=1-1 ", b"Range: bytes=-", b"Range: bytes=" + b"9" * 20 + b"-", b"If-None-Match: *",
    b'if-none-match: W/"a", "b"', b"If-Range: x", b"If-Match: *", b'If-Match: "z"', b"If-Unmodified-Since: x",
    b"If-Modified-Since: Thu, 01 Jan 2099 00:00:00 GMT", b"Expect: 100-continue", b"Expect: x", b"Content-Length: 0",
    b"Content-Length: 5", b"Transfer-Encoding: chunked", b"Upgrade: websocket", b"Upgrade: h2c", b"Connection: close",
    b"Connection: upgrade", b"Connection: Keep-Alive", b"Connection: keep-alive, close", b"Proxy-Connection: close",
    b"Cache-Control: no-cache", b"Cache-Control: only-if-cached", b"Pragma: no-cache", b"Authorization: Basic eA==",
    b"Sec-WebSocket-Key1: x", b"Sec-Fetch-Mode: cors", b"TE: trailers", b"Trailer: x", b"X-Empty:", b"X-Space:  \t ",
    b" folded", b"\tfolded", b"X : y", b"no colon",
    b": no name", b"X-Bytes: \xc3\xa9\xff", b"X-Nul: a\x00b", b"X-CR: a\rb",
    b"X-LF: a\nb", b"Accept-Encoding: br", b"Origin: null",
    b"Origin:", b"Origin:  https://a  ", b"Content-Encoding: gzip",
    b"X-Long: " + b"a" * 5000, b"X-Longer: " + b"a" * 9000, b"HTTP2-Settings: x",
    b"Content-Type: a/b", b"X(y): z", b"\x7f: z",
)  # fmt: skip
_BYTES = b'\x00\t\n\r "#%,-/:;?@[\\]{|}\x7f\x80\xffAaHh019'
_FIRST_LINES = (
    b"GET /x HTTP/1.0", b"GET /x HTTP/1.2", b"GET /x HTTP/2.0",
    b"get /x HTTP/1.1", b"GET  /x HTTP/1.1", b"GET /x  HTTP/1.1",
    b"GET /x", b"GET /x HTTP/1.1 ", b" GET /x HTTP/1.1", b"GET x HTTP/1.1", b"GET //x HTTP/1.1", b"GET /x? HTTP/1.1",
    b"GET /x?a=b&c HTTP/1.1", b"GET /%78 HTTP/1.1",
    b"GET /%zz HTTP/1.1", b"GET http://h/x HTTP/1.1", b"GET /x#f HTTP/1.1",
    b"GET /\xc3\xa9 HTTP/1.1", b'GET /"x" HTTP/1.1', b"GET * HTTP/1.1", b"OPTIONS /x HTTP/1.1", b"TRACE /x HTTP/1.1",
    b"POST /x HTTP/1.1", b"GETT /x HTTP/1.1", b"\r\nGET /x HTTP/1.1", b"GET /x http/1.1",
)  # fmt: skip


def mutated(dice: random.Random) -> bytes:
    """Return a head.

    In one of three cases it is unchanged except for its variable parts, else it has one to three changes.
    """
    lines = dice.choice(HEADS)[:-4].split(b"\r\n")
    lines.append(b"X-Varies: %016x" % dice.getrandbits(64))
    for _ in range(dice.choice((0, 1, 1, 1, 2, 3))):
        _change(lines, dice)
    head = b"\r\n".join(lines) + b"\r\n\r\n"
    match dice.randrange(12):
        case 0:
            at = dice.randrange(len(head))
            head = head[:at] + bytes((dice.choice(_BYTES),)) + head[at + 1 :]
        case 1:
            at = dice.randrange(len(head))
            head = head[:at] + bytes((dice.choice(_BYTES),)) + head[at:]
        case 2:
            at = dice.randrange(len(head))
            head = head[:at] + head[at + 1 :]
        case 3:
            head += dice.choice((b"x", b"hello", b"\r\n", b"0\r\n\r\n", *HEADS))
    return head


def _change(lines: list[bytes], dice: random.Random) -> None:
    at = dice.randrange(1, len(lines) + 1)
    match dice.randrange(8):
        case 0 | 1 | 2:
            lines.insert(at, dice.choice(_LINES))
        case 3:
            lines[0] = dice.choice(_FIRST_LINES)
        case 4 if at < len(lines):
            lines.insert(dice.randrange(1, len(lines) + 1), lines[at])
        case 5 if at < len(lines):
            del lines[at]
        case 6:
            fields = lines[1:]
            dice.shuffle(fields)
            lines[1:] = fields
        case 7 if at < len(lines):
            name, colon, value = lines[at].partition(b":")
            lines[at] = (
                dice.choice((name.upper(), name.lower(), name.title()))
                + colon
                + value
                + dice.choice((b"", b" ", b"\t"))
            )
        case _:
            lines += [b"X-%d: y" % number for number in range(dice.choice((3, 30, 70, 140)))]
