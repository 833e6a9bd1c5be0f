"""The states of a connection's receiving side, and the table in its module's docstring."""

import pytest

from bucketfront.server.http1 import connection
from bucketfront.server.http1.connection import ReceiveEvent, ReceiveState


def documented() -> dict[str, list[str]]:
    """Return the table's rows by state, in the order of its columns."""
    lines = [line.split() for line in (connection.__doc__ or "").splitlines()]
    (top,) = [at for at, words in enumerate(lines) if words == [event.name for event in ReceiveEvent]]
    return {words[0]: words[1:] for words in lines[top + 1 : top + 1 + len(ReceiveState)]}


@pytest.mark.parametrize("state", ReceiveState, ids=lambda state: state.name)
def test_the_table_is_the_documented_one(state: ReceiveState) -> None:
    targets = connection.TRANSITIONS[state]
    assert [targets[event].name for event in ReceiveEvent] == documented()[state.name]


@pytest.mark.parametrize("event", ReceiveEvent, ids=lambda event: event.name)
def test_what_ended_stays_so(event: ReceiveEvent) -> None:
    """After dropped bytes or the last request, no event makes a connection parse again."""
    for states in (connection._DROPPING, connection._LAST):
        assert {connection.TRANSITIONS[state][event] for state in states} <= set(states)
