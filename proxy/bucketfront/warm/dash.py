"""The references of a DASH manifest (ISO/IEC 23009-1): templates, timelines, lists, and whole files. Pure.

Of a live manifest only what it lists now is read. Segments that follow from the time of day are left out.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from bucketfront.warm.link import Link, Links, NotFollowed
from bucketfront.warm.xml_tree import Element, parse

_IDENTIFIER = re.compile(r"\$(RepresentationID|Bandwidth|Number|Time|SubNumber|)(?:%0([0-9]{1,2})d)?\$")
_DURATION = re.compile(
    r"P(?:([0-9]{1,6})D)?(?:T(?:([0-9]{1,6})H)?(?:([0-9]{1,8})M)?(?:([0-9]{1,10}(?:\.[0-9]{1,9})?)S)?)?"
)
_RANGE = re.compile(r"([0-9]{1,18})-([0-9]{1,18})")
MAX_NUMBER = 1 << 53
_KEPT = frozenset({"Period", "AdaptationSet", "Representation", "BaseURL", "SegmentBase", "Initialization"})
_KEPT |= {"SegmentTemplate", "SegmentTimeline", "S", "SegmentList", "SegmentURL"}


@dataclass(frozen=True, slots=True)
class _Context:
    """Where a representation is: what it inherits. `seconds` is the duration of its period, None if unknown."""

    levels: tuple[Element, ...]  # Period, AdaptationSet, Representation
    bases: tuple[str, ...]
    seconds: float | None
    is_live: bool

    @property
    def representation(self) -> Element:
        return self.levels[-1]

    def inherited(self, name: str) -> list[Element]:
        """Return the elements of that name, outermost first."""
        return [found for level in self.levels if (found := level.first(name)) is not None]


def links(document: bytes) -> Links:
    """Yield the references of a manifest in its order. Raises NotFollowed."""
    root = parse(document, _KEPT)
    if root.name != "MPD":
        raise NotFollowed("it is no DASH manifest: its root is not MPD")
    is_live = root.attributes.get("type") == "dynamic"
    periods = list(root.all("Period"))
    whole = _seconds(root.attributes.get("mediaPresentationDuration"))
    for number, period in enumerate(periods):
        seconds = _seconds(period.attributes.get("duration"))
        if seconds is None:
            seconds = _until_next(periods, number, whole)
        for adaptation in period.all("AdaptationSet"):
            for representation in adaptation.all("Representation"):
                levels = (period, adaptation, representation)
                bases = tuple(base for level in (root, *levels) for base in _base(level))
                yield from _of_representation(_Context(levels, bases, seconds, is_live))


def _of_representation(context: _Context) -> Links:
    if templates := context.inherited("SegmentTemplate"):
        yield from _of_template(context, templates)
    elif lists := context.inherited("SegmentList"):
        yield from _of_list(context, lists[-1])
    elif context.representation.first("BaseURL") is not None:
        yield Link("", context.bases)  # one file, which SegmentBase may divide


def _of_template(context: _Context, templates: list[Element]) -> Links:
    attributes: dict[str, str] = {}
    for template in templates:
        attributes |= template.attributes
    if initialization := attributes.get("initialization"):
        yield Link(_expanded(initialization, context, 0, 0), context.bases)
    else:
        yield from _initialization(context, templates[-1])
    media = attributes.get("media")
    if media is None:
        return
    timelines = [found for template in templates if (found := template.first("SegmentTimeline")) is not None]
    start = _whole(attributes, "startNumber", 1)
    times: Iterator[tuple[int, int]]
    if timelines:
        times = enumerate(_times(context, timelines[-1], attributes), start)
    else:
        times = ((start + count, count * length) for count, length in _counted(context, attributes, start))
    for number, time in times:
        yield Link(_expanded(media, context, number, time), context.bases)


def _times(context: _Context, timeline: Element, attributes: Mapping[str, str]) -> Iterator[int]:
    """Yield the begin of each segment of a timeline (ISO/IEC 23009-1 section 5.3.9.6)."""
    scale, offset = max(1, _whole(attributes, "timescale", 1)), _whole(attributes, "presentationTimeOffset", 0)
    runs = list(timeline.all("S"))
    time = 0
    for number, run in enumerate(runs):
        time = _whole(run.attributes, "t", time)
        length, repeats = _whole(run.attributes, "d", 0), _whole(run.attributes, "r", 0)
        if not length:
            return
        if repeats < 0:  # up to the next run, or to the end of the period
            if number + 1 < len(runs):
                stop = _whole(runs[number + 1].attributes, "t", time + length)
            else:
                stop = time + length if context.seconds is None else offset + int(context.seconds * scale)
            repeats = -(-(stop - time) // length) - 1
        for _ in range(repeats + 1):
            yield time
            time += length


def _counted(context: _Context, attributes: Mapping[str, str], start: int) -> Iterator[tuple[int, int]]:
    """Yield the place and the length of each segment of a template without a timeline."""
    length, scale = _whole(attributes, "duration", 0), max(1, _whole(attributes, "timescale", 1))
    if length <= 0 or context.is_live or context.seconds is None:
        return
    count = -(-int(context.seconds * scale) // length)
    if "endNumber" in attributes:
        count = min(count, _whole(attributes, "endNumber", start) - start + 1)
    for place in range(count):
        yield place, length


def _of_list(context: _Context, segments: Element) -> Links:
    yield from _initialization(context, segments)
    for segment in segments.all("SegmentURL"):
        yield _ranged(segment.attributes.get("media", ""), segment.attributes.get("mediaRange"), context)


def _initialization(context: _Context, parent: Element) -> Links:
    found = parent.first("Initialization")
    if found is not None:
        yield _ranged(found.attributes.get("sourceURL", ""), found.attributes.get("range"), context)


def _ranged(uri: str, byte_range: str | None, context: _Context) -> Link:
    match = None if byte_range is None else _RANGE.fullmatch(byte_range)
    if match is None or int(match[1]) > int(match[2]):
        return Link(uri, context.bases)
    return Link(uri, context.bases, int(match[1]), int(match[2]))


def _expanded(template: str, context: _Context, number: int, time: int) -> str:
    """Return a template with its identifiers replaced (ISO/IEC 23009-1 section 5.3.9.4.4)."""
    attributes = context.representation.attributes
    values: dict[str, str | int] = {
        "": "$",
        "RepresentationID": attributes.get("id", ""),
        "Bandwidth": _whole(attributes, "bandwidth", 0),
        "Number": number,
        "Time": time,
        "SubNumber": 1,
    }

    def value(match: re.Match[str]) -> str:
        found = values[match[1]]
        width = 0 if match[2] is None else int(match[2])
        return found if isinstance(found, str) else str(found).zfill(width)

    return _IDENTIFIER.sub(value, template)


def _base(level: Element) -> tuple[str, ...]:
    """Return the first of the base URLs of an element. The others are alternatives."""
    found = level.first("BaseURL")
    return () if found is None else (found.text.strip(),)


def _until_next(periods: list[Element], number: int, whole: float | None) -> float | None:
    """Return the seconds of a period without a duration: up to the next one, or to the end."""
    start = _seconds(periods[number].attributes.get("start")) or 0.0
    stop = whole if number + 1 == len(periods) else _seconds(periods[number + 1].attributes.get("start"))
    return None if stop is None else max(0.0, stop - start)


def _seconds(text: str | None) -> float | None:
    match = None if text is None else _DURATION.fullmatch(text)
    if match is None:
        return None
    days, hours, minutes, seconds = (float(part or 0) for part in match.groups())
    return ((days * 24 + hours) * 60 + minutes) * 60 + seconds


def _whole(attributes: Mapping[str, str], name: str, default: int) -> int:
    text = attributes.get(name, "").strip()
    digits = text.removeprefix("-")
    if not (digits.isascii() and digits.isdigit() and len(digits) <= 18):
        return default
    return max(-MAX_NUMBER, min(MAX_NUMBER, int(text)))
