"""The link between a program and bucketfront: a log of what the program asks for, and events at a chosen byte."""

import asyncio
from collections.abc import Callable
from urllib.parse import urlsplit

from relay import Cut, Seen
from site_under_test import OriginLog, Site


class ClientLink(OriginLog):
    """A relay in front of bucketfront, for the objects of a site. Each connection has one request, so the log is
    complete.
    """

    def __init__(self, site: Site) -> None:
        super().__init__(site.running.url)
        self._folder = site.folder

    def url_of(self, name: str) -> str:
        return f"{self.url}/{self._folder}/{name}"

    def at(self, sent: int, act: Callable[[], object], *, cut: bool) -> None:
        """Call `act` once, when a response has sent that much of its body. `cut` breaks off that response then."""
        is_due = True

        async def on_body(seen: Seen) -> None:
            nonlocal is_due
            if is_due and seen.method == "GET" and seen.sent >= sent:
                is_due = False
                await asyncio.to_thread(act)
                if cut:
                    raise Cut

        self._relay.on_body = on_body

    def sends(self, field: str) -> bool:
        """Return whether any request so far had that field."""
        return any(field in seen.headers for seen in self.since(0))

    def asked(self, name: str) -> list[Seen]:
        """Return the requests for an object."""
        return [seen for seen in self.since(0) if urlsplit(seen.target).path.endswith(f"/{name}")]
