"""The file of a manifest: which objects and which of their bytes to fill, the most wanted first. Pure.

The first line names the format: `{"bucketfront-manifest": 1}`. Each further line is a JSON object with `path`, which is
a request path as clients send it, and maybe `range`, which is the value of a Range header. Without the first line, a
file has one path on each line. Empty lines, and those that begin with `#`, are comments.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from bucketfront.errors import ProxyError

VERSION = 1
HEADER = "bucketfront-manifest"
MAX_LINE_CHARS = 16_384


class BadManifest(ProxyError):
    """A manifest cannot be used. The message has the line and the cure."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """One object to fill. `range` is the value of a Range header, None for all of it."""

    path: str
    range: str | None = None

    def line(self) -> str:
        """Return the line of a manifest."""
        return json.dumps({"path": self.path} if self.range is None else {"path": self.path, "range": self.range})


def header(version: str) -> str:
    """Return the first line. `version` is that of the bucketfront that writes it."""
    return json.dumps({HEADER: VERSION, "by": f"bucketfront {version}"})


def read(lines: Iterable[str]) -> Iterator[Wanted]:
    """Yield the objects of a manifest in its order. Raises BadManifest."""
    for number, line in enumerate(lines, 1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        if len(text) > MAX_LINE_CHARS:
            raise BadManifest(f"line {number} has more than {MAX_LINE_CHARS} characters")
        if text.startswith("/"):
            yield Wanted(text)
            continue
        found = _parsed(text, number)
        if HEADER in found:
            _check_version(found[HEADER], number)
            continue
        yield _wanted(found, number)


def _parsed(text: str, number: int) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError as error:
        raise BadManifest(
            f"line {number} is neither a path that begins with / nor JSON; was the file cut or edited?"
        ) from error
    if not isinstance(found, dict):
        raise BadManifest(f"line {number} is no JSON object")
    return found


def _check_version(version: object, number: int) -> None:
    if version != VERSION:
        raise BadManifest(
            f"line {number}: this bucketfront reads version {VERSION} of manifests; export it with the same version"
        )


def _wanted(found: dict[str, Any], number: int) -> Wanted:
    path, wanted = found.get("path"), found.get("range")
    if not isinstance(path, str) or not path.startswith("/") or not (wanted is None or isinstance(wanted, str)):
        raise BadManifest(f'line {number} must have "path", which begins with /, and may have "range"')
    return Wanted(path, wanted)
