"""S3's DeleteObjects, the XML of both directions (S3 API, "DeleteObjects").

The document is a client's: no DTD, hence no entities, a bounded size, and only the elements that it may have. It is
read as it comes, a piece at a time, because the whole of a large one at once would hold the loop (I22).
"""

import html
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from xml.parsers import expat

from bucketfront.errors import ProxyError

MAX_BODY = 2 << 20  # bytes; 1000 keys of 1024 bytes fit, and some escapes
MAX_KEYS = 1000
MAX_PIECE = 64 << 10  # bytes fed at once
MAX_TOKEN = 64 << 10  # bytes of one tag: a parser reads it in one go, whatever it was fed in, with all its attributes
NAMESPACE = "http://s3.amazonaws.com/doc/2006-03-01/"

_CONDITIONS = frozenset({"VersionId", "ETag", "LastModifiedTime", "Size"})
_ROOT, _QUIET, _OBJECT = ("Delete",), ("Delete", "Quiet"), ("Delete", "Object")


class MalformedXml(ProxyError):
    """S3's own name for a document that is not the one it has a schema for."""


@dataclass(frozen=True, slots=True)
class Named:
    """`is_plain`: named by its key alone, without a version or a condition."""

    key: str
    is_plain: bool = True


@dataclass(frozen=True, slots=True)
class DeleteRequest:
    """`quiet`: only failures are told."""

    objects: tuple[Named, ...]
    quiet: bool


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a key is still there: S3's error code, and a sentence."""

    code: str
    message: str


@dataclass(slots=True)
class _Reading:
    path: tuple[str, ...] = ()
    text: list[str] = field(default_factory=list)
    values: dict[str, str] = field(default_factory=dict)  # of the object that is being read
    objects: list[Named] = field(default_factory=list)
    quiet: bool | None = None

    def start(self, name: str, _: Mapping[str, str]) -> None:
        self.path = (*self.path, name.removeprefix(f"{NAMESPACE} "))
        is_known = self.path in (_ROOT, _QUIET, _OBJECT) or (
            self.path[:2] == _OBJECT and len(self.path) == 3 and self.path[2] in {"Key", *_CONDITIONS}
        )
        if not is_known:
            raise MalformedXml("the document is no Delete of objects")
        self.text.clear()

    def characters(self, data: str) -> None:
        self.text.append(data)

    def end(self, _: str) -> None:
        text, path = "".join(self.text), self.path
        self.text.clear()
        self.path = path[:-1]
        if path == _QUIET:
            if self.quiet is not None or text.strip() not in ("true", "false"):
                raise MalformedXml("Quiet must be true or false, once")
            self.quiet = text.strip() == "true"
        elif path == _OBJECT:
            self._object()
        elif path != _ROOT:
            if path[2] in self.values:
                raise MalformedXml("an element comes twice in one Object")
            self.values[path[2]] = text
        elif not self.objects:
            raise MalformedXml("no object is named")

    def _object(self) -> None:
        if not self.values.get("Key"):
            raise MalformedXml("an Object has no Key")
        if len(self.objects) == MAX_KEYS:
            raise MalformedXml(f"more than {MAX_KEYS} objects are named")
        self.objects.append(Named(self.values["Key"], is_plain=_CONDITIONS.isdisjoint(self.values)))
        self.values.clear()


class Parser:
    """To be fed with the document's pieces, each of MAX_PIECE bytes at most, and closed."""

    def __init__(self) -> None:
        self._reading = _Reading()
        self._fed = 0
        self._expat = expat.ParserCreate(namespace_separator=" ")
        self._expat.buffer_text = True
        self._expat.StartDoctypeDeclHandler = _no_doctype
        self._expat.StartElementHandler = self._reading.start
        self._expat.EndElementHandler = self._reading.end
        self._expat.CharacterDataHandler = self._reading.characters

    def feed(self, piece: bytes) -> None:
        """Raises MalformedXml."""
        self._fed += len(piece)
        if self._fed > MAX_BODY:
            raise MalformedXml(f"the document has more than {MAX_BODY} bytes")
        self._parse(piece)
        if self._fed - self._expat.CurrentByteIndex > MAX_TOKEN:
            raise MalformedXml(f"a tag of the document has more than {MAX_TOKEN} bytes")

    def close(self) -> DeleteRequest:
        """Raises MalformedXml."""
        self._parse(b"", is_last=True)
        return DeleteRequest(tuple(self._reading.objects), self._reading.quiet or False)

    def _parse(self, data: bytes, *, is_last: bool = False) -> None:
        try:
            self._expat.Parse(data, is_last)
        except expat.ExpatError as error:
            raise MalformedXml(f"the document is not well-formed, in line {error.lineno}") from error
        except (ValueError, LookupError) as error:
            # An encoding that Python does not know, or that is none.
            raise MalformedXml("the document's encoding is not known") from error


def result(outcomes: Iterable[tuple[str, Refusal | None]], *, quiet: bool) -> bytes:
    """S3's answer: each key with why it is still there, None where it is gone."""
    parts = ['<?xml version="1.0" encoding="UTF-8"?>\n', f'<DeleteResult xmlns="{NAMESPACE}">']
    for key, refusal in outcomes:
        if refusal is not None:
            told = f"<Code>{_text(refusal.code)}</Code><Message>{_text(refusal.message)}</Message>"
            parts.append(f"<Error><Key>{_text(key)}</Key>{told}</Error>")
        elif not quiet:
            parts.append(f"<Deleted><Key>{_text(key)}</Key></Deleted>")
    parts.append("</DeleteResult>")
    return "".join(parts).encode()


def _no_doctype(*_: object) -> None:
    raise MalformedXml("a document type is not taken")


def _text(text: str) -> str:
    # A line break of another kind would be read as \n (XML 1.0 section 2.11).
    return html.escape(text, quote=False).replace("\r", "&#13;")
