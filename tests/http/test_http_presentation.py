"""How a stored version is shown: RFC 9110 sections 8.3, 8.4 and 12.5.5, and I25."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rows import each_row

from bucketfront.http.grammar import Headers
from bucketfront.http.metadata import Metadata
from bucketfront.http.presentation import Presentation, present

TEXT = "text/javascript; charset=utf-8"


def version(*headers: tuple[str, str]) -> Metadata:
    return Metadata(etag='"v1"', size=11, last_modified="Thu, 01 Dec 1994 16:00:00 GMT", headers=headers, age=3)


def typed(content_type: str) -> tuple[str, str]:
    return "Content-Type", content_type


BR = ("Content-Encoding", "br")
VARY = ("Vary", "Accept-Encoding")
LANGUAGE = ("Content-Language", "de")
CODED = Presentation(guessed_type=TEXT, coding="br", varies=True)
GUESSED = Presentation(guessed_type=TEXT)


@each_row(
    ("stored", "presentation", "expected"),
    [
        # A guess replaces a generic type
        pytest.param((), GUESSED, (typed(TEXT),), id="no type"),
        pytest.param((typed("binary/octet-stream"),), GUESSED, (typed(TEXT),), id="S3's unknown"),
        pytest.param((typed("Binary/Octet-Stream; a=b"),), GUESSED, (typed(TEXT),), id="in any case"),
        pytest.param((typed("a/b"), LANGUAGE), GUESSED, (typed("a/b"), LANGUAGE), id="a type stays"),
        pytest.param(
            (typed("application/octet-stream"),), GUESSED, (typed("application/octet-stream"),), id="on purpose"
        ),
        pytest.param((typed("application/gzip"),), GUESSED, (typed("application/gzip"),), id="an archive stays one"),
        # 8.4: a precompressed sibling
        pytest.param((), CODED, (typed(TEXT), BR, VARY), id="8.3: a sibling without a type"),
        pytest.param((typed("text/x"),), CODED, (typed("text/x"), BR, VARY), id="8.3: a sibling with a type"),
        pytest.param((typed("application/octet-stream"),), CODED, (typed(TEXT), BR, VARY), id="8.3: not meant"),
        pytest.param((typed("application/x-brotli"),), CODED, (typed(TEXT), BR, VARY), id="8.3: of the compression"),
        pytest.param(
            (typed("Application/GZIP"), LANGUAGE), CODED, (typed(TEXT), LANGUAGE, BR, VARY), id="8.3: any case"
        ),
        pytest.param((typed("application/x-gzip"),), CODED, (typed(TEXT), BR, VARY), id="8.3: its old name"),
        pytest.param((typed("application/zstd"),), CODED, (typed(TEXT), BR, VARY), id="8.3: zstd"),
        pytest.param((typed("application/gzip"),), Presentation(coding="br"), (BR, VARY), id="8.3: no guess, no lie"),
        pytest.param(
            (typed("binary/octet-stream"),),
            Presentation(coding="br"),
            (typed("binary/octet-stream"), BR, VARY),
            id="no guess",
        ),
        pytest.param(
            (("content-encoding", "gzip"), typed(TEXT)), CODED, (BR, typed(TEXT), VARY), id="8.4: of the bytes"
        ),
        # 12.5.5: Vary
        pytest.param(
            (typed("a/b"),), Presentation(varies=True), (typed("a/b"), VARY), id="12.5.5: of the plain one too"
        ),
        pytest.param(
            (("vary", "Origin"),), Presentation(varies=True), (("Vary", "Origin, Accept-Encoding"),), id="merged"
        ),
        pytest.param((("Vary", "accept-ENCODING"),), CODED, (("Vary", "accept-ENCODING"), typed(TEXT), BR), id="named"),
        pytest.param((("Vary", "a, *"),), Presentation(varies=True), (("Vary", "a, *"),), id="12.5.5: all of it"),
        pytest.param(
            (("Vary", "a"), LANGUAGE, ("vary", "b")),
            Presentation(varies=True),
            (("Vary", "a, b, Accept-Encoding"), LANGUAGE),
            id="12.5.5: two lines are one list",
        ),
        pytest.param(
            (("Vary", "Origin"),),
            Presentation(varies=True, changes=(("vary", None),)),
            (VARY,),
            id="dropped, but not ours",
        ),
        pytest.param(
            (),
            Presentation(varies=True, changes=(("Vary", "Cookie"),)),
            (("Vary", "Cookie, Accept-Encoding"),),
            id="a rule's Vary with ours",
        ),
        pytest.param((("Vary", "Origin"),), Presentation(changes=(("Vary", None),)), (), id="dropped"),
        # A rule
        pytest.param(
            (("Cache-Control", "no-cache"), ("EXPIRES", "0"), LANGUAGE),
            Presentation(cache_control="max-age=1"),
            (("Cache-Control", "max-age=1"), LANGUAGE),
            id="RFC 9111 5.3: a rule's Cache-Control, no Expires beside it",
        ),
        pytest.param(
            (("Expires", "0"),), Presentation(cache_control="max-age=1"), (("Cache-Control", "max-age=1"),), id="added"
        ),
        pytest.param(
            (typed("a/b"), ("x-amz-meta-a", "1")),
            Presentation(guessed_type=TEXT, changes=(("CONTENT-TYPE", "c/d"), ("X-Amz-Meta-A", None), ("X-New", "n"))),
            (("CONTENT-TYPE", "c/d"), ("X-New", "n")),
            id="set, dropped, added",
        ),
        pytest.param(
            (("Link", "a"), LANGUAGE, ("link", "b")),
            Presentation(changes=(("Link", "c"),)),
            (("Link", "c"), LANGUAGE),
            id="in place of the first, and of all",
        ),
        pytest.param(
            (), Presentation(guessed_type=TEXT, changes=(typed("c/d"),)), (typed("c/d"),), id="rule over guess"
        ),
        # The query
        pytest.param(
            (typed("binary/octet-stream"),),
            Presentation(guessed_type=TEXT, changes=(typed("c/d"),), overrides=(typed("e/f"),)),
            (typed("e/f"),),
            id="GetObject: the query over the rule",
        ),
        pytest.param(
            (("Cache-Control", "a"), ("Expires", "0")),
            Presentation(cache_control="b", overrides=(("Cache-Control", "c"), ("Expires", "1"))),
            (("Cache-Control", "c"), ("Expires", "1")),
            id="GetObject: over a rule's Cache-Control",
        ),
    ],
)
def test_table(stored: Headers, presentation: Presentation, expected: Headers) -> None:
    """The guess, the coding, the rule and the query change headers in this order, and nothing else."""
    assert present(version(*stored), presentation) == replace(version(), headers=expected)


@each_row(
    "presentation",
    [
        Presentation(),
        GUESSED,
        Presentation(coding="br", varies=True),
        Presentation(changes=(("X-Absent", None), typed("a/b"))),
        Presentation(overrides=(typed("a/b"),)),
    ],
)
def test_no_change_is_the_same_object(presentation: Presentation) -> None:
    """Where all is already as it should be nothing is copied."""
    stored = version(typed("a/b"), BR, VARY)
    assert present(stored, presentation) is stored


NAMES = st.sampled_from(
    [
        "Content-Type",
        "content-type",
        "Content-Encoding",
        "Cache-Control",
        "Expires",
        "Vary",
        "VARY",
        "X-A",
        "x-a",
        "X-B",
        "Link",
    ]
)
VALUES = st.sampled_from(
    [
        "a/b",
        "binary/octet-stream",
        "application/octet-stream",
        "application/gzip",
        "br",
        "Accept-Encoding",
        "Origin",
        "*",
    ]
)
FIELDS = st.lists(st.tuples(NAMES, VALUES), max_size=5).map(tuple)
PRESENTATIONS = st.builds(
    Presentation,
    guessed_type=st.none() | st.just(TEXT),
    coding=st.none() | st.just("br"),
    varies=st.booleans(),
    cache_control=st.none() | st.just("max-age=1"),
    changes=st.lists(st.tuples(NAMES, st.none() | VALUES), max_size=3).map(tuple),
    overrides=st.lists(st.tuples(NAMES.filter(lambda name: name.lower() != "vary"), VALUES), max_size=3).map(tuple),
)


def values(metadata: Metadata, name: str) -> list[str]:
    return [value for header, value in metadata.headers if header.lower() == name.lower()]


@given(FIELDS, PRESENTATIONS)
def test_the_version_is_never_touched(fields: Headers, presentation: Presentation) -> None:
    """I25: the stored value stays as it was; what is shown has its ETag, size, date and age (I4)."""
    stored = version(*fields)
    shown = present(stored, presentation)
    assert stored == version(*fields)
    assert replace(shown, headers=()) == version()
    assert shown is stored or shown.headers != stored.headers


@given(FIELDS, PRESENTATIONS)
def test_what_comes_last_is_shown(fields: Headers, presentation: Presentation) -> None:
    """The query's values appear once each, a rule's if the query has none, and coded responses have `Vary`."""
    shown = present(version(*fields), presentation)
    overridden = {name.lower(): value for name, value in presentation.overrides}
    ruled = {name.lower(): value for name, value in presentation.changes if name.lower() not in {*overridden, "vary"}}
    for name, value in [*overridden.items(), *ruled.items()]:
        assert values(shown, name) == ([] if value is None else [value])
    if presentation.coding is not None and not {"content-encoding"} & {*overridden, *ruled}:
        assert values(shown, "Content-Encoding") == ["br"]
    if presentation.coding is not None or presentation.varies:
        named = {field.strip().lower() for value in values(shown, "Vary") for field in value.split(",")}
        assert named & {"accept-encoding", "*"}


@given(FIELDS, PRESENTATIONS)
def test_others_keep_their_order(fields: Headers, presentation: Presentation) -> None:
    """Headers that nothing changes are shown as they are stored, one after the other."""
    changed = {"content-type", "content-encoding", "cache-control", "expires", "vary"}
    changed |= {name.lower() for name, _ in presentation.changes + presentation.overrides}
    stored, shown = ([header for header in headers if header[0].lower() not in changed]
                     for headers in (fields, present(version(*fields), presentation).headers))  # fmt: skip
    assert shown == stored
