"""Ids that clients choose are taken if they are safe and short."""

import re

from hypothesis import given
from hypothesis import strategies as st
from rows import each_row

from bucketfront.http import request_ids


@each_row(
    "value", ["a", "018f4e7c-6c1b-7c3e-9a3e-2f8f0a6d2b11", "01JDRG1Z0VQ5Z6", "Root=1-67891233-abc", "a/b+c=", "x" * 128]
)
def test_taken(value: str) -> None:
    """UUIDs, ULIDs and the ids of load balancers are taken as they are."""
    assert request_ids.accepted(value) == value


@each_row("value", [None, "", " a", "a\n", "a b", 'a"', "a,b", "<a>", "ä", "a\0", "x" * 129])
def test_refused(value: str | None) -> None:
    """What would need an escape in a log, a header or a page is not taken (I28)."""
    assert request_ids.accepted(value) is None


@given(st.text())
def test_no_id_needs_an_escape(value: str) -> None:
    """Each id that is taken has at most 128 characters, none of which means anything to a shell, HTML or JSON."""
    if request_ids.accepted(value) is not None:
        assert len(value) <= request_ids.MAX_CHARS
        assert re.fullmatch(r"[\w.~:/+=@-]+", value, re.ASCII)
