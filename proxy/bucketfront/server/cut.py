"""Responses that the proxy itself ends early, by aborting their connection.

A client that leaves is no cut: the log has status 499 for it, and no `cut`.
"""

from enum import StrEnum

from bucketfront.errors import OriginError, StoreError


class Cut(StrEnum):
    """Why the proxy cut a response. The value is a field of the access log, and a label of a metric."""

    ORIGIN = "origin"  # it failed, or the object changed there
    DISK = "disk"  # the cached file failed, and the origin could not replace its bytes
    SLOW_CLIENT = "slow-client"  # the client took too little within its deadline
    STOP = "stop"  # the proxy stops, and its time for running requests is over
    BUG = "bug"


class BrokenOff(ConnectionResetError):
    """The proxy cut the response off and aborted the connection. The log's field `fault` has the text."""

    def __init__(self, fault: str, cut: Cut) -> None:
        super().__init__(fault)
        self.cut = cut


def broken_off(error: Exception) -> BrokenOff:
    """Return the BrokenOff for an error that ends a response after its head."""
    match error:
        case OriginError():
            cut = Cut.ORIGIN
        case StoreError() | EOFError():
            cut = Cut.DISK
        case TimeoutError():
            cut = Cut.SLOW_CLIENT
        case _:
            cut = Cut.BUG
    return BrokenOff(str(error) or ("the client was too slow" if cut is Cut.SLOW_CLIENT else "internal error"), cut)
