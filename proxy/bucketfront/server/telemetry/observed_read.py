"""A read that S3 served because of `cache.mode`, as the forecast takes it."""

from typing import NamedTuple

from bucketfront.cache import Observed
from bucketfront.http.ranges import Span


class ObservedRead(NamedTuple):
    """`version` is what S3 had. `span` is from the first byte of the response to its last, None without a body."""

    version: Observed
    span: Span | None
