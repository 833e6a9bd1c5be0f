"""What a client says of the object that it writes."""

from collections.abc import Iterable
from dataclasses import dataclass

OBJECT_FIELDS = (
    "content-type",
    "content-encoding",
    "content-language",
    "content-disposition",
    "cache-control",
    "expires",
)


@dataclass(frozen=True, slots=True)
class WriteHead:
    """`headers` are OBJECT_FIELDS, lower-case name and value. `metadata` is the user's, names in lower case without
    `x-amz-meta-`. `content_md5` is the field as sent.
    """

    headers: tuple[tuple[str, str], ...] = ()
    metadata: tuple[tuple[str, str], ...] = ()
    content_md5: str | None = None


def parse(fields: Iterable[tuple[str, str]]) -> WriteHead:
    """The request's fields, names in any case."""
    given = {name.lower(): value for name, value in fields}
    prefix = "x-amz-meta-"
    return WriteHead(
        headers=tuple((name, given[name]) for name in OBJECT_FIELDS if name in given),
        metadata=tuple((name[len(prefix) :], value) for name, value in given.items() if name.startswith(prefix)),
        content_md5=given.get("content-md5"),
    )
