"""The record of a resumable upload, as a small JSON text on the disk. It outlives the upload for a while."""

import json
from dataclasses import dataclass, replace
from typing import Any

from bucketfront.http import write_head
from bucketfront.http.write_head import WriteHead
from bucketfront.keys import ObjectKey
from bucketfront.s3.upload.multipart import PartSent

_FORM = 1  # of the text; a record of another form cannot be read


class BadRecord(ValueError):
    """A text that this version of bucketfront cannot read as a record."""


@dataclass(frozen=True, slots=True)
class Record:
    """The persistent state of one upload. Its fields are the keys of the JSON object.

    `length` is that of the whole upload, `part_size` that of all parts but the last, in bytes. `metadata` is
    Upload-Metadata as sent, `fields` are the client's headers for the object. `origin` names the endpoint of `key`.
    `boot` names the boot of the machine. `touched_at` is when the last byte came, by the cache's clock.

    `upload_id` is that of S3's multipart upload, or None before there is one. `begun_at` is a time before its creation
    by the origin's clock, or None if that is not known. `parts` are those that S3 has, without gaps. `etag` is that of
    the finished object. `is_dropped` means that no request may continue the upload, and that it is to be aborted at S3.
    `client` is the one that created it, see `bucketfront.fair_share`.
    """

    key: ObjectKey
    origin: str
    boot: int
    length: int
    part_size: int
    metadata: str
    fields: tuple[tuple[str, str], ...]
    touched_at: float
    upload_id: str | None = None
    begun_at: float | None = None
    parts: tuple[PartSent, ...] = ()
    etag: str | None = None
    is_dropped: bool = False
    client: str | None = None

    @property
    def sent(self) -> int:
        """Return how many bytes S3 has. It is read for each piece, so it does not add up to 10,000 parts."""
        return self.length if self.etag is not None else min(self.length, len(self.parts) * self.part_size)

    @property
    def next_part(self) -> int:
        return len(self.parts) + 1

    @property
    def head(self) -> WriteHead:
        return write_head.parse(self.fields)

    def with_part(self, part: PartSent) -> "Record":
        assert part.number == self.next_part
        return replace(self, parts=(*self.parts, part))

    def finished(self, etag: str) -> "Record":
        return replace(self, etag=etag, upload_id=None, parts=())


def encode(record: Record) -> bytes:
    tree: dict[str, Any] = {
        "form": _FORM,
        "bucket": record.key.bucket,
        "key": record.key.key,
        "parts": [[part.etag, part.size] for part in record.parts],
    }
    tree |= {name: getattr(record, name) for name in Record.__slots__ if name not in ("key", "parts")}
    return json.dumps(tree, ensure_ascii=False).encode("utf-8", "surrogateescape")


def decode(text: bytes) -> Record:
    """Return the record that `text` encodes. Raises BadRecord."""
    try:
        tree = json.loads(text.decode("utf-8", "surrogateescape"))
        if tree.pop("form") != _FORM:
            raise BadRecord("the record has another form")
        key = ObjectKey(tree.pop("bucket"), tree.pop("key"))
        parts = tuple(PartSent(number, etag, size) for number, (etag, size) in enumerate(tree.pop("parts"), 1))
        fields = tuple((name, value) for name, value in tree.pop("fields"))
        record = Record(key=key, parts=parts, fields=fields, **tree)
        if sum(part.size for part in parts) != (0 if record.etag is not None else record.sent):
            raise BadRecord("its parts have other sizes")
        return record
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadRecord(f"{type(error).__name__}: {error}") from error
