"""The content checker recognises any range of any version, and finds any damage to it."""

import hashlib
import itertools

import chaos_content as content
from chaos_content import TILE_BYTES, WORD, Finding, Reading, check
from hypothesis import given
from hypothesis import strategies as st

KEY = "a/key ü"
NAMED_BYTES = 2 * WORD - 1  # bytes that hold a whole word wherever they begin

versions = st.integers(0, content.MAX_VERSION)
offsets = st.one_of(st.integers(0, 1 << 30), st.integers(1, 1 << 14).map(lambda tile: tile * TILE_BYTES - 40))
lengths = st.one_of(st.integers(NAMED_BYTES, 200), st.integers(TILE_BYTES - 50, 2 * TILE_BYTES + 50))


def of(version: int, start: int, length: int, key: str = KEY) -> bytes:
    return content.read(key, version, start, start + length)


@given(versions, offsets, lengths)
def test_any_range_names_its_version(version: int, offset: int, length: int) -> None:
    """Any range, of whole words or not, in one tile or several, gives one version, no wrong byte and no hole."""
    data = of(version, offset, length)
    assert len(data) == length
    assert b"\0" not in data
    assert check(KEY, data, offset) == Finding((version,))
    assert check(KEY, data, offset).is_all(version)
    assert not check(KEY, data, offset).is_all(version + 1)


@given(versions, offsets, lengths, st.data())
def test_pieces_are_checked_as_the_whole_is(version: int, offset: int, length: int, draw: st.DataObject) -> None:
    """However a body is cut into pieces, the finding and the bytes are the same."""
    data = of(version, offset, length)
    cuts = sorted(draw.draw(st.lists(st.integers(0, length), max_size=5)))
    reading = Reading(KEY, offset)
    pieces = [data[start:stop] for start, stop in zip([0, *cuts], [*cuts, length], strict=True)]
    for piece in pieces:
        reading.feed(piece)
    assert reading.finding() == Finding((version,))
    starts = [offset, *(offset + cut for cut in cuts), offset + length]
    assert [content.read(KEY, version, *span) for span in itertools.pairwise(starts)] == pieces


@given(versions, offsets, st.integers(0, NAMED_BYTES), st.data())
def test_less_than_a_word_is_held_to_the_version_expected(
    version: int, offset: int, length: int, draw: st.DataObject
) -> None:
    """A range too short to identify its version is compared with the version of its head."""
    data = of(version, offset, length)
    assert check(KEY, data, offset, version).is_all(version)
    if length:
        at = draw.draw(st.integers(0, length - 1))
        finding = check(KEY, _flipped(data, at, 0x80), offset, version)
        assert (finding.wrong_at, finding.is_hole) == (offset + at, False)


@given(versions, offsets, lengths, st.data())
def test_a_flipped_bit_is_found(version: int, offset: int, length: int, draw: st.DataObject) -> None:
    """A single flipped bit is found anywhere, and the bytes are not all of that version."""
    data = of(version, offset, length)
    at = draw.draw(st.integers(0, length - 1))
    bit = draw.draw(st.integers(0, 7))
    finding = check(KEY, _flipped(data, at, 1 << bit), offset, version)
    assert not finding.is_all(version)
    if bit == 7:  # no digit of a version
        assert finding.wrong_at == offset + at


@given(versions, offsets, lengths, st.data())
def test_a_hole_is_found(version: int, offset: int, length: int, draw: st.DataObject) -> None:
    """Zeros in place of some bytes are found, with their first offset (I2)."""
    data = of(version, offset, length)
    start = draw.draw(st.integers(0, length - 1))
    stop = draw.draw(st.integers(start + 1, length))
    finding = check(KEY, data[:start] + bytes(stop - start) + data[stop:], offset, version)
    assert (finding.wrong_at, finding.is_hole) == (offset + start, True)


@given(st.lists(versions, min_size=2, max_size=2, unique=True), offsets, lengths, st.data())
def test_a_mixed_body_names_both_versions(pair: list[int], offset: int, length: int, draw: st.DataObject) -> None:
    """A body of two versions matches neither, and both are named if each has a whole word in it (I1)."""
    cut = draw.draw(st.integers(1, length - 1))
    old, new = pair
    data = of(old, offset, cut) + of(new, offset + cut, length - cut)
    finding = check(KEY, data, offset, old)
    if data not in (of(old, offset, length), of(new, offset, length)):
        assert not finding.is_all(old)
        assert not finding.is_all(new)
    if cut >= NAMED_BYTES and length - cut >= NAMED_BYTES:
        assert finding.versions[0] == old
        assert finding.versions[-1] == new


@given(versions, offsets, offsets, lengths)
def test_bytes_of_another_place_are_found(version: int, offset: int, other: int, length: int) -> None:
    """A block from a wrong offset or of another object is wrong from its first word."""
    if offset // WORD != other // WORD:
        assert check(KEY, of(version, other, length), offset).wrong_at is not None
    assert check(KEY, of(version, offset, length, key="another"), offset).wrong_at is not None


def test_wrong_bytes_in_a_large_body_are_found() -> None:
    """Wrong bytes are found in tiles after the first, and after a part that is right again."""
    data = bytearray(of(3, 0, 4 * TILE_BYTES))
    data[2 * TILE_BYTES + 100 : 2 * TILE_BYTES + 5000] = bytes(4900)
    assert check(KEY, bytes(data), 0) == Finding((3,), 2 * TILE_BYTES + 100, is_hole=True)
    data[3 * TILE_BYTES :] = of(4, 3 * TILE_BYTES, TILE_BYTES)
    assert check(KEY, bytes(data), 0) == Finding((3, 4), 2 * TILE_BYTES + 100, is_hole=True)


def test_etags() -> None:
    """A small object has its MD5 as ETag, and a large one has the multipart form, which contains version and size."""
    assert content.etag(KEY, 7, 100_000) == f'"{hashlib.md5(of(7, 0, 100_000)).hexdigest()}"'
    large = [content.etag(KEY, version, size) for version, size in ((1, 1 << 30), (2, 1 << 30), (1, (1 << 30) + 1))]
    assert len(set(large)) == 3
    assert all(etag.endswith('-2"') for etag in large)


def _flipped(data: bytes, at: int, mask: int) -> bytes:
    return data[:at] + bytes([data[at] ^ mask]) + data[at + 1 :]
