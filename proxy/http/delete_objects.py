"""S3's DeleteObjects, the XML of both directions (S3 API, "DeleteObjects").

The document is a client's: no DTD, hence no entities, a bounded size, and only the elements that it may have.
"""

import html
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from xml.parsers import expat

from proxy.errors import ProxyError

MAX_BODY = 2 << 20  # bytes; 1000 keys of 1024 bytes fit, and some escapes
MAX_KEYS = 1000
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


def parse(body: bytes) -> DeleteRequest:
    """Raises MalformedXml."""
    if len(body) > MAX_BODY:
        raise MalformedXml(f"the document has more than {MAX_BODY} bytes")
    reading = _Reading()
    parser = expat.ParserCreate(namespace_separator=" ")
    parser.buffer_text = True
    parser.StartDoctypeDeclHandler = _no_doctype
    parser.StartElementHandler = reading.start
    parser.EndElementHandler = reading.end
    parser.CharacterDataHandler = reading.characters
    try:
        parser.Parse(body, True)
    except expat.ExpatError as error:
        raise MalformedXml(f"the document is not well-formed, in line {error.lineno}") from error
    except (ValueError, LookupError) as error:
        # An encoding that Python does not know, or that is none.
        raise MalformedXml("the document's encoding is not known") from error
    return DeleteRequest(tuple(reading.objects), reading.quiet or False)


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
