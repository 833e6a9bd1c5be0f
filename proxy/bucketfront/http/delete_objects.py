"""Read and write the XML of S3's DeleteObjects (S3 API, "DeleteObjects").

Clients write the document, so it may have no DTD and thus no entities, a bounded size, and only known elements. It is
parsed in pieces, because a large document at once would block the event loop
(docs/invariants.md#cost-of-a-request).
"""

import html
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from xml.parsers import expat

from bucketfront.errors import ProxyError
from bucketfront.http import media_types

MAX_BODY_BYTES = 2 << 20  # 1000 keys of 1024 bytes fit, and some escapes
MAX_KEYS = 1000  # S3's own limit
MAX_PIECE_BYTES = 64 << 10  # bounds how long one piece occupies the event loop
MAX_TAG_BYTES = 64 << 10  # the parser processes a tag with all its attributes at once, however small the pieces
NAMESPACE = "http://s3.amazonaws.com/doc/2006-03-01/"

_XML_TYPES = ("application/xml", "text/xml")
_VERSION = "VersionId"
_CONDITIONS = frozenset({"ETag", "LastModifiedTime", "Size"})
_ROOT, _QUIET, _OBJECT = ("Delete",), ("Delete", "Quiet"), ("Delete", "Object")


class MalformedXml(ProxyError):
    """A document that does not fit the schema. S3 has an error of the same name."""


class NotXml(ProxyError):
    """The body of a DeleteObjects has another type than XML."""


class MissingChecksum(ProxyError):
    """A DeleteObjects has no checksum of its body, which S3 requires."""


@dataclass(frozen=True, slots=True)
class NamedObject:
    """An object to delete, or one version of it, as the client sent it. With a condition, `is_conditional` is true."""

    key: str
    version: str | None = None
    is_conditional: bool = False


@dataclass(frozen=True, slots=True)
class DeleteRequest:
    """The content of the document. With `quiet` the response lists only failures."""

    objects: tuple[NamedObject, ...]
    quiet: bool


@dataclass(frozen=True, slots=True)
class DeleteFailure:
    """The reason why a key was not deleted: S3's error code, and a sentence."""

    code: str
    message: str


@dataclass(frozen=True, slots=True)
class Deleted:
    """A deletion. `is_marker` is true if it made a delete marker, or removed one, which has `marker_version`."""

    is_marker: bool = False
    marker_version: str | None = None


DeleteOutcome = Deleted | DeleteFailure


@dataclass(slots=True)
class _Document:
    """The handlers of the parser, and what they have read so far."""

    path: tuple[str, ...] = ()
    text: list[str] = field(default_factory=list)
    values: dict[str, str] = field(default_factory=dict)  # of the object that is being read
    objects: list[NamedObject] = field(default_factory=list)
    quiet: bool | None = None

    def start(self, name: str, _: Mapping[str, str]) -> None:
        self.path = (*self.path, name.removeprefix(f"{NAMESPACE} "))
        is_known = self.path in (_ROOT, _QUIET, _OBJECT) or (
            self.path[:2] == _OBJECT and len(self.path) == 3 and self.path[2] in {"Key", _VERSION, *_CONDITIONS}
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
        is_conditional = not _CONDITIONS.isdisjoint(self.values)
        self.objects.append(NamedObject(self.values["Key"], self.values.get(_VERSION), is_conditional))
        self.values.clear()


def check_head(content_type: str | None, *, has_checksum: bool) -> None:
    """Refuse a body that no client of S3 sends, before it is read. Raises NotXml, MissingChecksum.

    A web page can send both only after a CORS preflight. Some SDKs send no type.
    """
    if content_type is not None and media_types.essence(content_type) not in _XML_TYPES:
        raise NotXml("the document must have the type application/xml, or none")
    if not has_checksum:
        raise MissingChecksum("the document needs a checksum: Content-MD5 or x-amz-checksum-…")


class DeleteRequestParser:
    """A parser for one document: feed it pieces of at most MAX_PIECE_BYTES, then close it."""

    def __init__(self) -> None:
        self._document = _Document()
        self._fed = 0
        self._expat = expat.ParserCreate(namespace_separator=" ")
        self._expat.buffer_text = True
        self._expat.StartDoctypeDeclHandler = _no_doctype
        self._expat.StartElementHandler = self._document.start
        self._expat.EndElementHandler = self._document.end
        self._expat.CharacterDataHandler = self._document.characters

    def feed(self, piece: bytes) -> None:
        """Parse the next piece. Raises MalformedXml."""
        self._fed += len(piece)
        if self._fed > MAX_BODY_BYTES:
            raise MalformedXml(f"the document has more than {MAX_BODY_BYTES} bytes")
        self._parse(piece)
        if self._fed - self._expat.CurrentByteIndex > MAX_TAG_BYTES:
            raise MalformedXml(f"a tag of the document has more than {MAX_TAG_BYTES} bytes")

    def close(self) -> DeleteRequest:
        """Return the content of the complete document. Raises MalformedXml."""
        self._parse(b"", is_last=True)
        return DeleteRequest(tuple(self._document.objects), self._document.quiet or False)

    def _parse(self, data: bytes, *, is_last: bool = False) -> None:
        try:
            self._expat.Parse(data, is_last)
        except expat.ExpatError as error:
            raise MalformedXml(f"the document is not well-formed, in line {error.lineno}") from error
        except (ValueError, LookupError) as error:
            # Python does not know the encoding, or it is not a text encoding.
            raise MalformedXml("the document's encoding is not known") from error


def result(outcomes: Iterable[tuple[NamedObject, DeleteOutcome]], *, quiet: bool) -> bytes:
    """Return the body of S3's response, which has the outcome of each object."""
    parts = ['<?xml version="1.0" encoding="UTF-8"?>\n', f'<DeleteResult xmlns="{NAMESPACE}">']
    for named, outcome in outcomes:
        name = _element("Key", named.key) + _element(_VERSION, named.version)
        if isinstance(outcome, DeleteFailure):
            reason = _element("Code", outcome.code) + _element("Message", outcome.message)
            parts.append(f"<Error>{name}{reason}</Error>")
        elif not quiet:
            marker = "<DeleteMarker>true</DeleteMarker>" if outcome.is_marker else ""
            marker += _element("DeleteMarkerVersionId", outcome.marker_version)
            parts.append(f"<Deleted>{name}{marker}</Deleted>")
    parts.append("</DeleteResult>")
    return "".join(parts).encode()


def _no_doctype(*_: object) -> None:
    raise MalformedXml("a document type is not taken")


def _element(name: str, text: str | None) -> str:
    """Return an element, or nothing if it has no text."""
    return "" if text is None else f"<{name}>{_text(text)}</{name}>"


def _text(text: str) -> str:
    # XML parsers read other kinds of line breaks as \n (XML 1.0 section 2.11).
    return html.escape(text, quote=False).replace("\r", "&#13;")
