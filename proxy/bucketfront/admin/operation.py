"""What one path of the admin port does, in the words of its description. No I/O here."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum

from aiohttp import hdrs
from pydantic import BaseModel, ConfigDict


class Failure(BaseModel):
    """Why a request was refused, in a sentence."""

    model_config = ConfigDict(extra="forbid")

    error: str


class Media(Enum):
    JSON = "application/json"
    TEXT = "text/plain"
    HTML = "text/html"
    CSS = "text/css"
    SCRIPT = "text/javascript"
    EVENTS = "text/event-stream"
    TAR = "application/x-tar"


@dataclass(frozen=True, slots=True)
class Body:
    """A body of that type. Without a `model`, only the type is promised."""

    media: Media
    model: type[BaseModel] | None = None


@dataclass(frozen=True, slots=True)
class Operation:
    """What one path does. A GET is a HEAD as well. `responses` are those of its own, by status, without refusals.

    `request` is the model of its body, and `query` that of its parameters. A body that is no JSON has the type `takes`.
    `is_page` is True if it needs no token, because it is the same for everybody and a browser sends none with it.
    `is_probe` is True if it needs no token, no name and no place, because an orchestrator's probe has none of them.
    `is_stream` is True if its response has no end. Such responses have a bound of their own in place of a place.
    """

    method: str
    summary: str
    responses: Mapping[int, tuple[Body, ...]]
    request: type[BaseModel] | None = None
    query: type[BaseModel] | None = None
    takes: Media | None = None
    is_probe: bool = False
    is_page: bool = False
    is_stream: bool = False

    @property
    def methods(self) -> tuple[str, ...]:
        return (hdrs.METH_GET, hdrs.METH_HEAD) if self.method == hdrs.METH_GET else (self.method,)


def template_of(path: str, templates: Iterable[str]) -> str | None:
    """Return the template that a path fits, segment by segment. A segment in braces stands for any text but nothing."""
    segments = path.split("/")
    for template in templates:
        parts = template.split("/")
        if len(parts) == len(segments) and all(
            part == segment or (part.startswith("{") and segment) for part, segment in zip(parts, segments, strict=True)
        ):
            return template
    return None


FAILURE = (Body(Media.JSON, Failure),)
