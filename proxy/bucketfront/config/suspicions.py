"""Find settings that are permitted and probably not meant."""

from collections.abc import Iterator

from bucketfront.config.problems import Loc
from bucketfront.config.settings import Settings

_JOINTS = "/-_.=+@:,;~!"  # a prefix that ends in one of them was meant to be joined with the path
_JOINED = (
    "does not end in '/', so its last name and the path become one name: with the prefix videos, /a.mp4 is the object"
    " videosa.mp4. Write videos/ for a folder"
)


def suspicions(settings: Settings) -> Iterator[tuple[Loc, str]]:
    """Yield each place with a message that has the fix."""
    for number, mount in enumerate(settings.mounts):
        if mount.prefix and mount.prefix[-1] not in _JOINTS:
            yield ("mounts", number, "prefix"), _JOINED
