"""Requests that the metrics count together. An access record knows its group, so that a hit needs no look at labels."""

Labels = tuple[str, int, str, str]
"""The method, the status, the cache's decision and the mount, as the metrics have them."""


class RequestGroup:
    """Requests of a batch with the same labels. The first byte of the `short` ones left with the last one.

    `is_plain` is true if all are short, and their records have nothing to count but the labels.
    """

    __slots__ = ("first_bytes", "from_origin", "is_plain", "labels", "long", "sent", "short")

    def __init__(self, labels: Labels, *, is_plain: bool) -> None:
        self.labels = labels
        self.is_plain = is_plain
        self.clear()

    def clear(self) -> None:
        """Forget the requests."""
        self.sent = self.from_origin = 0
        self.short: list[float] = []  # seconds, as the others
        self.long: list[float] = []
        self.first_bytes: list[float] = []  # of the long ones that had one
