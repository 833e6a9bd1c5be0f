"""What `bucketfront explain` prints for the explanations of the admin port."""

from typing import Any

import click
from hypothesis import given
from hypothesis import strategies as st

from bucketfront.cli.explain import BAR_CELLS, bar, lines_of

ENTRY = {
    "bucket": "b", "key": "a.mp4", "version": None, "paths": ["/a.mp4"], "etag": '"1"', "type": "video/mp4",
    "size": 1_000_000, "stored": 500_000, "stored_at": 0.0, "validated_at": 60.0, "accessed_at": 120.0, "ttl": 30.0,
}  # fmt: skip
LIFETIME = {
    "ttl": 300.0, "basis": "configured", "header": None, "rule": None, "builtin": False,
    "stale_while_revalidate": 60.0, "stale_if_error": 86_400.0, "outage": 86_400.0, "must_revalidate": False,
    "negative_ttl": 10.0,
}  # fmt: skip
CANDIDATE = {
    "bucket": "b", "key": "a.mp4", "version": None, "coding": None, "location": None, "fallback": False,
    "optional": False, "decides": True, "next": "hit", "why": "it is fresh for another 30 s", "state": "published",
    "age": 60.0, "entry": ENTRY, "lifetime": LIFETIME, "pins": 0, "uses": 1, "fill": None, "looked_up": False,
    "blocks": {"block_size": 4, "count": 4, "runs": [[0, 2]], "present": 8, "percent": 50.0, "unverified": 0},
    "absent_for": None, "refused": False, "removal": None,
}  # fmt: skip
LAST = {"at": 0.0, "method": "GET", "status": 502, "cache": "fwd=miss", "fault": "OriginTimeout"}
MOUNT = {"path": "/", "bucket": "b", "prefix": "", "read": ["public"], "public": True}


def text_of(**changed: Any) -> str:
    """Return the text for one candidate with these facts changed, without colours."""
    found = {
        "path": "/a.mp4", "last": LAST, "mounts": [MOUNT], "candidates": [{**CANDIDATE, **changed}],
        "next": {"decision": "hit", "why": "it is fresh for another 30 s"},
    }  # fmt: skip
    return click.unstyle("\n".join(lines_of(found)))


def test_a_cached_object() -> None:
    """Object, times, lifetime and blocks are shown, and which candidate decides."""
    text = text_of()
    assert "last       GET 502 fwd=miss, OriginTimeout, 1970-01-01 00:00:00Z" in text
    assert "next GET   hit: it is fresh for another 30 s" in text
    assert '1,000,000 bytes, video/mp4, ETag "1"' in text
    assert "1970-01-01 00:01:00Z, age 1 min" in text
    assert "5 min, by freshness.default_ttl; a 404 is remembered for 10 s" in text
    assert "[##..] 50.0 % of 4 blocks" in text
    assert "* b/'a.mp4'" in text


def test_what_decides_the_lifetime() -> None:
    """A rule, a built-in rule and the object's own header are told apart."""
    assert "by the rule '*.x'" in text_of(lifetime={**LIFETIME, "rule": "*.x"})
    assert "by the built-in rule '*.x'" in text_of(lifetime={**LIFETIME, "rule": "*.x", "builtin": True})
    own = {**LIFETIME, "basis": "max-age", "header": "Cache-Control"}
    assert "by max-age of its Cache-Control" in text_of(lifetime=own)
    assert "never served without a validation" in text_of(lifetime={**LIFETIME, "must_revalidate": True})


def test_a_key_that_is_not_cached() -> None:
    """Without an entry, the last removal is shown, and no object."""
    removal = {"reason": "space", "at": 0.0, "ago": 1.0, "age": 1.0, "idle": 1.0, "text": "evicted for space 1 s ago"}
    text = text_of(entry=None, blocks=None, age=None, uses=None, removal=removal)
    assert "before     evicted for space 1 s ago" in text
    assert "ETag" not in text


def test_control_characters_in_a_key_are_escaped() -> None:
    """A key with an escape sequence does not reach the terminal as one."""
    assert "\x1b" not in text_of(key="a\x1b[31m")


@given(
    runs=st.lists(st.tuples(st.integers(0, 200), st.integers(1, 50)), max_size=5),
    count=st.integers(1, 250),
)
def test_the_bar_has_no_full_cell_with_a_gap(runs: list[tuple[int, int]], count: int) -> None:
    """The bar is full only if all blocks are present, and empty only if none is."""
    present = {block for first, length in runs for block in range(first, min(count, first + length))}
    merged = [[block, block + 1] for block in sorted(present)]
    text = bar(merged, count)[1:-1]  # type: ignore[arg-type]
    assert len(text) == min(count, BAR_CELLS)
    assert (set(text) == {"#"}) == (len(present) == count)
    assert (set(text) == {"."}) == (not present)
