"""The receiving side of a connection: its states, and where it cuts the client's bytes (I24)."""

from collections.abc import Iterator

from rows import each_row
from wire import chunked, message

from bucketfront.server.http1 import receiver
from bucketfront.server.http1.receiver import (
    MAX_HEAD_BYTES,
    BodyVerdict,
    ClientEnd,
    ReceiveEvent,
    Receiver,
    ReceiveState,
)

GET = message("GET", "/x")
PUT = message("PUT", "/x", {"Content-Length": "5"})
CODED = message("PUT", "/x", {"Transfer-Encoding": "chunked"})
BODIES = {GET: 0, PUT: 5, CODED: None}


def documented() -> dict[str, list[str]]:
    """Return the table's rows by state, in the order of its columns."""
    lines = [line.split() for line in (receiver.__doc__ or "").splitlines()]
    (top,) = [at for at, words in enumerate(lines) if words == [event.name for event in ReceiveEvent]]
    return {words[0]: words[1:] for words in lines[top + 1 : top + 1 + len(ReceiveState)]}


@each_row("state", ReceiveState, ids=lambda state: state.name)
def test_the_table_is_the_documented_one(state: ReceiveState) -> None:
    targets = receiver.TRANSITIONS[state]
    assert [targets[event].name for event in ReceiveEvent] == documented()[state.name]


@each_row("event", ReceiveEvent, ids=lambda event: event.name)
def test_what_ended_stays_so(event: ReceiveEvent) -> None:
    """After dropped bytes or the last request, no event makes a connection parse again."""
    for states in (receiver._DROPPING, receiver._LAST):
        assert {receiver.TRANSITIONS[state][event] for state in states} <= set(states)


def pieces(receiving: Receiver, data: bytes) -> Iterator[bytes]:
    """Yield the pieces of `data`, and tell the receiver what a parser finds in them. It knows the three heads."""
    data, at = receiving.held_and(data), 0
    head = b""
    while at < len(data):
        is_body, end = receiving.is_in_body, receiving.end_of_piece(data, at)
        piece = receiving.parsable(data[at:end])
        yield piece
        head = b"" if is_body else head + piece
        receiving.count_parsed(piece, is_of_head=not is_body and head not in BODIES)
        if head in BODIES:
            receiving.begin_body(BODIES[head])
            head = b""
        at = end


def test_each_head_and_body_is_a_piece() -> None:
    """A segment with several requests is cut where each head and each body ends."""
    receiving = Receiver()
    body = chunked(b"abc", b"\r\n\r\n")
    parts = [GET, PUT, b"12345", GET, CODED, body, GET]
    assert list(pieces(receiving, b"".join(parts))) == parts
    assert receiving.is_between_requests()


@each_row("at", range(len(GET) + 1))
def test_a_head_in_two_segments(at: int) -> None:
    """A head ends where its empty line ends, however its segments are cut. The next request is another piece."""
    receiving, parsed = Receiver(), 0
    segments = [GET[:at], GET[at:] + PUT]
    ends = []
    for segment in segments:
        data, start = receiving.held_and(segment), 0
        while start < len(data):
            end = receiving.end_of_piece(data, start)
            piece = receiving.parsable(data[start:end])
            parsed += len(piece)
            receiving.count_parsed(piece, is_of_head=parsed not in (len(GET), len(GET + PUT)))
            ends.append(parsed)
            assert receiving.is_between_requests() == (parsed in (len(GET), len(GET + PUT)))
            start = end
    assert ends == [*([at] if 0 < at < len(GET) else []), len(GET), len(GET + PUT)]


@each_row("step", [1, 2, 3, 7, 50])
def test_a_body_in_segments(step: int) -> None:
    """A body ends after its length or its last chunk, and no byte of the next head is in its piece."""
    for head, body in ((PUT, b"12345"), (CODED, chunked(b"\r\n\r\n", b"x" * 20))):
        receiving = Receiver()
        assert b"".join(pieces(receiving, head)) == head
        taken, data, at = 0, body + GET, 0
        while receiving.is_in_body:
            segment = data[at : at + step]
            end = receiving.end_of_piece(segment, 0)
            taken += len(receiving.parsable(segment[:end]))
            at += step
        assert taken == len(body)
        assert receiving.meaning_of_end(is_body_paused=False) is ClientEnd.BEHIND_REQUEST


def test_a_head_has_a_bound() -> None:
    """Of a head no more than MAX_HEAD_BYTES are parsed, in one segment or in several (I19)."""
    receiving, parsed = Receiver(), 0
    for _ in range(10):
        segment = b"x" * (MAX_HEAD_BYTES // 4)
        piece = receiving.parsable(segment)
        receiving.count_parsed(piece, is_of_head=True)
        parsed += len(piece)
    assert parsed == MAX_HEAD_BYTES
    receiving.count_parsed(b"", is_of_head=False)
    assert len(receiving.parsable(b"x" * 10)) == 10
    assert len(Receiver().parsable(b"x" * (MAX_HEAD_BYTES + 1))) == MAX_HEAD_BYTES


def test_what_an_end_means() -> None:
    """A client that ends behind its requests is done. Within a body the newest request will never be whole."""
    receiving = Receiver()
    assert receiving.meaning_of_end(is_body_paused=False) is ClientEnd.BEHIND_REQUEST
    receiving.begin_body(5)
    assert receiving.meaning_of_end(is_body_paused=False) is ClientEnd.WITHIN_BODY
    receiving.advance(ReceiveEvent.CLOSE)
    assert receiving.meaning_of_end(is_body_paused=False) is ClientEnd.WITHIN_BODY
    receiving.parsable(b"12345")
    assert receiving.meaning_of_end(is_body_paused=False) is ClientEnd.BEHIND_REQUEST
    assert receiving.meaning_of_end(is_body_paused=True) is ClientEnd.HELD
    receiving = Receiver()
    receiving.hold(b"GET")
    assert receiving.meaning_of_end(is_body_paused=False) is ClientEnd.HELD


def test_bytes_that_wait() -> None:
    """Bytes that the parser does not take are the first of the next segment, unless no byte is parsed any more."""
    receiving = Receiver()
    receiving.hold(b"abc")
    assert (receiving.is_between_requests(), receiving.has_begun_next) == (False, True)
    assert receiving.held_and(b"def") == b"abcdef"
    assert receiving.held_and(b"") == b""
    receiving.hold(b"abc")
    receiving.stop()
    assert (receiving.is_dropping, receiving.is_stopped, receiving.held_and(b"")) == (True, True, b"")
    receiving.hold(b"abc")
    assert receiving.held_and(b"") == b""


def test_whether_the_response_is_the_last() -> None:
    """After CLOSE the newest request is the last, once its body has ended. After STOP, those that came still count."""
    receiving = Receiver()
    receiving.begin_body(5)
    assert (receiving.is_over, receiving.is_at_last_response) == (False, False)
    receiving.advance(ReceiveEvent.CLOSE)
    assert (receiving.is_over, receiving.is_at_last_response, receiving.is_in_body) == (False, True, True)
    receiving.parsable(b"12345")
    assert (receiving.is_over, receiving.is_at_last_response) == (True, True)
    receiving = Receiver()
    receiving.stop()
    assert (receiving.is_over, receiving.is_at_last_response, receiving.is_stopped) == (True, False, True)
    receiving.advance(ReceiveEvent.CLOSE)
    assert (receiving.is_at_last_response, receiving.is_stopped) == (True, False)


@each_row(
    ("data", "is_whole", "verdict"),
    [
        (chunked(b"abc"), True, BodyVerdict.AGREED),
        (chunked(b"abc", end=False), False, BodyVerdict.AGREED),
        (chunked(b"abc", end=False), True, BodyVerdict.BROKEN),  # the parser sees an end where there is none
        (b"3\nabc", False, BodyVerdict.BROKEN),
        (b"0\r\nA: b\r\n\r\n", True, BodyVerdict.TRAILERS),
        (b"0\r\nA: b\r\n", False, BodyVerdict.AGREED),
    ],
)
def test_the_parser_must_agree(data: bytes, is_whole: bool, verdict: BodyVerdict) -> None:
    """A chunked body ends only where the framing and the parser both see its end (I24)."""
    receiving = Receiver()
    receiving.begin_body(None)
    receiving.parsable(data[: receiving.end_of_piece(data, 0)])
    assert receiving.verdict(is_whole=is_whole) is verdict


def test_a_body_that_the_parser_holds_open() -> None:
    """A body that has ended here, and not for the parser, is a disagreement; one with bytes to come is none (I24)."""
    receiving = Receiver()
    receiving.begin_body(5)
    assert not receiving.is_body_due(is_whole=False)
    receiving.parsable(b"12345")
    assert receiving.is_body_due(is_whole=False)
    assert not receiving.is_body_due(is_whole=True)
    assert receiving.verdict(is_whole=False) is BodyVerdict.AGREED  # it has no chunks
