"""Messages of any length are read without holding the event loop (I22)."""

import threading

import pytest
from messages import message, record

from bucketfront.s3_events import message_reader
from bucketfront.s3_events.event import EventMessage, UnreadableMessage
from bucketfront.s3_events.event_parser import parse
from bucketfront.s3_events.message_reader import MAX_INLINE, read_message


async def test_a_long_message_is_parsed_in_a_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """A message of one event is parsed at once. One of many is parsed beside the event loop, with the same result."""
    threads: list[int] = []

    def noted(body: str | bytes) -> EventMessage:
        threads.append(threading.get_ident())
        return parse(body)

    monkeypatch.setattr(message_reader, "parse", noted)
    short, long = message(record("a")), message(*(record(f"o{number}") for number in range(200)))
    assert len(short) < MAX_INLINE < len(long)
    for body in (short, long, long.encode()):
        assert await read_message(body) == parse(body)
    own = threading.get_ident()
    assert [each == own for each in threads] == [True, False, False]


async def test_a_long_message_that_is_no_event() -> None:
    """What a thread finds unreadable is unreadable."""
    with pytest.raises(UnreadableMessage):
        await read_message("x" * (MAX_INLINE + 1))
