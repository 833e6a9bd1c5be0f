"""What nodes send each other over the bus, and its form in the stream. No I/O here.

A notice is one field of a stream entry: compact JSON with the number of its format. Readers ignore keys that they do
not know. So a later format that they must not read in part has another number. What a reader cannot read may name any
object, so the reader takes it as `EVERYTHING_STALE`.
"""

import json
from collections.abc import Iterator, Sequence
from enum import Enum
from typing import Any

from bucketfront.cache import Cause, Invalidation, KeyRange, PathGlob, PurgeSelection
from bucketfront.errors import BadPath
from bucketfront.http.glob import glob_of
from bucketfront.keys import ObjectKey

FORMAT = 1
MAX_NOTICE_BYTES = 1 << 20  # far more than a node sends; to decode as much takes about 10 ms
KEYS_OF_ONE = 200  # of one notice, at up to 1 KiB each
_KIND, _INVALIDATION = "k", "invalid"


class Signal(Enum):
    """A notice without further content. The values stand in the stream."""

    EVERYTHING_STALE = "stale"  # its sender has lost notices, so all that was validated before may be old
    ACKNOWLEDGE = "sync"  # its sender waits until each node has applied what came before


Notice = Invalidation | Signal


class UnreadableNotice(Exception):
    """A notice that this release cannot read."""


def encoded(notice: Notice) -> Iterator[bytes]:
    """Yield the stream's forms of a notice: several if an invalidation has many keys."""
    if isinstance(notice, Signal):
        yield _dumped({_KIND: notice.value})
        return
    selection = notice.selection
    keys = sorted(selection.keys, key=_order)
    for at in range(0, len(keys) or 1, KEYS_OF_ONE):
        yield _dumped(_facts(notice, keys[at : at + KEYS_OF_ONE], is_first=not at))


def decoded(data: bytes) -> Notice:
    """Return the notice of a stream's form. Raises UnreadableNotice."""
    if len(data) > MAX_NOTICE_BYTES:
        raise UnreadableNotice(f"it has more than {MAX_NOTICE_BYTES} bytes")
    try:
        facts = json.loads(data)
        if facts["v"] != FORMAT:
            raise UnreadableNotice("it has the format of another release")
        if facts[_KIND] != _INVALIDATION:
            return Signal(facts[_KIND])
        return _invalidation(facts)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, BadPath) as error:
        raise UnreadableNotice(f"it is malformed ({type(error).__name__})") from error


def merged(notices: Sequence[Notice]) -> list[Notice]:
    """Return the notices with neighbours joined that name keys alone, because one purge of many keys costs less.

    What repeats the notice before it is left out.
    """
    found: list[Notice] = []
    for notice in notices:
        last = found[-1] if found else None
        if notice == last:
            continue
        if _has_keys_alone(notice) and _has_keys_alone(last) and _manner(notice) == _manner(last):
            assert isinstance(last, Invalidation)
            assert isinstance(notice, Invalidation)
            keys = last.selection.keys | notice.selection.keys
            selection = PurgeSelection.of(keys, versions=notice.selection.versions)
            found[-1] = Invalidation(selection, notice.cause, notice.is_soft)
        else:
            found.append(notice)
    return found


def _has_keys_alone(notice: Notice | None) -> bool:
    if not isinstance(notice, Invalidation) or notice.etag is not None:
        return False
    selection = notice.selection
    return not selection.ranges and not selection.tags and not selection.everything


def _manner(notice: Notice | None) -> tuple[object, ...]:
    assert isinstance(notice, Invalidation)
    return notice.cause, notice.is_soft, notice.selection.versions


def _order(key: ObjectKey) -> tuple[str, str, str]:
    return key.bucket, key.key, key.version or ""


def _dumped(facts: dict[str, Any]) -> bytes:
    return json.dumps({"v": FORMAT, **facts}, separators=(",", ":")).encode()


def _facts(invalidation: Invalidation, keys: Sequence[ObjectKey], *, is_first: bool) -> dict[str, Any]:
    """Return the facts of one part. The first one has all but the further keys."""
    selection = invalidation.selection
    facts: dict[str, Any] = {_KIND: _INVALIDATION, "cause": invalidation.cause.value}
    if keys:
        facts["keys"] = [list(key) for key in keys]
    if is_first and selection.ranges:
        facts["ranges"] = [_facts_of_range(each) for each in selection.ranges]
    if is_first and selection.tags:
        facts["tags"] = list(selection.tags)
    flags = {"all": selection.everything, "versions": selection.versions, "soft": invalidation.is_soft}
    facts |= {name: True for name, is_set in flags.items() if is_set}
    if invalidation.etag is not None:
        facts["etag"] = invalidation.etag
    return facts


def _facts_of_range(each: KeyRange) -> list[Any]:
    glob = each.glob
    return (
        [each.bucket, each.prefix] if glob is None else [each.bucket, each.prefix, glob.pattern, glob.path, glob.skip]
    )


def _invalidation(facts: dict[str, Any]) -> Invalidation:
    selection = PurgeSelection.of(
        [_key(*each) for each in facts.get("keys", ())],
        [_range(*each) for each in facts.get("ranges", ())],
        tags=[_text(each) for each in facts.get("tags", ())],
        everything=_flag(facts, "all"),
        versions=_flag(facts, "versions"),
    )
    etag = facts.get("etag")
    return Invalidation(
        selection, Cause(facts["cause"]), _flag(facts, "soft"), etag=None if etag is None else _text(etag)
    )


def _key(bucket: object, key: object, version: object) -> ObjectKey:
    return ObjectKey(_text(bucket), _text(key), None if version is None else _text(version))


def _range(bucket: object, prefix: object, pattern: object = None, path: object = "", skip: object = 0) -> KeyRange:
    if pattern is None:
        return KeyRange(_text(bucket), _text(prefix))
    glob_of(_text(pattern))  # its bounds are those of a purge here
    if not isinstance(skip, int) or skip < 0:
        raise ValueError("not a number of characters")
    return KeyRange(_text(bucket), _text(prefix), PathGlob(_text(pattern), _text(path), skip))


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError("not a text")
    value.encode()  # a lone surrogate is no text of S3, and no disk takes it
    return value


def _flag(facts: dict[str, Any], name: str) -> bool:
    value = facts.get(name, False)
    if not isinstance(value, bool):
        raise TypeError("not a flag")
    return value
