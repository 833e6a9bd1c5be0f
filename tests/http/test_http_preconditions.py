"""Conditional requests: RFC 9110 section 13."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rows import each_row

from bucketfront.http import dates, preconditions
from bucketfront.http.metadata import Metadata
from bucketfront.http.preconditions import STRONG_AFTER_S, Verdict

MODIFIED = 1_700_000_000.0
NOW = MODIFIED + 3600
AT, BEFORE, AFTER = (dates.format(MODIFIED + shift) for shift in (0, -1, 1))
OBJECT = Metadata(etag='"v1"', size=11, last_modified=AT)
WEAK = Metadata(etag='W/"v1"', size=11, last_modified=AT)
UNDATED = Metadata(etag='"v1"', size=11)
UNTAGGED = Metadata(etag="", size=11, last_modified=AT)

PROCEED, NOT_MODIFIED, FAILED = Verdict.PROCEED, Verdict.NOT_MODIFIED, Verdict.FAILED


@each_row(
    ("fields", "metadata", "reading", "writing"),
    [
        pytest.param({}, OBJECT, PROCEED, PROCEED, id="13: unconditional"),
        pytest.param({"if_match": '"v1"'}, OBJECT, PROCEED, PROCEED, id="13.1.1: match"),
        pytest.param({"if_match": '"v0", "v1"'}, OBJECT, PROCEED, PROCEED, id="13.1.1: one of several"),
        pytest.param({"if_match": '"v0"'}, OBJECT, FAILED, FAILED, id="13.1.1: none"),
        pytest.param({"if_match": "*"}, OBJECT, PROCEED, PROCEED, id="13.1.1: any"),
        pytest.param({"if_match": "*"}, UNTAGGED, PROCEED, PROCEED, id="13.1.1: any, without a tag"),
        pytest.param({"if_match": '"v1"'}, UNTAGGED, FAILED, FAILED, id="13.1.1: no tag to match"),
        pytest.param({"if_match": 'W/"v1"'}, OBJECT, FAILED, FAILED, id="13.1.1: strong comparison"),
        pytest.param({"if_match": 'W/"v1"'}, WEAK, FAILED, FAILED, id="13.1.1: weak on both sides"),
        pytest.param({"if_match": "v1"}, OBJECT, FAILED, FAILED, id="13.1.1: malformed matches nothing"),
        pytest.param({"if_match": ""}, OBJECT, FAILED, FAILED, id="13.1.1: the empty list matches nothing"),
        pytest.param({"if_unmodified_since": AT}, OBJECT, PROCEED, PROCEED, id="13.1.4: equal"),
        pytest.param({"if_unmodified_since": AFTER}, OBJECT, PROCEED, PROCEED, id="13.1.4: later"),
        pytest.param({"if_unmodified_since": BEFORE}, OBJECT, FAILED, FAILED, id="13.1.4: changed since"),
        pytest.param({"if_unmodified_since": "0"}, OBJECT, PROCEED, PROCEED, id="13.1.4: no date"),
        pytest.param({"if_unmodified_since": BEFORE}, UNDATED, PROCEED, PROCEED, id="13.1.4: undated object"),
        pytest.param(
            {"if_match": '"v1"', "if_unmodified_since": BEFORE},
            OBJECT,
            PROCEED,
            PROCEED,
            id="13.2.2 step 2: If-Match comes first and alone",
        ),
        pytest.param({"if_none_match": '"v1"'}, OBJECT, NOT_MODIFIED, FAILED, id="13.1.2: match"),
        pytest.param({"if_none_match": '"v0","v1"'}, OBJECT, NOT_MODIFIED, FAILED, id="13.1.2: one of several"),
        pytest.param({"if_none_match": 'W/"v1"'}, OBJECT, NOT_MODIFIED, FAILED, id="13.1.2: weak comparison"),
        pytest.param({"if_none_match": '"v1"'}, WEAK, NOT_MODIFIED, FAILED, id="13.1.2: weak object"),
        pytest.param({"if_none_match": "*"}, OBJECT, NOT_MODIFIED, FAILED, id="13.1.2: any"),
        pytest.param({"if_none_match": '"v0"'}, OBJECT, PROCEED, PROCEED, id="13.1.2: none"),
        pytest.param({"if_none_match": '"v1"'}, UNTAGGED, PROCEED, PROCEED, id="13.1.2: no tag to match"),
        pytest.param({"if_none_match": "v1"}, OBJECT, PROCEED, PROCEED, id="13.1.2: malformed is ignored"),
        pytest.param({"if_none_match": '"v1", v'}, OBJECT, PROCEED, PROCEED, id="13.1.2: malformed as a whole"),
        pytest.param({"if_none_match": ""}, OBJECT, PROCEED, PROCEED, id="13.1.2: the empty list"),
        pytest.param({"if_modified_since": AT}, OBJECT, NOT_MODIFIED, PROCEED, id="13.1.3: equal"),
        pytest.param({"if_modified_since": AFTER}, OBJECT, NOT_MODIFIED, PROCEED, id="13.1.3: later"),
        pytest.param({"if_modified_since": BEFORE}, OBJECT, PROCEED, PROCEED, id="13.1.3: changed since"),
        pytest.param({"if_modified_since": "yesterday"}, OBJECT, PROCEED, PROCEED, id="13.1.3: no date"),
        pytest.param({"if_modified_since": AT}, UNDATED, PROCEED, PROCEED, id="13.1.3: undated object"),
        pytest.param(
            {"if_none_match": '"v0"', "if_modified_since": AT},
            OBJECT,
            PROCEED,
            PROCEED,
            id="13.1.3: ignored beside If-None-Match",
        ),
        pytest.param(
            {"if_none_match": "v0", "if_modified_since": AT},
            OBJECT,
            PROCEED,
            PROCEED,
            id="13.1.3: ignored beside a malformed If-None-Match too",
        ),
        pytest.param(
            {"if_match": '"v0"', "if_none_match": '"v1"'},
            OBJECT,
            FAILED,
            FAILED,
            id="13.2.2 step 1 before step 3",
        ),
        pytest.param(
            {"if_unmodified_since": BEFORE, "if_none_match": '"v1"'},
            OBJECT,
            FAILED,
            FAILED,
            id="13.2.2 step 2 before step 3",
        ),
        pytest.param(
            {"if_match": '"v1"', "if_none_match": '"v1"'},
            OBJECT,
            NOT_MODIFIED,
            FAILED,
            id="13.2.2 step 1 goes on to step 3",
        ),
        pytest.param(
            {"if_unmodified_since": AT, "if_modified_since": AT},
            OBJECT,
            NOT_MODIFIED,
            PROCEED,
            id="13.2.2 step 2 goes on to step 4",
        ),
    ],
)
def test_verdict(fields: dict[str, str], metadata: Metadata, reading: Verdict, writing: Verdict) -> None:
    """The order and meaning of the preconditions are those of RFC 9110 section 13.2.2, per method."""
    for method in ("GET", "HEAD"):
        assert preconditions.evaluate(metadata, NOW, method=method, **fields) is reading
    for method in ("PUT", "DELETE"):
        assert preconditions.evaluate(metadata, NOW, method=method, **fields) is writing


@each_row(
    ("header", "metadata", "now", "holds"),
    [
        pytest.param('"v1"', OBJECT, NOW, True, id="the tag"),
        pytest.param('"v1"', OBJECT, MODIFIED, True, id="the tag of a young object"),
        pytest.param('"v0"', OBJECT, NOW, False, id="another tag"),
        pytest.param('W/"v1"', OBJECT, NOW, False, id="a weak tag"),
        pytest.param('"v1"', WEAK, NOW, False, id="a weak object"),
        pytest.param('W/"v1"', WEAK, NOW, False, id="weak on both sides"),
        pytest.param('"v1"', UNTAGGED, NOW, False, id="an object without a tag"),
        pytest.param(AT, OBJECT, NOW, True, id="the date"),
        pytest.param(AT, OBJECT, MODIFIED + STRONG_AFTER_S, True, id="8.8.2.2: the date, just strong"),
        pytest.param(AT, OBJECT, MODIFIED + STRONG_AFTER_S - 1, False, id="8.8.2.2: the date, still weak"),
        pytest.param(AFTER, OBJECT, NOW, False, id="a later date proves nothing"),
        pytest.param(BEFORE, OBJECT, NOW, False, id="an earlier date"),
        pytest.param(AT, UNDATED, NOW, False, id="an undated object"),
        pytest.param("*", OBJECT, NOW, False, id="no wildcard here"),
        pytest.param('"v1", "v2"', OBJECT, NOW, False, id="no list here"),
        pytest.param("v1", OBJECT, NOW, False, id="neither tag nor date"),
        pytest.param("v1", UNDATED, NOW, False, id="neither tag nor date, undated"),
        pytest.param("", OBJECT, NOW, False, id="empty"),
    ],
)
def test_if_range(header: str, metadata: Metadata, now: float, *, holds: bool) -> None:
    """I1: RFC 9110 section 13.1.5, only proof that the client holds this version lets it have a part."""
    assert preconditions.if_range_holds(header, metadata, now) is holds


FIELD = st.none() | st.text() | st.sampled_from([AT, BEFORE, AFTER, "*", '"v1"', '"v0"', 'W/"v1"', '"v0", "v1"'])


@given(
    st.sampled_from([OBJECT, WEAK, UNDATED, UNTAGGED]),
    st.sampled_from(["GET", "HEAD", "PUT", "POST", "DELETE"]),
    st.fixed_dictionaries(
        dict.fromkeys(("if_match", "if_none_match", "if_modified_since", "if_unmodified_since"), FIELD)
    ),
)
def test_is_total(metadata: Metadata, method: str, fields: dict[str, str | None]) -> None:
    """Any field values yield a verdict, and only a read can get a 304."""
    verdict = preconditions.evaluate(metadata, NOW, method=method, **fields)
    assert verdict is not NOT_MODIFIED or method in {"GET", "HEAD"}
    if all(value is None for value in fields.values()):
        assert verdict is PROCEED
