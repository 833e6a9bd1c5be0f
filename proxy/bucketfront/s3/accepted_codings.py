"""The content codings that requests for objects accept: a function of the object's key, like all that is stored.

Some stores keep an object compressed and send it decoded, unless Accept-Encoding names its coding. So GET, ranged GET,
HEAD and revalidation of one object must send the same value (docs/invariants.md#complete-cache-key).
"""

from collections.abc import Iterable
from typing import NamedTuple

from bucketfront.keys import ObjectKey


class Area(NamedTuple):
    """The keys of a bucket that begin with `prefix`, and the value of Accept-Encoding for them."""

    bucket: str
    prefix: str
    value: str


class AcceptedCodings:
    """The value for each key: that of the longest prefix, or `default`."""

    def __init__(self, default: str, areas: Iterable[Area] = ()) -> None:
        self._default = default
        self.change(areas)

    def change(self, areas: Iterable[Area]) -> None:
        """Use these areas from now on."""
        self._areas = sorted(areas, key=lambda area: len(area.prefix), reverse=True)

    def of(self, key: ObjectKey) -> str:
        matching = (area.value for area in self._areas if area.bucket == key.bucket and key.key.startswith(area.prefix))
        return next(matching, self._default)
