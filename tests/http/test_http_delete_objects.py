"""DeleteObjects in XML: documents of S3's clients, and malformed ones."""

from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rows import each_row

from bucketfront.http import delete_objects
from bucketfront.http.delete_objects import (
    Deleted,
    DeleteFailure,
    DeleteOutcome,
    DeleteRequest,
    MalformedXml,
    NamedObject,
)

PIECE = delete_objects.MAX_PIECE_BYTES
Outcomes = list[tuple[NamedObject, DeleteOutcome]]
XMLNS = f'xmlns="{delete_objects.NAMESPACE}"'


def parsed(body: bytes, piece: int = PIECE) -> DeleteRequest:
    parser = delete_objects.DeleteRequestParser()
    for at in range(0, len(body), piece):
        parser.feed(body[at : at + piece])
    return parser.close()


@each_row(
    ("body", "expected"),
    [
        ("<Delete><Object><Key>a</Key></Object></Delete>", DeleteRequest((NamedObject("a"),), quiet=False)),
        (
            f"""<?xml version="1.0" encoding="UTF-8"?>
            <Delete {XMLNS}> <Quiet>true</Quiet>
             <Object> <Key> a&amp;b&#13;ü </Key> </Object> <Object><Key>c</Key></Object>
            </Delete>
            """.strip(),
            DeleteRequest((NamedObject(" a&b\rü "), NamedObject("c")), quiet=True),
        ),
        (
            f"""<s:Delete xmlns:s="{delete_objects.NAMESPACE}">
            <s:Object><s:Key><![CDATA[<a>]]></s:Key></s:Object><s:Quiet>false</s:Quiet></s:Delete>""",
            DeleteRequest((NamedObject("<a>"),), quiet=False),
        ),
        (
            "<Delete><Object><Key>a</Key><VersionId>1</VersionId></Object><Object><ETag>x</ETag><Key>b</Key></Object></Delete>",
            DeleteRequest((NamedObject("a", "1"), NamedObject("b", is_conditional=True)), quiet=False),
        ),
    ],
)
def test_requests(body: str, expected: DeleteRequest) -> None:
    """With S3's namespace and without, prefixed, with CDATA and references, in any order."""
    assert parsed(body.encode()) == expected


ONE = "<Object><Key>a</Key></Object>"


@each_row(
    "body",
    [
        "",
        "no XML",
        "<Delete>",
        "<Delete/>",
        "<Delete></Delete>",
        f"<Remove>{ONE}</Remove>",
        f"<Delete>{ONE}<Other/></Delete>",
        f'<Delete xmlns="urn:x">{ONE}</Delete>',
        "<Delete><Object/></Delete>",
        "<Delete><Object><Key></Key></Object></Delete>",
        "<Delete><Object><Key>a</Key><Key>b</Key></Object></Delete>",
        "<Delete><Object><Key>a<b/></Key></Object></Delete>",
        "<Delete><Object><Key>&#0;</Key></Object></Delete>",
        "<Delete><Object><Key>&other;</Key></Object></Delete>",
        f"<Delete>{ONE}<Quiet>yes</Quiet></Delete>",
        f"<Delete>{ONE}<Quiet>true</Quiet><Quiet>false</Quiet></Delete>",
        f"<!DOCTYPE Delete><Delete>{ONE}</Delete>",
        '<!DOCTYPE d [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]><Delete><Object><Key>&b;</Key></Object></Delete>',
        '<!DOCTYPE d SYSTEM "file:///etc/passwd"><Delete/>',
        f'<?xml version="1.0" encoding="nonsense"?><Delete>{ONE}</Delete>',
        f"<Delete>{ONE * 1001}</Delete>",
        f"<Delete>{ONE}</Delete>" + " " * delete_objects.MAX_BODY_BYTES,
        "<a>" * 100_000,
        "<Delete " + " ".join(f'a{number}=""' for number in range(150_000)) + f">{ONE}</Delete>",
        "<Delete " + " ".join(f'xmlns:n{number}="u"' for number in range(100_000)) + f">{ONE}</Delete>",
        f"<Delete><!--{' ' * 200_000}-->{ONE}</Delete>",
    ],
)
def test_malformed(body: str) -> None:
    """Anything else is one error: no document type, hence no entity, no foreign element, no unbounded list."""
    with pytest.raises(MalformedXml):
        parsed(body.encode())


def test_a_large_tag_is_refused_while_it_comes() -> None:
    """A parser holds the loop for as long as a tag has attributes: it gets no more than 64 KiB of it (I22)."""
    parser = delete_objects.DeleteRequestParser()
    parser.feed(b"<Delete ")
    parser.feed(b'a="" ' * 13_000)
    with pytest.raises(MalformedXml, match="tag"):
        parser.feed(b'a="" ' * 200)


@each_row("piece", [1, 7, 1000])
def test_pieces(piece: int) -> None:
    """Where the document is cut changes nothing."""
    body = f"<Delete {XMLNS}><Object><Key>ü&amp;\r\n{'k' * 5000}</Key></Object>{ONE * 99}</Delete>".encode()
    assert parsed(body, piece) == parsed(body)


def test_a_thousand() -> None:
    """S3's own limit is inclusive."""
    assert len(parsed(f"<Delete>{ONE * 1000}</Delete>".encode()).objects) == 1000


@given(st.binary(max_size=200))
def test_any_bytes(body: bytes) -> None:
    """Nonsense raises nothing else."""
    for document in (body, b"<Delete><Object><Key>" + body + b"</Key></Object></Delete>"):
        try:
            parsed(document)
        except MalformedXml:
            continue


KEYS = st.text(st.characters(codec="utf-8", exclude_categories=["Cc"]) | st.sampled_from("\t\n\r<&>]'\""), min_size=1)


@given(st.lists(KEYS, max_size=5), st.booleans())
def test_results(keys: list[str], quiet: bool) -> None:
    """The response names the keys unchanged; with Quiet, only the failures."""
    keys = [key.replace("\ufffe", "").replace("\uffff", "") or "x" for key in keys]
    refusal = DeleteFailure("AccessDenied", "No & no.")
    outcomes: Outcomes = [*((NamedObject(key), Deleted()) for key in keys), (NamedObject("bad"), refusal)]
    document = ET.fromstring(delete_objects.result(outcomes, quiet=quiet))
    name = f"{{{delete_objects.NAMESPACE}}}"
    assert document.tag == f"{name}DeleteResult"
    assert [one.findtext(f"{name}Key") for one in document.iter(f"{name}Deleted")] == ([] if quiet else keys)
    (error,) = document.iter(f"{name}Error")
    assert [child.text for child in error] == ["bad", "AccessDenied", "No & no."]


def test_results_of_versions() -> None:
    """The response has the version that the client named, and the delete markers, in S3's elements and their order."""
    outcomes: Outcomes = [
        (NamedObject("a"), Deleted(is_marker=True, marker_version="m&")),
        (NamedObject("a", "1"), Deleted()),
        (NamedObject("a", "2"), Deleted(is_marker=True, marker_version="2")),
        (NamedObject("a", "<3>"), DeleteFailure("NoSuchVersion", "None.")),
    ]
    document = ET.fromstring(delete_objects.result(outcomes, quiet=False))
    found = [[(item.tag.partition("}")[2], item.text) for item in one] for one in document]
    assert found == [
        [("Key", "a"), ("DeleteMarker", "true"), ("DeleteMarkerVersionId", "m&")],
        [("Key", "a"), ("VersionId", "1")],
        [("Key", "a"), ("VersionId", "2"), ("DeleteMarker", "true"), ("DeleteMarkerVersionId", "2")],
        [("Key", "a"), ("VersionId", "<3>"), ("Code", "NoSuchVersion"), ("Message", "None.")],
    ]
