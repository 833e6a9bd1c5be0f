"""The failure of the origin behind one request, as the access log has it."""

from collections.abc import Iterator
from dataclasses import dataclass

from bucketfront.errors import ErrorResponse, OriginError


@dataclass(frozen=True, slots=True)
class OriginFailure:
    """`cause` is for people, and names the cure if there is one. `response` is None if the origin sent none."""

    cause: str
    response: ErrorResponse | None = None

    def facts(self) -> Iterator[tuple[str, str | int]]:
        """Yield the facts that the response has, by the names of the access log. Absent facts are left out."""
        if self.response is None:
            return
        yield "status", self.response.status
        for name in ("code", "request_id", "host_id"):
            if text := getattr(self.response, name):
                yield name, text


def origin_failure(error: BaseException | None) -> OriginFailure | None:
    """Return the failure of the origin that `error` is, or that led to it. Returns None if there was none."""
    while error is not None:
        if isinstance(error, OriginError):
            return OriginFailure(str(error), error.response)
        error = error.__cause__
    return None
