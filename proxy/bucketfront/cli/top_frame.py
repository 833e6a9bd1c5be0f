"""The lines of one frame of `bucketfront top`. No I/O here."""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from bucketfront.cli.tail import decision_of
from bucketfront.cli.units import milliseconds, printable, rate, ratio, size

UNBOUNDED = 1 << 16  # lines, for a frame that is printed
MIN_SECTION = 3  # lines of a section that has any: its heading and two rows


class Sort(StrEnum):
    """What the hottest objects are sorted by."""

    REQUESTS = "requests"
    BYTES = "bytes"
    PATH = "path"


@dataclass(frozen=True, slots=True)
class Line:
    text: str
    is_heading: bool = False


def frame_lines(frame: dict[str, Any], sort: Sort, width: int, height: int = UNBOUNDED) -> list[Line]:
    """Return the frame in at most `height` lines of at most `width` characters.

    If there is not enough room, each section loses rows at its end, and the last ones are left out.
    """
    lines = list(_summary(frame))
    found = (_decisions(frame), _fills(frame), _hottest(frame, sort), _slowest(frame))
    sections = [section for section in found if section]
    for number, section in enumerate(sections):
        left = height - len(lines)
        share = max(MIN_SECTION, left // (len(sections) - number)) if number else left
        if left < MIN_SECTION:
            break
        lines += [Line(""), *section[: min(share, left) - 1]]
    return [Line(_fit(line.text, width), line.is_heading) for line in lines[:height]]


def _summary(frame: dict[str, Any]) -> Iterator[Line]:
    figures = {name: figure["per_s"] for name, figure in frame["figures"].items()}
    state = f"degraded: {', '.join(frame['degraded'])}" if frame["degraded"] else "not degraded"
    yield Line(
        f"bucketfront  {frame['time'][:10]} {frame['time'][11:19]}Z  {state}",
        is_heading=True,
    )
    yield Line(
        f"requests     {rate(figures['requests'])}/s   hits {ratio(frame['hit_ratio'])} of requests,"
        f" {ratio(frame['byte_hit_ratio'])} of bytes   (over {frame['rate_s']:.0f} s)"
    )
    yield Line(
        f"errors       4xx {rate(figures['client_errors'])}/s   5xx {rate(figures['server_errors'])}/s"
        f"   cut {rate(figures['cut'])}/s"
    )
    yield Line(f"bytes        to clients {size(figures['sent_bytes'])}/s   uploads {size(figures['received_bytes'])}/s")
    yield Line(
        f"origin       lookups {rate(figures['lookups'])}/s   part fetches {rate(figures['part_fetches'])}/s,"
        f" {frame['fetches_running']:,} running"
    )
    cache, connections = frame["cache"], frame["connections"]
    yield Line(
        f"cache        {size(cache['bytes_used'])} of {size(cache['bytes_limit'])} in {cache['entries']:,} objects"
        f"   evicted {rate(figures['evicted'])}/s   connections {connections['open']:,} of {connections['limit']:,}"
    )


def _decisions(frame: dict[str, Any]) -> list[Line]:
    """Return what each decision of the cache has, the most frequent of late first."""
    rows = sorted(
        frame["decisions"].items(),
        key=lambda item: (-item[1]["requests"]["per_s"], -item[1]["requests"]["total"], item[0]),
    )
    found = [
        Line(
            f"{name:<10}{rate(of['requests']['per_s']):>10}{size(of['bytes']['per_s']):>12}"
            f"{of['requests']['total']:>16,}{size(of['bytes']['total']):>12}"
        )
        for name, of in rows
    ]
    heading = Line(f"{'DECISION':<10}{'REQ/S':>10}{'BYTES/S':>12}{'REQUESTS':>16}{'BYTES':>12}", is_heading=True)
    return [heading, *found] if found else []


def _fills(frame: dict[str, Any]) -> list[Line]:
    found = [
        Line(
            f"{fill['percent']:>8.1f} %{size(fill['size']):>10}{size(fill['rate']) + '/s':>12}{fill['readers']:>9,}"
            f"  {printable(fill['path'])}"
        )
        for fill in frame["fills"]
    ]
    heading = Line(f"{'FETCHED':>10}{'SIZE':>10}{'RATE':>12}{'READERS':>9}  FILLS, the oldest first", is_heading=True)
    return [heading, *found] if found else []


def _hottest(frame: dict[str, Any], sort: Sort) -> list[Line]:
    hottest = frame["hottest"]
    rows = hottest["by_bytes"] if sort is Sort.BYTES else hottest["by_requests"]
    if sort is Sort.PATH:
        rows = sorted(rows, key=lambda row: str(row["path"]))
    found = [
        Line(f"{rate(row['requests_per_s']):>10}{size(row['bytes_per_s']):>12}  {printable(row['path'])}")
        for row in rows
    ]
    heading = Line(f"{'REQ/S':>10}{'BYTES/S':>12}  HOTTEST, by {sort}, of the last minutes", is_heading=True)
    return [heading, *found] if found else []


def _slowest(frame: dict[str, Any]) -> list[Line]:
    found = [
        Line(
            f"{milliseconds(row['ms']):>10}{size(row['sent']):>12}  {row['status']} {decision_of(row):<8}"
            f" {row['method']} {printable(row['path'])}"
        )
        for row in frame["slowest"]
    ]
    heading = Line(f"{'TIME':>10}{'BYTES':>12}  SLOWEST of the last two minutes", is_heading=True)
    return [heading, *found] if found else []


def _fit(text: str, width: int) -> str:
    """Return the text in at most so many characters. Paths lose their middle, because names differ at their ends."""
    if len(text) <= width:
        return text
    kept = max(0, width - 1)
    tail = min(kept // 3, 24)
    return f"{text[: kept - tail]}…{text[len(text) - tail :]}" if width else ""
