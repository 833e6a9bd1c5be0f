"""The framing within the body of a streamed upload (S3 API, "transferring payload in multiple chunks")."""

import base64
import io
import zlib

import pytest
from botocore.httpchecksum import AwsChunkedWrapper, Crc32Checksum
from hypothesis import given
from hypothesis import strategies as st
from rows import each_row

from bucketfront.http import aws_chunked
from bucketfront.http.aws_chunked import (
    CHUNK_BYTES,
    MAX_LINE_BYTES,
    MAX_REST_BYTES,
    AwsChunked,
    BadChunks,
    ChunkDecoder,
    ChunkEncoder,
)
from bucketfront.http.checksums import Digest, hasher

SIGNATURE = b";chunk-signature=" + b"a" * 64


def crc32(data: bytes) -> bytes:
    return base64.b64encode(zlib.crc32(data).to_bytes(4, "big"))


def framed(*chunks: bytes, signature: bytes = b"", rest: bytes = b"\r\n") -> bytes:
    head = b"".join(b"%x%s\r\n%s\r\n" % (len(chunk), signature, chunk) for chunk in chunks)
    return head + b"0%s\r\n" % signature + rest


def decoded(body: bytes, framing: AwsChunked, step: int) -> tuple[bytes, tuple[Digest, ...]]:
    decoder = ChunkDecoder(framing)
    found = b"".join(decoder.feed(body[at : at + step]) for at in range(0, len(body), step))
    return found, decoder.close()


@given(
    st.lists(st.binary(min_size=1, max_size=300), max_size=6),
    st.integers(min_value=1, max_value=700),
    st.sampled_from([b"", SIGNATURE]),
    st.booleans(),
)
def test_every_cut_gives_the_object(chunks: list[bytes], step: int, signature: bytes, is_known: bool) -> None:
    """The object and its checksum come out, wherever the chunks and the reads are cut (I3)."""
    data = b"".join(chunks)
    rest = b"x-amz-checksum-crc32:" + crc32(data) + b"\r\n\r\n"
    framing = AwsChunked(len(data) if is_known else None, ("crc32",))
    expected = data, (Digest("crc32", zlib.crc32(data).to_bytes(4, "big")),)
    assert decoded(framed(*chunks, signature=signature, rest=rest), framing, step) == expected


@each_row(
    "rest",
    [
        b"x-amz-checksum-crc32:%s\r\n\r\n",
        b"X-Amz-Checksum-Crc32: %s\r\n\r\n",
        b"x-amz-checksum-crc32:%s\n\r\n\r\n\r\n",
        b"x-amz-checksum-crc32:%s\n\r\nx-amz-trailer-signature:" + b"a" * 64 + b"\r\n\r\n",
    ],
)
def test_forms_of_the_rest(rest: bytes) -> None:
    """SDKs end the lines behind the last chunk in several ways."""
    framing = AwsChunked(4, ("crc32",))
    assert decoded(framed(b"data", rest=rest % crc32(b"data")), framing, 1000)[0] == b"data"


@each_row(
    "body",
    [
        b"",
        b"data",
        b"4\r\ndata\r\n",
        b"4\r\ndata\r\n0",
        b"4\r\ndata\r\n0\r\n",
        b"4\r\ndat",
        b"4\r\ndatax\r\n0\r\n\r\n",
        b"3\r\ndata\r\n0\r\n\r\n",
        b"4\ndata\r\n0\r\n\r\n",
        b"-4\r\ndata\r\n0\r\n\r\n",
        b"0x4\r\ndata\r\n0\r\n\r\n",
        b" 4\r\ndata\r\n0\r\n\r\n",
        b"\r\n4\r\ndata\r\n0\r\n\r\n",
        b"4;\x00\r\ndata\r\n0\r\n\r\n",
        b"5\r\ndata!\r\n0\r\n\r\n",
        b"3\r\ndat\r\n0\r\n\r\n",
        b"4\r\ndata\r\n0\r\nno field\r\n\r\n",
        b"4" + b";" + b"a" * MAX_LINE_BYTES + b"\r\ndata\r\n0\r\n\r\n",
        b"4\r\ndata\r\n0\r\n" + b"a:b\r\n" * MAX_REST_BYTES,
        b"ffffffffffffffff\r\ndata\r\n0\r\n\r\n",
        b"fffffffffffffffff\r\ndata\r\n0\r\n\r\n",
    ],
)
@each_row("step", [1, 10_000])
def test_malformed(body: bytes, step: int) -> None:
    """A body that is cut, that lies about a size, or has another length than declared is no object (I8, I24)."""
    with pytest.raises(BadChunks):
        decoded(body, AwsChunked(4), step)


@each_row("rest", [b"\r\n", b"x-amz-checksum-crc32:AA==\r\n\r\n", b"x-amz-checksum-crc32c:AAAAAA==\r\n\r\n"])
def test_an_announced_checksum_is_required(rest: bytes) -> None:
    """A checksum that the head announces may neither be missing nor malformed."""
    with pytest.raises(BadChunks, match="crc32"):
        decoded(framed(b"data", rest=rest + b"\r\n"), AwsChunked(4, ("crc32",)), 1000)


@each_row(
    "rest",
    [
        b"x-amz-checksum-crc32:rfPzYw==\r\nx-amz-checksum-sha256:AAAA\r\n",
        b"x-amz-checksum-crc32:AAAAAA==\r\nx-amz-checksum-crc32:rfPzYw==\r\n",
        b"x-amz-checksum-crc32:rfPzYw==\r\nX-Amz-Checksum-Crc32:rfPzYw==\r\n",
    ],
)
def test_only_announced_checksums_come_once(rest: bytes) -> None:
    """A checksum that would not be verified refuses the body (S3 API, MalformedTrailerError)."""
    with pytest.raises(BadChunks):
        decoded(framed(b"data", rest=rest + b"\r\n"), AwsChunked(4, ("crc32",)), 1000)
    once = b"x-amz-checksum-crc32:rfPzYw==\r\nx-amz-trailer-signature:0123\r\n\r\n"
    assert decoded(framed(b"data", rest=once), AwsChunked(4, ("crc32",)), 1000)[0] == b"data"


@given(st.binary(max_size=200), st.integers(min_value=1, max_value=50))
def test_is_total(body: bytes, step: int) -> None:
    """Any bytes are a body or BadChunks."""
    try:
        found, _ = decoded(body, AwsChunked(), step)
    except BadChunks:
        return
    assert len(found) < len(body)


@each_row("text", ["", "-1", "1.0", "0x10", "1" * 20, " 1", "\u0661"])
def test_malformed_lengths(text: str) -> None:
    """A length is a decimal number."""
    with pytest.raises(BadChunks):
        aws_chunked.declared_length(text)
    assert aws_chunked.declared_length("10") == 10
    assert aws_chunked.declared_length(None) is None


algorithms = st.lists(st.sampled_from(["crc32", "crc32c", "crc64nvme", "sha1", "sha256"]), unique=True, max_size=2)


def digests_of(data: bytes, names: list[str]) -> tuple[Digest, ...]:
    found = []
    for name in names:
        running = hasher(name)
        running.update(data)
        found.append(Digest(name, running.digest()))
    return tuple(found)


def encoded(data: bytes, names: list[str], step: int) -> bytes:
    encoder = ChunkEncoder(len(data), names)
    body = b"".join(encoder.feed(data[at : at + step]) for at in range(0, len(data), step))
    body += encoder.close(digests_of(data, names))
    assert len(body) == encoder.framed_length
    return body


@given(
    st.binary(max_size=600), algorithms, st.integers(1, 700), st.integers(1, 700), st.sampled_from([1, 16, 255, 600])
)
def test_what_is_encoded_can_be_decoded(data: bytes, names: list[str], step: int, cut: int, chunk: int) -> None:
    """The decoder gets the object and its checksums back, and the length of the body is known in advance (I3)."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(aws_chunked, "CHUNK_BYTES", chunk)
        body = encoded(data, names, step)
        framing = AwsChunked(len(data), tuple(names))
        assert decoded(body, framing, cut) == (data, digests_of(data, names))


@each_row("size", [0, 1, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 2 * CHUNK_BYTES])
def test_the_encoding_is_that_of_botocore(size: int) -> None:
    """The bytes are those that botocore sends for the same object."""
    data = bytes(size)
    other = AwsChunkedWrapper(io.BytesIO(data), checksum_cls=Crc32Checksum, checksum_name="x-amz-checksum-crc32")
    by_botocore = other.read()
    assert encoded(data, ["crc32"], 300_000) == by_botocore


def test_the_encoder_insists_on_the_declared_length() -> None:
    """An object of another length than declared never gets the end of its body (I8)."""
    with pytest.raises(BadChunks):
        ChunkEncoder(3).feed(b"four")
    encoder = ChunkEncoder(3)
    encoder.feed(b"ab")
    with pytest.raises(BadChunks):
        encoder.close()
