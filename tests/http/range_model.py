"""A second implementation of RFC 9110 sections 14.1 and 15.3.7.2, and a client that reads multipart responses.

Positions of bytes are listed one by one instead of computed with, so it is slow, and good for small objects only.
Nothing here calls the code under test.
"""

import re

SPEC = r"(?:[0-9]+-[0-9]*|-[0-9]+)"
RANGE_SET = re.compile(rf"(?i:bytes)={SPEC}?(?:[ \t]*,[ \t]*{SPEC}?)*", re.ASCII)
FIELD_LINE = re.compile(rb"([A-Za-z-]+): ([^\r\n]*)")


def requested(header: str, size: int) -> list[set[int]] | None:
    """The positions that each range of a Range header covers, none where it cannot be satisfied (section 14.1.2).

    None: the header counts as absent (section 14.2), for its grammar or for our limits.
    """
    header = header.strip(" \t") if len(header) <= 1000 else ""
    specs = re.findall(SPEC, header)
    if not RANGE_SET.fullmatch(header) or not 1 <= len(specs) <= 100:
        return None
    return None if None in (sets := [_positions(spec, size) for spec in specs]) else [one or set() for one in sets]


def _positions(spec: str, size: int) -> set[int] | None:
    first, last = spec.split("-")
    if not first:
        return {at for at in range(size) if size - at <= int(last)}
    if last and int(last) < int(first):
        return None
    return {at for at in range(size) if int(first) <= at and (not last or at <= int(last))}


def parts(sets: list[set[int]]) -> list[list[int]]:
    """Return the positions of each part that a server sends (section 15.3.7.2).

    It coalesces ranges across gaps of less than 80 bytes, and keeps the requested order.
    """
    islands: list[list[int]] = []
    for at in sorted(set().union(*sets)):
        if islands and at - islands[-1][-1] - 1 < 80:
            islands[-1] += range(islands[-1][-1] + 1, at + 1)
        else:
            islands.append([at])
    in_order: list[list[int]] = []
    for one in sets:
        in_order += [island for island in islands if one and one <= set(island) and island not in in_order]
    return in_order


def multipart_length(sent: list[list[int]], size: int, boundary: str, object_type: str) -> int:
    """The bytes of a multipart/byteranges body of these parts (section 14.6, RFC 2046 section 5.1.1)."""
    body = "".join(
        f"\r\n--{boundary}\r\nContent-Type: {object_type}\r\nContent-Range: bytes {part[0]}-{part[-1]}/{size}\r\n\r\n"
        + "x" * len(part)
        for part in sent
    )
    return len(f"{body}\r\n--{boundary}--\r\n".removeprefix("\r\n").encode())


def read_multipart(content_type: str, body: bytes) -> list[tuple[dict[str, str], bytes]]:
    """Return the parts of a body, header fields and content, as the strictest client reads them.

    Raises AssertionError if the body is not exactly that of RFC 2046 section 5.1.1, without preamble and epilogue.
    """
    media_type, _, boundary = content_type.partition("; boundary=")
    assert media_type == "multipart/byteranges"
    assert re.fullmatch(r"[0-9A-Za-z]{1,70}", boundary)
    delimiter = b"--" + boundary.encode()
    before, *found, after = (b"\r\n" + body).split(b"\r\n" + delimiter)
    assert before == b""
    assert after == b"--\r\n"
    read = []
    for part in found:
        head, blank, content = part.partition(b"\r\n\r\n")
        start, *lines = head.split(b"\r\n")
        assert blank
        assert start == b""
        matches = [FIELD_LINE.fullmatch(line) for line in lines]
        assert all(matches)
        fields = {match[1].decode(): match[2].decode() for match in matches if match}
        assert len(fields) == len(lines)
        read.append((fields, content))
    return read
