"""Checksums that are fed piece by piece, and bodies that are held against them."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rows import each_row

from bucketfront.http import checksums
from bucketfront.http.body_checksums import BodyChecksums, ChecksumMismatch
from bucketfront.http.checksums import Digest

PIECES = st.lists(st.binary(max_size=50), max_size=8)


def digest(algorithm: str, data: bytes) -> Digest:
    state = checksums.hasher(algorithm)
    state.update(data)
    return Digest(algorithm, state.digest())


@each_row("algorithm", sorted(checksums.ALGORITHMS))
def test_length(algorithm: str) -> None:
    """Each value has the length of its algorithm."""
    assert len(checksums.hasher(algorithm).digest()) == checksums.size_of(algorithm)


@each_row(
    ("algorithm", "value"),
    [
        ("crc32", "DUoRhQ=="),
        ("crc32c", "yZRlqg=="),
        ("sha1", "Kq5sNclPz7QV2+lfQIuc6R7oRu0="),
        ("sha256", "uU0nuZNNPgilLlLX2n2r+sSE7+N6U4DukIj3rOLvzek="),
        ("md5", "XrY7u+Ae7tCTyyK7j1rNww=="),
    ],
)
def test_known_values(algorithm: str, value: str) -> None:
    """Of `hello world`, as other programs have them."""
    assert base64.b64encode(digest(algorithm, b"hello world").value).decode() == value


@given(PIECES, st.sampled_from(sorted(checksums.ALGORITHMS)))
def test_pieces_make_no_difference(pieces: list[bytes], algorithm: str) -> None:
    """How a body happens to arrive does not matter, and what it is does: one bit more and it is refused."""
    body = b"".join(pieces)
    held = BodyChecksums([digest(algorithm, body), digest("crc64nvme", body)])
    for piece in pieces:
        held.update(piece)
    held.verify()
    held.update(b"\x01")
    with pytest.raises(ChecksumMismatch):
        held.verify()


def test_all_have_to_hold() -> None:
    """One wrong claim among right ones is enough, in any place."""
    right, wrong = digest("md5", b"x"), digest("sha256", b"y")
    for claims in ([right, wrong], [wrong, right]):
        held = BodyChecksums(claims)
        held.update(b"x")
        with pytest.raises(ChecksumMismatch, match="sha256"):
            held.verify()
