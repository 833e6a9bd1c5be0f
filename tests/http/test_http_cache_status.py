"""Cache-Status: RFC 9211, as a structured field of RFC 8941."""

import re

from hypothesis import given
from hypothesis import strategies as st
from rows import each_row

from bucketfront.http.cache_status import CacheStatus, Detail, Forward


@each_row(
    ("status", "text"),
    [
        (CacheStatus(), "bucketfront; hit"),
        (CacheStatus(ttl=240), "bucketfront; hit; ttl=240"),
        (CacheStatus(ttl=240.9), "bucketfront; hit; ttl=240"),
        (CacheStatus(ttl=-10), "bucketfront; hit; ttl=-10"),
        (CacheStatus(ttl=-0.5), "bucketfront; hit; ttl=-1"),
        (CacheStatus(ttl=float("inf")), "bucketfront; hit; ttl=999999999999999"),
        (CacheStatus(Forward.MISS, stored=True), "bucketfront; fwd=miss; stored"),
        (CacheStatus(Forward.MISS, collapsed=True), "bucketfront; fwd=miss; collapsed"),
        (CacheStatus(Forward.STALE, fwd_status=304), "bucketfront; fwd=stale; fwd-status=304"),
        (CacheStatus(Forward.BYPASS), "bucketfront; fwd=bypass"),
        (CacheStatus(Forward.METHOD), "bucketfront; fwd=method"),
        (CacheStatus(Forward.PARTIAL), "bucketfront; fwd=partial"),
        (
            CacheStatus(Forward.STALE, fwd_status=200, ttl=5, stored=True, collapsed=True, detail=Detail.RULE),
            'bucketfront; fwd=stale; fwd-status=200; ttl=5; stored; collapsed; detail="rule"',
        ),
    ],
)
def test_field_value(status: CacheStatus, text: str) -> None:
    """Each status is written with the tokens of RFC 9211 section 2."""
    assert str(status) == text


def test_hit_is_the_absence_of_a_forward() -> None:
    """RFC 9211 section 2.1: a request that the cache served was not forwarded."""
    assert CacheStatus().hit
    assert not CacheStatus(Forward.STALE).hit


_PARAMETER = r'; (hit|stored|collapsed|fwd=[a-z-]+|(fwd-status|ttl)=-?[0-9]{1,15}|detail="[a-z-]+")'


@given(
    st.builds(
        CacheStatus,
        st.none() | st.sampled_from(Forward),
        fwd_status=st.none() | st.integers(100, 599),
        ttl=st.none() | st.floats(allow_nan=False) | st.integers(),
        stored=st.booleans(),
        collapsed=st.booleans(),
        detail=st.none() | st.sampled_from(Detail),
    )
)
def test_is_always_a_structured_field(status: CacheStatus) -> None:
    """I28: the value is printable ASCII in the grammar of RFC 8941."""
    assert re.fullmatch(rf"bucketfront({_PARAMETER})+", str(status), re.ASCII)
