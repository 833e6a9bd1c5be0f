"""What a test of a client records for its row of docs/compatibility.md."""

from dataclasses import dataclass

from programs import Program
from site_under_test import Site


@dataclass(slots=True)
class Case:
    """The facts of one test. A test calls `of` first, so that a failure has its row as well."""

    client: str = ""
    version: str = ""
    what: str = ""
    limit: str = ""
    requests: int = -1
    sent: int = -1

    def of(self, program: Program, what: str) -> None:
        """Name the client, and say in a few words what it does."""
        self.client, self.version, self.what = program.name, program.version, what

    def count(self, site: Site) -> None:
        """Take the origin's requests and bytes."""
        self.requests, self.sent = len(site.requests()), site.origin_bytes()

    def cannot(self, limit: str) -> None:
        """Record what this client cannot do and why, in a sentence. The test holds it to just that."""
        self.limit = limit
