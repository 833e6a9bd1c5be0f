"""A small tree of an XML document that clients may have written: no DTD and so no entities, and bounded. Pure."""

from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from xml.parsers import expat

from bucketfront.warm.link import NotFollowed

MAX_DEPTH = 32
MAX_ELEMENTS = 120_000  # of those that are kept, some 40 MiB; a sitemap of 50,000 URLs has 100,000
MAX_PIECE_BYTES = 64 << 10


@dataclass(eq=False, slots=True)
class Element:
    """One element. `name` is without its namespace or prefix."""

    name: str
    attributes: Mapping[str, str]
    text: str = ""
    children: "list[Element]" = field(default_factory=list)

    def all(self, name: str) -> "Iterator[Element]":
        """Yield the children of that name."""
        return (child for child in self.children if child.name == name)

    def first(self, name: str) -> "Element | None":
        return next(self.all(name), None)


class _Builder:
    def __init__(self, kept: AbstractSet[str]) -> None:
        self.root = Element("", {})
        self._kept = kept
        self._open = [self.root]
        self._skipped = 0  # depth within an element that is left out
        self._count = 0

    def start(self, qualified: str, attributes: Mapping[str, str]) -> None:
        name = qualified.rpartition(":")[2]
        if self._skipped or (name not in self._kept and len(self._open) > 1):
            self._skipped += 1
            return
        self._count += 1
        if self._count > MAX_ELEMENTS or len(self._open) > MAX_DEPTH:
            raise NotFollowed("it has too many elements, or too deep ones")
        element = Element(name, attributes)
        self._open[-1].children.append(element)
        self._open.append(element)

    def characters(self, data: str) -> None:
        if not self._skipped:
            self._open[-1].text += data

    def end(self, _: str) -> None:
        if self._skipped:
            self._skipped -= 1
        else:
            self._open.pop()


def parse(document: bytes, kept: AbstractSet[str]) -> Element:
    """Return the root of a document, with those elements below it whose names are `kept`. Raises NotFollowed."""
    builder = _Builder(kept)
    parser = expat.ParserCreate()
    parser.buffer_text = True
    parser.StartDoctypeDeclHandler = _no_doctype
    parser.StartElementHandler = builder.start
    parser.EndElementHandler = builder.end
    parser.CharacterDataHandler = builder.characters
    try:
        for at in range(0, len(document), MAX_PIECE_BYTES):
            parser.Parse(document[at : at + MAX_PIECE_BYTES], False)
        parser.Parse(b"", True)
    except expat.ExpatError as error:
        raise NotFollowed(f"it is no well-formed XML, in line {error.lineno}") from error
    except (ValueError, LookupError) as error:
        raise NotFollowed("its encoding is not known") from error
    return builder.root.children[0]


def _no_doctype(*_: object) -> None:
    raise NotFollowed("it has a document type, which is not taken")
