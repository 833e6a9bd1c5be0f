"""Stores the files of a form one after the other, each as it arrives (RFC 7578).

A field applies to the files behind it. A file is complete once the fields behind it were read, because a field that
no file follows was meant for it, and refuses it. Fields have the names of S3's "POST Object": `key`, the object's
headers, `acl`, and those that begin with `x-amz-`. They are refused by the rules of a PUT. Other fields are ignored.

A form with a policy and its signature, as SDKs make them, is one of S3: it has a `key` and one file, and its client
reads S3's response. Neither the policy nor the signature is verified.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass, replace

from ulid import ULID

from bucketfront.errors import ProxyError
from bucketfront.http import key_template, write_head
from bucketfront.http.key_template import KeyTemplate
from bucketfront.http.multipart_form import END, BadForm, Event, FormParser, Part
from bucketfront.http.write_head import NoSuchWrite, WriteHead
from bucketfront.keys import ObjectKey
from bucketfront.s3.upload.uploader import Written
from bucketfront.server.error_responses import PartlyStored
from bucketfront.server.router import Route

MAX_FIELD_BYTES = 8 << 10
MAX_ALL_FIELDS_BYTES = 64 << 10
MAX_OVERHEAD_BYTES = 1 << 20  # of a form beside its files

_FILENAME = "${filename}"  # S3's: the name of the file
_OF_ONE_FILE = ("x-amz-checksum-", "x-amz-content-sha256", "content-md5", "digest", "content-digest", "repr-digest")
_OF_OBJECTS = ("x-amz-", "acl", *write_head.OBJECT_FIELDS)
_HEADERS = {"acl": "x-amz-acl"}  # the headers of a PUT for fields of another name
_POLICY, _STATUS, _FILE = "policy", "success_action_status", "file"  # fields of S3's POST
_SIGNATURES = ("x-amz-signature", "signature")  # of versions 4 and 2
# Browsers send it for files whose type they do not know.
_UNKNOWN_TYPE = "application/octet-stream"

StoreFile = Callable[[ObjectKey, AsyncIterator[bytes], WriteHead], Awaitable[Written]]


@dataclass(frozen=True, slots=True)
class FormFile:
    key: ObjectKey
    etag: str
    version: str | None = None


@dataclass(frozen=True, slots=True)
class _File:
    """A file of the form. `first` is the event after the head of its part."""

    part: Part
    name: str
    first: Event


class Form:
    """A form of one request.

    `head` is the request's own. Its conditions apply to each file, and its object headers to those for which the form
    has none. `now` is in seconds since the epoch. Raises NoSuchWrite.
    """

    def __init__(self, route: Route, head: WriteHead, store: StoreFile, now: float) -> None:
        if head.if_match is not None or head.checksums:
            raise NoSuchWrite("of a form, each file has its own checksum, and none has an If-Match")
        self._route = route
        self._head = head
        self._store = store
        self._now = now
        self._fields: dict[str, str] = {}
        self._field_bytes = 0
        self._new_fields: list[str] = []  # since the last file
        self._names = set[str]()  # of all fields so far
        self.stored: list[FormFile] = []
        self.status = ""  # that the form wants for its response

    @property
    def is_presigned(self) -> bool:
        """Return whether the fields so far are those of a form of S3."""
        return _POLICY in self._names and not self._names.isdisjoint(_SIGNATURES)

    async def read(self, body: AsyncIterator[bytes], boundary: str) -> list[FormFile]:
        """Store all files, and return them in their order.

        Raises PartlyStored if some files were stored before the error, else the ProxyError itself.
        """
        try:
            async with aclosing(_events(body, boundary)) as events:
                file = await self._next_file(events)
                while file is not None:
                    file = await self._read_file(file, events)
        except ProxyError as error:
            if not self.stored:
                raise
            raise PartlyStored(error, [description(self._route, one) for one in self.stored]) from error
        if not self.stored:
            raise BadForm("the form has no file")
        return self.stored

    async def _next_file(self, events: AsyncIterator[Event]) -> _File | None:
        """Read the fields up to the next file. Returns None at the end of the form."""
        async for event in events:
            assert isinstance(event, Part), "a part is read to its end"
            is_named_file = self.is_presigned and event.name.lower() == _FILE
            if event.filename is None and not is_named_file:
                await self._read_field(event, events)
                continue
            first = await anext(events)
            # A browser sends an empty part without a name for a file input without a file.
            if event.filename or is_named_file or first is not END:
                return _File(event, event.filename or "", first)
        return None

    async def _read_field(self, part: Part, events: AsyncIterator[Event]) -> None:
        value = bytearray()
        async for piece in _content(events):
            value += piece
            if len(value) > MAX_FIELD_BYTES:
                raise BadForm(f"a field of the form has more than {MAX_FIELD_BYTES} bytes")
        self._field_bytes += len(part.name.encode()) + len(value)
        if self._field_bytes > MAX_ALL_FIELDS_BYTES:
            raise BadForm(f"the fields of the form have more than {MAX_ALL_FIELDS_BYTES} bytes")
        name = part.name.lower()
        self._names.add(name)
        if name == _STATUS:
            self.status = value.decode(errors="replace")
        if name == "tagging":
            raise NoSuchWrite("of a form, tags are taken from a field x-amz-tagging, not from XML")
        if name == "key" or name.startswith((*_OF_ONE_FILE, *_OF_OBJECTS)):
            try:
                self._fields[name] = value.decode()
            except UnicodeDecodeError as error:
                raise BadForm("a field of the form is not UTF-8") from error
            self._new_fields.append(name)

    async def _read_file(self, file: _File, events: AsyncIterator[Event]) -> _File | None:
        """Store a file. Returns the next one, None at the end of the form."""
        key = self._key(file.name)
        if any(key == one.key for one in self.stored):
            raise BadForm("two files of the form have the same key")
        head = self._head_of(file.part)
        following: list[_File | None] = []

        async def content() -> AsyncIterator[bytes]:
            async for piece in _content(events, file.first):
                yield piece
            self._forget_fields_of_one_file()
            following.append(await self._next_file(events))
            if following != [None] and self.is_presigned:
                raise BadForm("a form of S3 has one file")
            if following == [None] and self._new_fields:
                raise BadForm(f"the field {self._new_fields[0]!r} comes after the file, and must come before it")

        written = await self._store(key, content(), head)
        self.stored.append(FormFile(key, written.etag, written.version))
        return following[0]

    def _forget_fields_of_one_file(self) -> None:
        self._new_fields.clear()
        self._fields = {
            name: value
            for name, value in self._fields.items()
            if not name.startswith(_OF_ONE_FILE) and (name != "key" or _FILENAME in value)
        }

    def _key(self, filename: str) -> ObjectKey:
        wanted = self._fields.get("key")
        if not self._route.makes_key:
            if wanted is not None or self.stored:
                raise BadForm("the path names the key already, of one file")
            return self._route.key_to_write()
        if wanted is None and self.is_presigned:
            raise BadForm("a form of S3 has a field 'key'")
        ulid = str(ULID())
        if wanted is None:
            return self._route.key_to_write(KeyTemplate(self._route.mount.key_template).key(self._now, ulid, filename))
        wanted = wanted.replace(_FILENAME, key_template.clean(filename) or ulid)
        if not wanted or key_template.has_dot_segment(wanted):
            raise BadForm("the form's key is empty, or leads out of the folder")
        return self._route.key_to_write(wanted)

    def _head_of(self, part: Part) -> WriteHead:
        given = {name: value for name, value in part.headers if name.startswith((*_OF_ONE_FILE, "content-", "x-amz-"))}
        if given.get("content-type", "").lower() == _UNKNOWN_TYPE:
            del given["content-type"]
        fields = {_HEADERS.get(name, name): value for name, value in self._fields.items() if name != "key"}
        head = write_head.parse((given | fields).items())
        # The head's other headers describe the form, or are a browser's directives to caches.
        return replace(
            head,
            metadata=tuple((dict(self._head.metadata) | dict(head.metadata)).items()),
            tagging=head.tagging or self._head.tagging,
            storage_class=head.storage_class or self._head.storage_class,
            only_if_absent=self._head.only_if_absent,
        )


def description(route: Route, file: FormFile) -> dict[str, str]:
    """Return the response's entry for one file among several."""
    return {"key": route.relative(file.key), "location": route.location(file.key), "etag": file.etag}


async def _events(body: AsyncIterator[bytes], boundary: str) -> AsyncGenerator[Event, None]:
    parser = FormParser(boundary)
    async for chunk in body:
        for event in parser.feed(chunk):
            yield event
    parser.close()


async def _content(events: AsyncIterator[Event], first: Event = b"") -> AsyncIterator[bytes]:
    """Yield the content of the current part."""
    event = first
    while event is not END:
        assert isinstance(event, bytes), "a part ends before the next one begins"
        if event:
            yield event
        event = await anext(events)
