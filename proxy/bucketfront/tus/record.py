"""What is kept of an upload while it is unfinished, and for a while after that, as a small JSON text."""

import json
from dataclasses import dataclass, replace
from typing import Any

from bucketfront.http import write_head
from bucketfront.http.write_head import WriteHead
from bucketfront.keys import ObjectKey
from bucketfront.s3.upload.multipart import PartSent

_FORM = 1  # of the text; one of another form is none


class BadRecord(ValueError):
    """A text that is no record of ours."""


@dataclass(frozen=True, slots=True)
class Record:
    """`length` is the whole upload's, `part_size` that of its parts but the last, in bytes. `metadata` is
    Upload-Metadata as sent, `fields` what the client said of the object. `origin` names the endpoint that `key` is of.
    `boot`: which boot of the machine it is from. `touched_at`: when its last byte came, by the cache's clock.

    `upload_id` is S3's, None while nothing is there; `parts` are those that S3 has, without gaps. `etag`: of the
    object, once it is finished. `is_dropped`: nobody may go on with it, and what S3 has of it is to be aborted.
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
    parts: tuple[PartSent, ...] = ()
    etag: str | None = None
    is_dropped: bool = False

    @property
    def sent(self) -> int:
        """Bytes that S3 has. Asked for with each piece: the parts, 10,000 at most, are not gone through."""
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
    """Raises BadRecord."""
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
