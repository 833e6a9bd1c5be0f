"""A site behind an edge, and the outages that all edges go through."""

import contextlib
import dataclasses
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
from bucketfront_process import bucketfront
from edge_servers import KINDS, Edge, running
from held_port import held_port
from installs import NotInstallable
from programs import Program
from site_under_test import Origin, Response, Site

DEADLINE_S = 60.0  # seconds until a lifetime of a second is over at an edge, on a slow machine
POLL_S = 0.05
LIFETIME_S = 2.1  # seconds after which no copy with `max-age=1` is fresh, whatever an edge rounds
PAGE = b"text of a page\n" * 100


def through(edge: Edge, site: Site) -> Site:
    """Return the site as a client of the edge sees it."""
    return Site(site.origin, dataclasses.replace(site.running, url=edge.url), site.folder)


def seen_by_bucketfront(site: Site, name: str) -> list[tuple[str, int]]:
    """Return method and status of each request for the object that bucketfront has logged."""
    lines = [json.loads(line) for line in (site.running.log.parent / "access.log").read_text().splitlines()]
    return [(line["method"], line["status"]) for line in lines if line["path"] == f"/{site.folder}/{name}"]


def until(condition: Callable[[], object], what: str, seconds: float = DEADLINE_S) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}"
        time.sleep(POLL_S)


def until_found(site: Site, name: str) -> Response:
    """Wait until a GET gets 200, and return the next response."""
    until(lambda: site.send("GET", name).status == 200, f"{site.url_of(name)} has 200")
    return site.send("GET", name)


@dataclass(frozen=True, slots=True)
class Outage:
    """What one edge sent in an outage of bucketfront, in one of S3, and after them."""

    program: Program
    without_bucketfront: Response
    without_s3: Response
    missing_without_s3: Response
    after: Response


def outages_of(
    origin: Origin,
    certificate: tuple[Path, Path],
    factory: pytest.TempPathFactory,
    stack: contextlib.ExitStack,
) -> Mapping[str, Outage]:
    """Start all edges that are installed, and let them go through an outage of bucketfront and one of S3."""
    folder = factory.mktemp("bucketfront")
    port = stack.enter_context(held_port())
    config = origin.configuration(folder).replace("server: {port: 0}", f"server: {{port: {port}}}")
    page = {"CacheControl": "max-age=1, stale-if-error=600"}
    with bucketfront(config, folder) as proxy:
        site = Site(origin, proxy, "outage")
        site.store("page", PAGE, **page)
        site.store("missing", PAGE, **page)
        fronts: dict[str, tuple[Edge, Site]] = {}
        for name in KINDS:
            with contextlib.suppress(NotInstallable, pytest.skip.Exception):
                edge = stack.enter_context(running(name, proxy.url, factory.mktemp("edge"), certificate))
                fronts[name] = edge, through(edge, site)
        for _, at in fronts.values():
            assert at.send("GET", "page").body == PAGE
    time.sleep(LIFETIME_S)
    without = {name: at.send("GET", "page") for name, (_, at) in fronts.items()}
    with bucketfront(config, folder):
        for _, at in fronts.values():
            until_found(at, "page")
        origin.log.stop()
        try:
            time.sleep(LIFETIME_S)
            stale = {name: at.send("GET", "page") for name, (_, at) in fronts.items()}
            missing = {name: at.send("GET", "missing") for name, (_, at) in fronts.items()}
        finally:
            origin.log.start()
        after = {name: until_found(at, "missing") for name, (_, at) in fronts.items()}
    return {
        name: Outage(edge.program, without[name], stale[name], missing[name], after[name])
        for name, (edge, _) in fronts.items()
    }
