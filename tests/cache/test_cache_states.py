"""The states of an entry, a lookup and a part fetch, and the tables in the docstrings of their modules."""

import pytest
from rows import each_row

from bucketfront.cache.entries import entry
from bucketfront.cache.entries.entry import Entry, EntryState
from bucketfront.cache.fetch import part_fetch, single_flight
from bucketfront.cache.fetch.part_fetch import PartFetch, PartState
from bucketfront.cache.fetch.single_flight import Lookup, LookupState
from bucketfront.http.freshness import Freshness
from bucketfront.http.metadata import Metadata
from bucketfront.keys import ObjectKey


def rows(doc: str | None, states: list[str]) -> dict[str, list[str]]:
    """Return the rows of the table in `doc`, by the state at their start."""
    lines = [line.replace(",", " ").split() for line in (doc or "").splitlines() if line.startswith("    ")]
    return {words[0]: words[1:] for words in lines if words[0] in states}


def test_the_table_of_lookups_is_the_documented_one() -> None:
    """The docstring of `single_flight` has the transitions of its code."""
    found = {
        state.name: [targets[event].name for event in single_flight._Event]
        for state, targets in single_flight.TRANSITIONS.items()
    }
    assert rows(single_flight.__doc__, [state.name for state in LookupState]) == found


def test_the_table_of_parts_is_the_documented_one() -> None:
    """The docstring of `part_fetch` has the transitions of its code, with a dash for none."""
    found = {
        state.name: [target.name for target in targets] or ["-"] for state, targets in part_fetch.TRANSITIONS.items()
    }
    assert rows(part_fetch.__doc__, [state.name for state in PartState]) == found


def test_the_table_of_entries_is_the_documented_one() -> None:
    """The docstring of `entry` has the transitions of its code, with a dash for none."""
    found = {state.name: [target.name for target in targets] or ["-"] for state, targets in entry.TRANSITIONS.items()}
    assert rows(entry.__doc__, [state.name for state in EntryState]) == found


@each_row("state", EntryState, ids=lambda state: state.name)
def test_no_removed_entry_is_published(state: EntryState) -> None:
    """An entry that lookups do not find any more never comes back (I6)."""
    subject = Entry(1, ObjectKey("b", "k"), Metadata('"1"', 1), Freshness(1.0), 0.0, 0)
    if state in entry.TRANSITIONS[EntryState.REMOVED]:
        subject.become(EntryState.REMOVED)
    if state is EntryState.RELEASED:
        subject.become(EntryState.PUBLISHED)
    if state is not EntryState.NEW:
        subject.become(state)
    assert subject.is_removed == (state not in {EntryState.NEW, EntryState.PUBLISHED})
    if state is not EntryState.NEW:
        with pytest.raises(AssertionError, match="PUBLISHED"):
            subject.become(EntryState.PUBLISHED)


@each_row("state", LookupState, ids=lambda state: state.name)
def test_only_a_shared_lookup_publishes(state: LookupState) -> None:
    """No other state publishes what a lookup found, be it a version or a 404 (I6)."""
    for found in (None, Metadata('"1"', 1)):
        assert Lookup(state).may_publish(found) == (state is LookupState.SHARED)


@each_row("state", PartState, ids=lambda state: state.name)
def test_every_part_can_end_once(state: PartState) -> None:
    """A part fetch may be cancelled in any state, and does not end twice."""
    fetch = PartFetch(0, 1, 0, 0, state=state)
    if state is not PartState.ENDED:
        fetch.become(PartState.ENDED)
    with pytest.raises(AssertionError, match="ENDED"):
        fetch.become(PartState.ENDED)
